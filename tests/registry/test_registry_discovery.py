import ast
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import mra_plugin.registry
from mra_plugin.registry import (
    AttentionConflictError,
    AttentionInfo,
    AttentionPluginWarning,
    UnknownAttentionError,
    available_attention,
    build_attention,
    get_attention,
    register_attention,
)

Install = Callable[..., str]

OFFER = """
from mra_plugin.registry import AttentionBackend, hookimpl

def build(**params):
    return lambda *args, **kwargs: params

@hookimpl
def efficient_attention_backends():
    return [AttentionBackend(name={name!r}, build=build, summary="a test's")]
"""


def listed(name: str) -> list[AttentionInfo]:
    return [info for info in available_attention() if info.name == name]


@pytest.mark.usefixtures("mean_attention")
def test_installed_plugin_is_listed_and_built():
    assert listed("mean") == [
        AttentionInfo(
            name="mean",
            status="ok",
            reason="",
            summary="averages the values",
            distribution="mean-attention",
            version="1.2",
            origin="mean_attention",
        )
    ]
    attention = build_attention("mean", gain=2.0)
    value = torch.tensor([[1.0], [3.0], [50.0]])[None, None]
    mask = torch.tensor([[True, True, False]])
    output = attention(value, value, value, key_padding_mask=mask)
    assert output.flatten().tolist() == [4.0, 4.0, 4.0]
    assert isinstance(attention, torch.nn.Module)


def test_fresh_process_finds_every_installed_plugin(mean_attention_path: Path):
    """Nothing but installed metadata leads to the plugins, this distribution's own among them."""
    code = """
import json, sys
from mra_plugin.registry import available_attention, build_attention
build_attention("mean"), build_attention("mra")
rows = {row.name: [row.status, row.distribution] for row in available_attention()}
print(json.dumps([rows, "xformers" in sys.modules]))
"""
    environment = {
        name: value for name, value in os.environ.items() if "EFFICIENT_ATTENTION" not in name
    }
    environment |= {"PYTHONPATH": str(mean_attention_path), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:mra_plugin", "-c", code],
        env=environment,
        cwd=mean_attention_path,
        check=True,
        capture_output=True,
        text=True,
    )
    rows, imports_xformers = json.loads(done.stdout)
    expected = {
        "mean": ["ok", "mean-attention"],
        "mra": ["ok", "mra-plugin"],
        "sdpa": ["ok", "mra-plugin"],
        "xformers": ["unavailable", "mra-plugin"],
    }
    assert rows | expected == rows
    assert not imports_xformers, "a listing without CUDA needs no import of xformers"


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize(
    ("code", "error"),
    [
        pytest.param("import a_module_that_nobody_has", "ModuleNotFoundError", id="import"),
        pytest.param("1 / 0", "ZeroDivisionError", id="raises at import"),
        pytest.param("def broken(:", "SyntaxError", id="syntax"),
        pytest.param("import sys; sys.exit(0)", "SystemExit: 0", id="exits at import"),
        pytest.param("raise GeneratorExit('odd')", "GeneratorExit: odd", id="no Exception at all"),
        pytest.param(
            "class Mute(Exception):\n    def __str__(self): raise self\nraise Mute",
            "Mute: (an error without a readable text)",
            id="an error without a text",
        ),
        pytest.param("x = 1", "no @hookimpl", id="no hook"),
        pytest.param(
            OFFER.format(name="x").replace("attention_backends():", "attention_backend():"),
            "unknown hook 'efficient_attention_backend'",
            id="misspelled hook",
        ),
        pytest.param(
            OFFER.format(name="x").replace("backends():", "backends(config):"),
            "PluginValidationError",
            id="hook with arguments",
        ),
        pytest.param(
            OFFER.format(name="x").replace("return [", "raise OSError('no licence') #"),
            "OSError: no licence",
            id="hook raises",
        ),
        pytest.param(
            OFFER.format(name="x").replace("return [", "raise SystemExit('bye') #"),
            "SystemExit: bye",
            id="hook exits",
        ),
        pytest.param(
            OFFER.format(name="x")
            .replace("return [", "import itertools\n    return (")
            .replace("'x'", "f'x{n}'")
            .replace(")]", ") for n in itertools.count())"),
            "returns more than 1000 backends",
            id="hook without an end",
        ),
        pytest.param(
            OFFER.format(name="x").replace("return [", "return None #"),
            "got None",
            id="hook returns None",
        ),
        pytest.param(
            OFFER.format(name="x").replace("return [", "return 3 #"), "got 3", id="hook returns 3"
        ),
        pytest.param(
            OFFER.format(name="good").replace("a test's\")]", "a test's\"), 'junk']"),
            "got 'junk' in it",
            id="junk in the list",
        ),
        pytest.param(OFFER.format(name="two words"), "white space", id="bad name"),
        pytest.param(
            OFFER.format(name="x").replace("a test's\")]", "a test's\")] * 2"),
            "two backends named 'x'",
            id="a name twice",
        ),
    ],
)
def test_faulty_plugin_is_reported_and_harms_no_other(install: Install, code: str, error: str):
    install("healthy-attention", OFFER.format(name="healthy"))
    module = install("faulty-attention", code, entry_point="faulty", version="0.3")
    install("zealous-attention", OFFER.format(name="zealous"))

    with pytest.warns(AttentionPluginWarning) as caught:
        build_attention("healthy")
    assert len(caught) == 1
    message = str(caught[0].message)
    assert f"'faulty' of distribution 'faulty-attention' 0.3 ({module})" in message
    assert error in message

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it warns once, not at every use
        (row,) = listed("faulty")
        build_attention("zealous")
        build_attention("sdpa")
    assert (row.status, row.distribution, row.version) == ("failed", "faulty-attention", "0.3")
    assert error in row.reason
    names = {info.name for info in available_attention()}
    assert {"healthy", "zealous", "sdpa"} <= names
    assert not {"x", "good"} & names, "nothing of a faulty plugin is taken"

    with pytest.raises(UnknownAttentionError, match="failed to load") as raised:
        get_attention("faulty")
    assert error in str(raised.value)


@pytest.mark.usefixtures("registry")
def test_warnings_as_errors_leave_the_registry_usable(install: Install):
    install("faulty-attention", "1 / 0", entry_point="faulty")
    install("zealous-attention", OFFER.format(name="zealous"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AttentionPluginWarning, match="ZeroDivisionError"):
            available_attention()
        assert get_attention("zealous").name == "zealous"
        assert [info.status for info in listed("faulty")] == ["failed"]


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("name", ["twice", "sdpa"])
def test_one_name_from_two_distributions(install: Install, name: str):
    install("first-attention", OFFER.format(name=name))
    if name != "sdpa":
        install("second-attention", OFFER.format(name=name))
    install("other-attention", OFFER.format(name="other"))
    second = "mra-plugin" if name == "sdpa" else "second-attention"

    for ask in (get_attention, build_attention):
        with pytest.raises(AttentionConflictError) as raised:
            ask(name)
        assert f"'{name}'" in str(raised.value)
        assert "'first-attention'" in str(raised.value)
        assert f"'{second}'" in str(raised.value)
    assert get_attention("other").summary == "a test's"

    rows = listed(name)
    assert {row.distribution for row in rows} == {"first-attention", second}
    assert {row.status for row in rows} == {"conflict"}
    by_distribution = {row.distribution: row.reason for row in rows}
    assert f"'{second}'" in by_distribution["first-attention"]
    assert "'first-attention'" in by_distribution[second]


@pytest.mark.usefixtures("registry")
def test_blocking_one_distribution_settles_a_conflict(
    install: Install, monkeypatch: pytest.MonkeyPatch
):
    install("first-attention", OFFER.format(name="twice"))
    install("second-attention", OFFER.format(name="twice"))
    monkeypatch.setenv("EFFICIENT_ATTENTION_BLOCK", "mra-plugin, Second_Attention")
    assert get_attention("twice").name == "twice"
    assert {(row.name, row.status) for row in available_attention()} >= {
        ("twice", "ok"),
        ("plugin", "blocked"),
    }


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("value", ["1", "true"])
def test_environment_switches_discovery_off(
    install: Install, monkeypatch: pytest.MonkeyPatch, value: str
):
    module = install("some-attention", OFFER.format(name="some"), entry_point="some")
    monkeypatch.setenv("EFFICIENT_ATTENTION_DISABLE_AUTOLOAD", value)
    monkeypatch.delenv("EFFICIENT_ATTENTION_BLOCK")
    build_attention("sdpa")
    with pytest.raises(UnknownAttentionError, match=f"DISABLE_AUTOLOAD={value}"):
        get_attention("some")
    statuses = {info.name: info.status for info in available_attention()}
    assert statuses["sdpa"] == "ok"
    assert {status for name, status in statuses.items() if name not in ("sdpa", "xformers")} == {
        "blocked"
    }
    assert {"mra", "some"} <= set(statuses)
    assert module not in sys.modules


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("value", ["", "0"])
def test_environment_leaves_discovery_on(
    install: Install, monkeypatch: pytest.MonkeyPatch, value: str
):
    install("some-attention", OFFER.format(name="some"))
    monkeypatch.setenv("EFFICIENT_ATTENTION_DISABLE_AUTOLOAD", value)
    assert get_attention("some").name == "some"


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("block", ["some", "other_thing, some", "some-attention", "Some.Attention"])
def test_environment_switches_one_plugin_off(
    install: Install, monkeypatch: pytest.MonkeyPatch, block: str
):
    module = install("Some_Attention", OFFER.format(name="some"), entry_point="some")
    install("other-attention", OFFER.format(name="other"))
    value = f"mra-plugin,{block}"
    monkeypatch.setenv("EFFICIENT_ATTENTION_BLOCK", value)
    (row,) = listed("some")
    assert (row.status, row.distribution) == ("blocked", "Some_Attention")
    assert f"EFFICIENT_ATTENTION_BLOCK={value}" in row.reason
    assert module not in sys.modules
    assert get_attention("other").name == "other"
    with pytest.raises(UnknownAttentionError, match=r"switched off.*EFFICIENT_ATTENTION_BLOCK"):
        get_attention("some")


@pytest.mark.usefixtures("registry")
def test_nothing_is_loaded_before_it_is_needed(install: Install):
    module = install("some-attention", OFFER.format(name="some"))

    @register_attention("local")
    class Local:
        def __call__(self, *args: object, **kwargs: object) -> None: ...

    assert module not in sys.modules
    get_attention("some")
    assert module in sys.modules


@pytest.mark.usefixtures("registry")
def test_plugin_installed_after_the_first_use_is_found(install: Install):
    assert not listed("late")
    install("late-attention", OFFER.format(name="late"))
    assert get_attention("late").name == "late"
    install("later-attention", OFFER.format(name="later"))
    assert [row.status for row in listed("later")] == ["ok"]


COUNTING = (
    OFFER
    + """
import sys, time
sys.counted_imports = getattr(sys, "counted_imports", 0) + 1
time.sleep(0.1)
"""
)


@pytest.mark.usefixtures("registry")
def test_threads_share_one_discovery(install: Install, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "counted_imports", 0, raising=False)
    install("slow-attention", COUNTING.format(name="slow"))
    start = threading.Barrier(6)
    built: list[object] = []

    def work() -> None:
        start.wait()
        built.append(build_attention("slow"))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(built) == 6
    assert sys.counted_imports == 1
    assert [row.status for row in listed("slow")] == ["ok"]


@pytest.mark.usefixtures("registry")
def test_plugin_may_use_the_registry_while_it_is_imported(install: Install):
    install("faulty-attention", "1 / 0", entry_point="faulty")
    install(
        "nested-attention",
        OFFER.format(name="nested")
        + "from mra_plugin.registry import available_attention, build_attention\n"
        + "build_attention('sdpa'); available_attention()\n",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # The other's fault is told to whoever asked, not inside the import of this one.
        with pytest.raises(AttentionPluginWarning, match="'faulty'"):
            get_attention("nested")
        assert get_attention("nested").name == "nested"
    assert len(listed("sdpa")) == 1


@pytest.mark.usefixtures("registry")
def test_registering_does_not_wait_for_a_discovery(install: Install):
    """A plugin's import may wait for a module that registers something in another thread."""
    module = install(
        "waiting-attention",
        OFFER.format(name="waiting")
        + "import threading\nimported, registered = threading.Event(), threading.Event()\n"
        + "imported.set()\nassert registered.wait(10), 'nobody registered'\n",
    )
    discovery = threading.Thread(target=available_attention)
    discovery.start()
    while module not in sys.modules or not hasattr(sys.modules[module], "imported"):
        assert discovery.is_alive()
        time.sleep(0.01)
    sys.modules[module].imported.wait(10)
    register_attention("meanwhile")(torch.nn.Identity)
    sys.modules[module].registered.set()
    discovery.join(timeout=10)
    assert get_attention("waiting").name == "waiting"
    assert get_attention("meanwhile").build is torch.nn.Identity


@pytest.mark.usefixtures("registry")
def test_distribution_without_metadata_is_no_obstacle(tmp_path: Path, install: Install):
    install("half-attention", OFFER.format(name="half"))
    (metadata,) = tmp_path.glob("*/*.dist-info")
    (metadata / "METADATA").unlink()
    assert listed("half")[0].distribution == "unknown"


def test_host_depends_on_torch_and_pluggy_alone():
    folder = Path(mra_plugin.registry.__file__).parent
    imported = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level < 2, f"{path.name} reaches out of its package"
                if node.level == 0:
                    imported.add(node.module)
    outside = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names
    assert outside == {"torch", "pluggy"}
