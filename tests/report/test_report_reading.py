from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.synthetic_results import closeness, gpu_results, results, retrieval, timing, write

from mra_plugin.errors import UserError
from mra_plugin.report.reading import read_results
from mra_plugin.report.results import Results

Read = Callable[..., list[Results]]


def test_everything_arrives(cpu: Results) -> None:
    assert cpu.title == "Imaginary CPU <7>, 2 threads, float32"
    assert (len(cpu.attention), len(cpu.layer), len(cpu.closeness)) == (96, 36, 168)
    assert len(cpu.retrieval) == 20
    assert len(cpu.pictures) == 9
    one = next(t for t in cpu.attention if (t.method, t.tokens) == ("mra", 4096))
    assert (one.direction, one.reference, one.shape) == ("forward", "sdpa", (1, 12, 4096, 64))
    assert one.speed_up.least < one.speed_up.median < one.speed_up.greatest
    assert one.params == {"block_per_row": 8}
    close = next(c for c in cpu.closeness if (c.method, c.tokens, c.budget) == ("mra", 4096, 1))
    assert (close.relative_error, close.layers) == (pytest.approx(0.6 * 127 / 128), 6)
    tiles = next(p for p in cpu.pictures if (p.grid, p.relative_error) == ((8, 8, 8), 0.1))
    assert (tiles.what, tiles.method, tiles.tokens) == ("attention", "mra close in tiles", 512)
    search = next(r for r in cpu.retrieval if (r.method, r.tokens) == ("mra close", 2048))
    assert (search.collection, search.half, search.documents) == (
        "standard library",
        "held out",
        40,
    )
    assert (search.mrr, search.kept) == (pytest.approx(0.8 * 0.96), pytest.approx(0.96))
    assert search.speed_up.least < search.speed_up.median == pytest.approx(1.6)
    assert [one.method for one in cpu.not_run] == ["xformers", "xformers", "sdpa"]
    (source,) = cpu.sources
    assert (source.date, source.commit) == ("2026-02-03", "226c3a75e5")
    assert dict(source.versions) == {"python": "3.11.7", "torch": "2.13.0"}


def test_one_part_for_each_device_and_data_type(read: Read) -> None:
    found = read(results(), gpu_results())
    titles = [one.title for one in found]
    assert titles == ["Imaginary CPU <7>, 2 threads, float32", "Imaginary GPU, bfloat16"]
    assert [stage.stage for stage in found[1].stages] == ["pool", "chosen blocks"]
    assert found[1].notes == ("1.json: 1 benchmark of unknown kind 'tiles' left out",)


def test_cpu_figures_in_a_file_of_a_gpu_keep_the_name_of_the_cpu(read: Read) -> None:
    content = gpu_results()
    content["benchmarks"].append(closeness("mra", 512, 8))
    titles = [one.title for one in read(content)]
    assert titles == ["Imaginary GPU, bfloat16", "Imaginary CPU <7>, 16 threads, float32"]


def test_files_of_one_machine_come_together_and_the_last_figure_counts(read: Read) -> None:
    first = results([timing("attention", "mra", 512, "forward", seconds=1.0)])
    second = results(
        [
            timing("attention", "mra", 512, "forward", seconds=2.0),
            timing("layer", "mra", 512, "forward"),
        ]
    )
    (found,) = read(first, second)
    assert [one.seconds for one in found.attention] == [2.0]
    assert len(found.layer) == 1
    assert found.notes == ("1 of the measurements were repeated later: the last ones count",)
    assert len(found.not_run) == 3


def test_the_last_search_of_each_collection_counts(read: Read) -> None:
    first = results([retrieval("standard library", "mra", 512, mrr=0.1)])
    second = results(
        [
            retrieval("standard library", "mra", 512, mrr=0.2),
            retrieval("language reference", "mra", 512, mrr=0.3, first_hits=0, full_documents=0),
        ]
    )
    (found,) = read(first, second)
    assert [one.mrr for one in found.retrieval] == [0.2, 0.3]
    assert (found.retrieval[1].first_hits, found.retrieval[1].full_documents) == (0, 0)
    assert found.notes == ("1 of the measurements were repeated later: the last ones count",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mrr": 0}, "'mrr' must be a positive number, got 0"),
        ({"first_hits": -1}, "'first_hits' must be a positive whole number, got -1"),
        ({"collection": None}, "has no 'collection'"),
        ({"overlap": -0.5}, "'overlap' must be from 0 to 1e+30, got -0.5"),
    ],
)
def test_damaged_searches(read: Read, changes: dict[str, Any], message: str) -> None:
    entry = retrieval("standard library", "mra", 512)
    entry["extra_info"] |= changes
    with pytest.raises(UserError) as error:
        read(results([entry]))
    assert message in str(error.value)


def test_missing_and_unknown_measurements(read: Read) -> None:
    entries = [
        timing("attention", "mra", 512, "forward", peak_bytes=0, something_new=1),
        closeness("mra", 512, 8, relative_error=float("nan"), cosine=None),
    ]
    entries[0]["extra_info"]["reference_peak_bytes"] = 1e-320
    (found,) = read(results(entries))
    assert found.attention[0].peak_bytes is None
    assert found.attention[0].reference_peak_bytes is None
    assert (found.closeness[0].relative_error, found.closeness[0].cosine) == (None, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "the file must be an object, got []"),
        (
            {"benchmarks": []},
            "is no result file of pytest-benchmark or `mra compare`: it has no 'machine_info'",
        ),
        ({"machine_info": {}, "attention": 1}, "it has no 'benchmarks' at its top level"),
        ({"machine_info": {}, "benchmarks": [{"name": "x"}]}, "no benchmark has an extra_info"),
        ({"machine_info": {}, "benchmarks": 3}, "'benchmarks' must be a list, got 3"),
    ],
)
def test_foreign_files(tmp_path: Path, content: Any, message: str) -> None:
    path = write(tmp_path / "foreign.json", content)
    with pytest.raises(UserError) as error:
        read_results([path])
    assert str(path) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed_up": None}, "has no 'speed_up'"),
        ({"seconds": 0}, "'seconds' must be a positive number, got 0"),
        ({"seconds": float("inf")}, "'seconds' must be a positive number, got inf"),
        ({"tokens": "512"}, "'tokens' must be a positive whole number, got '512'"),
        ({"direction": "back"}, "'direction' must be one of forward, training, got 'back'"),
        ({"shape": "1x2"}, "'shape' must be a list of positive whole numbers, got '1x2'"),
        ({"peak_bytes": "much"}, "'peak_bytes' must be a number or null, got 'much'"),
        ({"method": ""}, "'method' must be text, got ''"),
        ({"method": "a\nb"}, "'method' must be a line of at most 100 characters, got 'a\\nb'"),
        ({"reference": "x" * 10**5}, "'reference' must be a line of at most 100 characters"),
        ({"seconds": 10**400}, "'seconds' must be from 1e-30 to 1e+30, got 1000"),
        ({"speed_up": 1e-320}, "'speed_up' must be from 1e-30 to 1e+30, got 1e-320"),
        ({"peak_bytes": -(10**400)}, "'peak_bytes' must be from -1e+30 to 1e+30, got -1000"),
        ({"tokens": 10**400}, "'tokens' must be a positive whole number, got 1000"),
        ({"reason": "\ud83d"}, "has half of a character"),
    ],
)
def test_damaged_entries(read: Read, changes: dict[str, Any], message: str) -> None:
    entry = timing("attention", "mra", 512, "forward")
    entry["extra_info"] |= changes
    with pytest.raises(UserError) as error:
        read(results([entry]))
    assert ("extra_info of benchmark 'attention[mra-512-forward]'" in str(error.value)) is (
        "reason" not in changes
    )
    assert message in str(error.value)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"can't read .*none.json': No such file"):
        read_results([tmp_path / "none.json"])
    broken = tmp_path / "broken.json"
    broken.write_text('{"benchmarks": [')
    with pytest.raises(UserError, match=r"broken.json is not JSON"):
        read_results([broken])
    broken.write_text("[" * 10**5)
    with pytest.raises(UserError, match=r"broken.json is nested too deeply"):
        read_results([broken])
