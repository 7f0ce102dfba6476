from collections.abc import Iterable

import pytest
import torch

from mra_plugin.registry import (
    SERVICES,
    AttentionBackend,
    AttentionConflictError,
    AttentionError,
    AttentionParameterError,
    AttentionUnavailableError,
    UnknownAttentionError,
    available_attention,
    build_attention,
    get_attention,
    register_attention,
)
from mra_plugin.registry.host import Registry

pytestmark = pytest.mark.usefixtures("registry")


class Recorder:
    """An attention that only remembers what it was built with."""

    def __init__(self, size: int, mode: str = "full", *, depth: int = 1) -> None:
        self.params = {"size": size, "mode": mode, "depth": depth}

    def __call__(self, query: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        return query


@pytest.fixture
def recorder(registry: Registry) -> None:
    register_attention("recorder", summary="remembers")(Recorder)


@pytest.mark.usefixtures("recorder")
def test_name_or_config():
    expected = {"size": 3, "mode": "full", "depth": 2}
    config = {"name": "recorder", "size": 3, "depth": 5}
    assert build_attention("recorder", size=3, depth=2).params == expected
    assert build_attention({"name": "recorder", "size": 3, "depth": 2}).params == expected
    assert build_attention(config, depth=2).params == expected
    assert config == {"name": "recorder", "size": 3, "depth": 5}


def test_config_without_name():
    with pytest.raises(ValueError, match=r"key 'name'.*'size'"):
        build_attention({"size": 3})


@pytest.mark.parametrize("name", [3, None, ("sdpa",)])
def test_name_that_is_no_string(name: object):
    with pytest.raises(TypeError, match="must be a str"):
        build_attention(name)
    with pytest.raises(TypeError, match="must be a str"):
        build_attention({"name": name})
    with pytest.raises(TypeError, match="must be a str"):
        get_attention(name)


@pytest.mark.usefixtures("recorder")
@pytest.mark.parametrize(
    ("name", "near"), [("recoder", "'recorder'"), ("SDPA", "'sdpa'"), ("flash", None)]
)
def test_unknown_name(name: str, near: str | None):
    with pytest.raises(UnknownAttentionError) as raised:
        build_attention(name)
    message = str(raised.value)
    assert f"'{name}'" in message
    assert "'recorder', 'sdpa', 'xformers'" in message
    assert f"did you mean {near}" in message if near else "did you mean" not in message
    assert isinstance(raised.value, LookupError)
    assert isinstance(raised.value, ValueError)


@pytest.mark.usefixtures("recorder")
def test_wrong_parameter():
    with pytest.raises(AttentionParameterError) as raised:
        build_attention("recorder", size=3, moed="sparse")
    message = str(raised.value)
    assert "'moed'" in message
    assert "did you mean 'mode'" in message
    assert "'size', 'mode', 'depth'" in message
    assert isinstance(raised.value, TypeError)
    with pytest.raises(AttentionParameterError, match=r"'heads'.*'size', 'mode', 'depth'"):
        build_attention({"name": "recorder", "size": 1, "heads": 2})


@pytest.mark.usefixtures("recorder")
def test_missing_parameter():
    with pytest.raises(AttentionParameterError, match=r"needs the parameter 'size'.*'depth'"):
        build_attention("recorder", depth=1)


def test_backend_without_parameters():
    with pytest.raises(AttentionParameterError, match=r"'block_size'.*takes none"):
        build_attention("sdpa", block_size=32)
    # nn.Module's own constructor has a catch-all that accepts nothing.
    bare = type("Bare", (torch.nn.Module,), {"forward": lambda self, query: query})
    register_attention("bare")(bare)
    with pytest.raises(AttentionParameterError, match=r"'block_size'.*takes none"):
        build_attention("bare", block_size=32)
    assert get_attention("bare").parameters == {}


def test_build_that_takes_any_parameter():
    register_attention("open")(lambda size=1, **rest: Recorder(size, **rest))
    assert build_attention("open", depth=4).params == {"size": 1, "mode": "full", "depth": 4}
    assert list(get_attention("open").parameters) == ["size"]


def test_errors_of_build_pass_through():
    @register_attention("picky")
    def picky(size: int) -> Recorder:
        raise ValueError(f"size must be even, got {size}")

    with pytest.raises(ValueError, match="size must be even, got 3") as raised:
        build_attention("picky", size=3)
    assert not isinstance(raised.value, AttentionError)


def test_build_that_returns_no_callable():
    register_attention("empty")(lambda: None)
    with pytest.raises(TypeError, match=r"'empty'.*must return a callable, got None"):
        build_attention("empty")


def test_unavailable_backend():
    register_attention("remote", why_unavailable=lambda: "no network")(Recorder)
    assert get_attention("remote").name == "remote"
    with pytest.raises(AttentionUnavailableError, match="'remote' can't run here: no network"):
        build_attention("remote", size=1)
    (row,) = (info for info in available_attention() if info.name == "remote")
    assert (row.status, row.reason) == ("unavailable", "no network")


@pytest.mark.parametrize(
    ("error", "told"),
    [(OSError("no driver"), "OSError: no driver"), (SystemExit(0), "SystemExit: 0")],
)
def test_availability_check_that_raises_harms_nobody(error: BaseException, told: str):
    def check() -> str | None:
        raise error

    register_attention("fragile", why_unavailable=check)(Recorder)
    rows = {info.name: info for info in available_attention()}
    assert rows["fragile"].status == "unavailable"
    assert told in rows["fragile"].reason
    assert rows["sdpa"].status == "ok"
    with pytest.raises(AttentionUnavailableError, match=told):
        build_attention("fragile", size=1)


def test_availability_check_that_answers_something_else():
    register_attention("odd", why_unavailable=lambda: 3)(Recorder)
    rows = {info.name: info for info in available_attention()}
    assert rows["odd"].status == "unavailable"
    assert "must return a text or None, got an object of type int" in rows["odd"].reason


def test_build_that_exits_is_an_error_like_others():
    @register_attention("quitter")
    def quitter() -> Recorder:
        raise SystemExit("no licence")

    with pytest.raises(AttentionUnavailableError, match="can't be built: SystemExit: no licence"):
        build_attention("quitter")


def test_register_returns_what_it_decorates():
    @register_attention("local", summary="a local one")
    class Local(Recorder):
        pass

    assert isinstance(build_attention("local", size=1), Local)
    (row,) = (info for info in available_attention() if info.name == "local")
    assert row.summary == "a local one"
    assert row.status == "ok"
    assert row.distribution is None
    assert row.origin == f"{__name__}.{Local.__qualname__}"


def test_register_again_replaces():
    def cell(answer: str) -> None:
        @register_attention("cell")
        class Cell(Recorder):
            def __init__(self) -> None:
                self.answer = answer

    cell("first")
    cell("second")
    assert build_attention("cell").answer == "second"
    assert len([info for info in available_attention() if info.name == "cell"]) == 1


def test_register_a_taken_name():
    register_attention("taken")(Recorder)
    with pytest.raises(AttentionConflictError) as raised:

        @register_attention("taken")
        def other() -> Recorder:
            return Recorder(1)

    assert f"{__name__}.Recorder" in str(raised.value)
    assert "test_register_a_taken_name.<locals>.other" in str(raised.value)
    assert build_attention("taken", size=1).params["size"] == 1

    with pytest.raises(AttentionConflictError, match=r"'mra-plugin'.*Recorder"):
        register_attention("sdpa")(Recorder)
    assert type(build_attention("sdpa")).__name__ == "SdpaAttention"


@pytest.mark.usefixtures("mean_attention")
def test_register_the_name_of_a_plugin():
    get_attention("mean")
    with pytest.raises(AttentionConflictError, match=r"'mean-attention' 1\.2.*Recorder"):
        register_attention("mean")(Recorder)
    assert get_attention("mean").summary == "averages the values"


@pytest.mark.usefixtures("mean_attention")
def test_register_the_name_of_a_plugin_not_yet_loaded():
    register_attention("mean")(Recorder)
    with pytest.raises(AttentionConflictError) as raised:
        build_attention("mean")
    assert f"{__name__}.Recorder" in str(raised.value)
    assert "'mean-attention' 1.2" in str(raised.value)
    rows = [info for info in available_attention() if info.name == "mean"]
    assert {(row.distribution, row.status) for row in rows} == {
        ("mean-attention", "conflict"),
        (None, "conflict"),
    }


def test_register_without_a_name():
    with pytest.raises(TypeError, match="@register_attention"):
        register_attention(Recorder)


def test_register_the_attention_itself():
    with pytest.raises(TypeError, match="looks like the attention itself"):

        @register_attention("function")
        def function(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
            return value


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"name": 3}, TypeError, "name must be a str, got 3"),
        ({"name": ""}, ValueError, "name must be a word"),
        ({"name": "two words"}, ValueError, "got 'two words'"),
        ({"name": " sdpa"}, ValueError, "got ' sdpa'"),
        ({"build": None}, TypeError, "build must be callable, got None"),
        ({"build": range}, TypeError, "range.*wrap it in a function"),
        ({"summary": None}, TypeError, "summary must be a str, got None"),
        ({"why_unavailable": "never"}, TypeError, "why_unavailable must be callable"),
        ({"why_unsupported": 1}, TypeError, "why_unsupported must be callable, got 1"),
        ({"serves": "weights"}, TypeError, "serves must be a set of words, got 'weights'"),
        ({"serves": None}, TypeError, "serves must be a set of words, got None"),
        ({"serves": {3}}, TypeError, "serves must hold words, got 3"),
        ({"serves": ["wieghts"]}, ValueError, r"'wieghts' \(did you mean 'weights'\?\).*'window'"),
    ],
)
def test_backend_fields(fields: dict, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        AttentionBackend(**{"name": "x", "build": Recorder} | fields)


@pytest.mark.parametrize(
    "words", [["weights"], {"weights"}, ("weights", "weights"), iter(["weights"])]
)
def test_what_a_backend_serves(words: Iterable[str]):
    register_attention("server", serves=words)(Recorder)
    backend = get_attention("server")
    assert backend.serves == {"weights"}
    assert isinstance(backend.serves, frozenset)
    assert AttentionBackend("x", Recorder, serves=["weights", "budget"]).serves < set(SERVICES)


def test_register_what_nobody_knows():
    with pytest.raises(ValueError, match="did you mean 'window'"):
        register_attention("server", serves={"windows"})(Recorder)
    with pytest.raises(UnknownAttentionError):
        get_attention("server")


def test_backend_defaults():
    backend = AttentionBackend("x", Recorder)
    assert backend.serves == frozenset()
    x = torch.zeros(1, 1, 1, 1)
    assert backend.why_unavailable() is None
    assert backend.why_unsupported(x, x, x) is None
    assert list(backend.parameters) == ["size", "mode", "depth"]
    assert backend.parameters["mode"].default == "full"
    with pytest.raises(AttributeError):
        backend.name = "y"
