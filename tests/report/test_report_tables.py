from collections.abc import Callable
from typing import Any

import pytest
from helpers.synthetic_results import RETRIEVAL, closeness, results, retrieval, stages_of, timing

from mra_plugin.report import numbers
from mra_plugin.report.growth import fitted_exponent, growth
from mra_plugin.report.markdown import section_markdown
from mra_plugin.report.results import Results
from mra_plugin.report.sections import NAMES, section
from mra_plugin.report.statements import statements
from mra_plugin.report.tables import Table

Read = Callable[..., list[Results]]


def only_table(name: str, found: Results) -> Table:
    shown = section(name, found)
    assert shown is not None
    (table,) = shown.tables
    return table


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (numbers.ratio(0.5214), "0.52"),
        (numbers.ratio(0.00044), "0.00044"),
        (numbers.ratio(0.9999), "1.0"),
        (numbers.ratio(99.97), "100"),
        (numbers.seconds(0.9996), "1.00 s"),
        (numbers.seconds(0.01234), "12.3 ms"),
        (numbers.seconds(4.2e-8), "0.04 µs"),
        (numbers.memory(123_456_789), "123 MB"),
        (numbers.memory(None), "n/a"),
        (numbers.share(0.0625), "6.2%"),
        (numbers.share(0.001), "0.10%"),
        (numbers.share(1.1), "110%"),
        (numbers.tick(2e-4, numbers.SECONDS), "200 µs"),
        (numbers.lengths([512, 1024]), "512 to 1024 (2 lengths)"),
    ],
)
def test_numbers(shown: str, text: str) -> None:
    assert shown == text


def test_exponent_is_the_slope_of_the_least_squares_line() -> None:
    assert fitted_exponent([512, 1024, 4096], [3 * n**1.7 for n in (512, 1024, 4096)]) == (
        pytest.approx(1.7)
    )
    # By hand: log2 lengths 0, 1, 2 and log2 costs 0, 0, 3 have the slope 3 / 2.
    assert fitted_exponent([1, 2, 4], [1, 1, 8]) == pytest.approx(1.5)


def test_growth_compares_only_lengths_with_the_same_parameters(read: Read) -> None:
    entries = [
        timing("attention", "mra", tokens, "forward", params={"block_per_row": budget})
        for tokens, budget in ((512, 4), (1024, 8), (2048, 8), (4096, 8))
    ]
    (found,) = read(results(entries))
    fit = growth(found.attention, "mra", "forward")
    assert fit is not None
    assert fit.tokens == (1024, 2048, 4096)
    assert fit.time == pytest.approx(1.1)
    assert fit.memory == pytest.approx(1.05, abs=1e-4)
    assert growth(found.attention[:3], "mra", "forward") is None
    assert growth(found.attention, "mra", "training") is None
    assert growth(found.attention, "sdpa", "forward") is None


def test_growth_table_names_its_lengths(cpu: Results) -> None:
    rows = only_table("growth", cpu).rows
    over = "512 to 16384 (6 lengths)"
    assert rows[0] == ("sdpa", "2.00", "1.00", "2.00", "1.00", over)
    assert rows[1] == ("mra", "1.10", "1.05", "1.10", "1.05", over)


def test_speed(cpu: Results) -> None:
    table = only_table("speed", cpu)
    assert table.header == (
        "tokens",
        "blocks per row",
        "forward, mra",
        "forward, mra per_row",
        "training, mra",
        "training, mra per_row",
    )
    assert table.rows[1][:3] == ("1024", "8", "2.1 (1.8 to 2.4)")
    assert [row[0] for row in table.rows] == ["512", "1024", "2048", "4096", "8192", "16384"]


def test_methods_stand_in_a_fixed_order_and_gaps_are_named(read: Read) -> None:
    entries = [
        timing("attention", method, tokens, "forward")
        for method, tokens in (
            ("mean of a plugin", 512),
            ("nystrom", 1024),
            ("mra", 512),
            ("mra", 1024),
        )
    ]
    (found,) = read(results(entries))
    rows = only_table("speed_all", found).rows
    assert [row[0] for row in rows] == ["mra", "nystrom", "mean of a plugin"]
    assert rows[1][1] == "n/a"


def test_layer_and_memory(cpu: Results) -> None:
    layer = section("layer", cpu)
    assert layer is not None
    forward, training = layer.tables
    assert "times as fast as roberta exact" in forward.caption
    assert training.caption.startswith("Training")
    assert [row[0] for row in forward.rows] == [
        "mra",
        "nystrom",
        "nystromformer",
        "longformer",
        "bigbird",
    ]
    assert only_table("memory", cpu).rows[-1][1:4] == ("8", "128 MB", "147 MB (1.1x)")


def test_a_busy_machine_has_a_table_for_each_number_of_processes(read: Read) -> None:
    entries = [
        timing("attention", method, tokens, "forward", busy_processes=processes)
        for processes in (2, 0)
        for method in ("sdpa", "mra")
        for tokens in (1024, 4096)
    ]
    for one in entries:
        one["extra_info"]["kind"] = "busy"
    (found,) = read(results(entries, not_run=[]))
    shown = section("busy", found)
    assert shown is not None
    alone, beside = shown.tables
    assert alone.caption.startswith("Alone, times as fast as sdpa")
    assert beside.caption.startswith("Beside 2 busy processes, times as fast as sdpa")
    assert beside.rows == (("mra", "2.1 (1.8 to 2.4)", "7.2 (6.1 to 8.3)"),)
    assert section("speed", found) is None


def test_stages_stand_beside_what_the_processor_does(read: Read) -> None:
    fine = {
        "stage": "fine",
        "seconds": 0.02,
        "share": 0.5,
        "floor_bytes_seconds": 1e-3,
        "floor_operations_seconds": 0.01,
    }
    best = {"peak": 1.5e11, "bandwidth": 1.2e10, "bandwidth_all_threads": 2e10}
    before = stages_of("mra", 4096, [{**fine, "seconds": 0.03}], **best)
    (found,) = read(results([before, stages_of("mra", 4096, [fine], **best)], not_run=[]))
    shown = section("stages", found)
    assert shown is not None
    assert "12.0 GB/s (all threads: 20.0 GB/s)" in shown.text
    assert "150 GFLOP/s" in shown.text
    (row,) = shown.tables[0].rows
    assert row == ("fine", "mra", "4096", "forward", "20.0 ms", "50%", "1.00 ms", "10.0 ms")


def test_budget_beside_window_and_oracle(cpu: Results) -> None:
    table = only_table("budget", cpu)
    assert table.header[-2:] == ("window: error", "oracle: error")
    # 16 blocks are all of 512 tokens: larger budgets say nothing more.
    assert [row[:2] for row in table.rows[:5]] == [("512", f"{2**n}") for n in range(5)]
    assert table.rows[4][2:4] == ("100%", "0.000")
    assert len(table.rows) == 5 + 7
    row = next(row for row in table.rows if row[:2] == ("4096", "8"))
    assert row == ("4096", "8", "6.2%", "0.301", "0.900", "6.5%", "0.477", "0.251")


def test_closeness_takes_the_same_budget_or_the_nearest_cost(cpu: Results) -> None:
    rows = [row for row in only_table("closeness", cpu).rows if row[0] == "4096"]
    assert [row[1:4] for row in rows] == [
        ("mra", "8 blocks per row", "6.2%"),
        ("mra close", "16 blocks of 16 per row", "6.2%"),
        ("mra per_row", "8 blocks per row", "6.2%"),
        ("mra sparse", "8 blocks per row", "6.2%"),
        ("nystrom", "256 landmarks", "n/a"),
        ("window", "8 blocks per row", "6.2%"),
        ("oracle", "8 blocks per row", "6.2%"),
        ("oracle close", "16 blocks of 16 per row", "6.2%"),
    ]


def test_additions_stand_between_the_paper_and_the_preset(cpu: Results) -> None:
    rows = [row for row in only_table("additions", cpu).rows if row[0] == "4096"]
    assert [row[1:3] for row in rows] == [
        ("mra", "8 blocks per row"),
        ("mra close", "16 blocks of 16 per row"),
        ("mra per_row", "8 blocks per row"),
        ("mra finer cells", "8 blocks per row"),
        ("mra salient keys", "8 blocks per row"),
        ("mra by mass", "8 blocks per row"),
        ("mra smaller blocks", "16 blocks of 16 per row"),
        ("oracle close", "16 blocks of 16 per row"),
    ]


def test_ranking(cpu: Results) -> None:
    shown = section("retrieval_all", cpu)
    assert shown is not None
    library, reference = shown.tables
    assert library.caption == "Standard library, 40 documents (held out)"
    assert reference.caption.startswith("Language reference, 30 documents (held out), of which")
    assert reference.caption.endswith("others are whole: 12 at 512 tokens, 12 at 2048 tokens")
    assert [row[:2] for row in library.rows] == [
        (tokens, method) for tokens in ("512", "2048") for method in RETRIEVAL
    ]
    assert library.rows[7] == (
        *("2048", "mra close", "1.6 (1.4 to 1.8)", "0.768", "96%"),
        *("31 of 40", "98%", "0.990"),
    )
    short = section("retrieval", cpu)
    assert short is not None
    library, reference = short.tables
    assert library.caption == "Standard library, 40 documents (held out)"
    assert library.header[:3] == ("tokens", "MRR, exact", "mra: speed-up")
    assert library.header[-1] == "mra close: overlap@10"
    assert [row[0] for row in library.rows] == ["512", "2048"]
    assert library.rows[1][1] == "0.800"
    assert library.rows[1][-3:] == ("1.6x", "0.768", "98%")


def test_a_method_that_was_not_searched_at_a_length_is_left_open(read: Read) -> None:
    entries = [retrieval("standard library", *one) for one in [("mra", 512), ("mra close", 2048)]]
    shown = section("retrieval", read(results(entries))[0])
    assert shown is not None
    assert [row[2] for row in shown.tables[0].rows] == ["1.2x", "n/a"]
    assert [row[-1] for row in shown.tables[0].rows] == ["n/a", "98%"]


def test_pictures_stand_by_grid_and_method(cpu: Results) -> None:
    shown = section("pictures", cpu)
    assert shown is not None
    alone, block = shown.tables
    assert (alone.caption, block.caption) == (
        "Attention alone",
        "A diffusion transformer of one block",
    )
    assert [row[:3] for row in alone.rows] == [
        (grid, tokens, method)
        for grid, tokens in (("8 x 8 x 8", "512"), ("64 x 64", "4096"))
        for method in ("exact", "mra close", "mra close in tiles")
    ]
    assert alone.rows[5][3:] == ("3.5 (3.1 to 3.9)", "0.100", "0.975")


def test_what_was_not_searched_has_no_table(read: Read) -> None:
    entries = [retrieval("standard library", "nystrom 64", 512), closeness("mra", 512, 8)]
    (found,) = read(results(entries))
    assert section("retrieval", found) is None
    assert section("additions", found) is None
    assert section("retrieval_all", found) is not None
    assert "Searching" not in " ".join(statements(found))


def test_what_could_not_run_stands_together_by_reason(cpu: Results) -> None:
    assert only_table("not_run", cpu).rows == (
        ("xformers", "attention", "forward", "512, 1024", "no kernel for <cpu> | float32"),
        ("sdpa", "attention", "training", "65536", "would take 40 GB"),
    )


def test_machine_in_one_line(cpu: Results) -> None:
    shown = section("machine", cpu)
    assert shown is not None
    assert shown.text == (
        "Imaginary CPU <7>, 2 threads, float32; AVX512; python 3.11.7, torch 2.13.0; 2026-02-03; "
        "commit 226c3a75e5."
    )


def test_what_was_not_measured_has_no_section(read: Read) -> None:
    (found,) = read(results([closeness("mra", 512, 8)], not_run=[]))
    there = [name for name in NAMES if section(name, found)]
    assert there == ["closeness", "budget", "machine"]
    (only,) = statements(found)
    assert "MRA computes 50% of the pairs exactly" in only


def test_statements_are_the_figures(cpu: Results) -> None:
    library, reference, forward, training, growing, layer, close = statements(cpu)
    assert library == (
        "Searching the standard library, 40 documents of up to 2048 tokens: documents are read "
        "with mra 2.0 times as fast, mean reciprocal rank 0.672, with mra close 1.6 times as fast, "
        "mean reciprocal rank 0.768; exact attention has 0.800."
    )
    assert reference.startswith("Searching the language reference, 30 documents")
    assert "mra is 25.2 (21.4 to 29.0) times as fast as sdpa" in forward
    assert "at 512 tokens, 1.1 times as fast" in forward
    assert training.startswith("Training at 16384 tokens")
    assert "the power of 1.10 with mra" in growing
    assert "of 2.00 with sdpa" in growing
    assert "2.3 (2.0 to 2.7) times as fast as roberta exact" in layer
    assert "longformer 1.1" in layer
    assert "relative error of 0.301" in close
    assert "a window of as many blocks 0.477, nearly the best choice of blocks 0.251" in close


def test_statement_names_only_what_had_as_many_blocks(read: Read) -> None:
    entries = [closeness("mra", 512, 8), closeness("window", 512, 4), closeness("oracle", 512, 8)]
    (sentence,) = statements(read(results(entries))[0])
    assert "oracle" not in sentence
    assert "window" not in sentence
    assert "nearly the best choice of blocks" in sentence


def test_closeness_says_how_many_layers(cpu: Results, read: Read) -> None:
    shown = section("budget", cpu)
    assert shown is not None
    assert shown.text.endswith("averaged over all heads of 6 layers.")
    quick = [closeness("mra", 512, 8), closeness("mra", 4096, 8, layers=2)]
    shown = section("closeness", read(results(quick))[0])
    assert shown is not None
    assert shown.text.endswith("over all heads of 6 layers at 512 tokens, 2 layers at 4096 tokens.")


def test_markdown_shows_text_as_it_is(cpu: Results) -> None:
    shown = section("not_run", cpu)
    assert shown is not None
    assert section_markdown(shown) == (
        "Each with its reason:\n\n"
        "| method | comparison | direction | tokens | reason |\n"
        "| --- | --- | --- | --- | --- |\n"
        "| xformers | attention | forward | 512, 1024 | no kernel for \\<cpu\\> \\| float32 |\n"
        "| sdpa | attention | training | 65536 | would take 40 GB |"
    )


def test_a_reference_for_each_length_and_batches_that_shrink(read: Read) -> None:
    def entry(method: str, tokens: int, direction: str, channels: int) -> dict[str, Any]:
        made = timing("attention", "mra", tokens, direction)
        made["extra_info"] |= {
            "method": method,
            "reference": "cudnn" if tokens < 2048 else "flash",
            "shape": [8192 // tokens, 12, tokens, channels],
            "seconds": 0.5,
        }
        return made

    entries = [
        entry(method, tokens, direction, channels)
        for tokens in (1024, 2048, 4096)
        for direction in ("forward", "training")
        for method in ("mra 32x8", "flash", "cudnn")
        for channels in (64, 128)
    ]
    found = read(results(entries))
    assert [one.title.rpartition(", ")[2] for one in found] == ["64 channels", "128 channels"]
    assert [len(one.attention) for one in found] == [18, 18]
    assert [len(one.not_run) for one in found] == [3, 0]
    first, _ = found
    shown = section("speed_all", first)
    assert shown is not None
    assert "the fastest exact attention at each length (flash or cudnn)" in shown.tables[0].caption
    assert [row[0] for row in shown.tables[0].rows] == ["flash", "cudnn", "mra 32x8"]
    assert only_table("speed", first).header == (
        "tokens",
        "blocks per row",
        "forward, mra 32x8",
        "training, mra 32x8",
    )
    # The same time for half the batch of twice the length is linear growth.
    assert only_table("growth", first).rows[0][:2] == ("flash", "1.00")
    assert "mra 32x8 is" in statements(first)[0]
