"""Everything that this package changes in transformers, all of it on import.

- Two attention implementations and their mask function are registered, the official way.
- A config names its implementation when it is written out, if it is one of the two. transformers
  reads ``attn_implementation`` from config.json but never writes it, and a model tuned for MRA
  would come back with exact attention without a word. What is written says what it needs, as
  transformers' error shows it to a process that never imported this package.
- With the options of MRA attention written out, also where a model was asked for with ``"mra"`` and
  nothing else: what a preset stands for may change, and a checkpoint may not.
- ``config.output_attentions`` is allowed with the two, as they give the matrices.
- A config that names one of the two imports this package when it is unpickled, so that a model goes
  to other processes whole.
- ``config.mra`` may be given to ``from_pretrained`` beside a config, as sentence-transformers does
  with its ``model_kwargs``.
- A model class that would not heed the two refuses them, where transformers would accept any
  registered name and go on with its own attention.
- The layers of MRA and Nyströmformer, which compute attention themselves, heed them as well
  (`families`).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

from .config_attention import IMPLEMENTATIONS, MRA, attention_for, settled_params

# Config attributes that remember what `patch` replaced, and how the tokens of the picture that a
# model reads are ordered (`pictures`); never written to a file.
BEFORE_PATCH = "_attention_before_patch"
ARRANGEMENT = "_token_arrangement"

# How config.json names them; a plain name is read as well.
_WRITTEN = {name: f"{name} (import mra_plugin)" for name in IMPLEMENTATIONS}
_READ = {written: name for name, written in _WRITTEN.items()}


def extend_configs() -> None:
    """Lets configs write our implementations, and ask them for attention matrices."""
    from transformers.configuration_utils import PreTrainedConfig

    config_class: Any = PreTrainedConfig
    to_dict = config_class.to_dict
    reduce = config_class.__reduce_ex__
    named = config_class._attn_implementation
    validate = config_class.validate_output_attentions
    output_attentions = config_class.output_attentions

    @functools.wraps(to_dict)
    def to_dict_with_implementation(self: Any) -> dict[str, Any]:
        output: dict[str, Any] = to_dict(self)
        for passing in (BEFORE_PATCH, ARRANGEMENT):
            output.pop(passing, None)
        implementation = _to_write(self)
        if implementation is not None:
            output["attn_implementation"] = implementation
        if self._attn_implementation == MRA and (params := settled_params(self)) is not None:
            output[MRA] = params
        return output

    @functools.wraps(reduce)
    def reduce_ex(self: Any, protocol: Any) -> Any:
        reduced = reduce(self, protocol)
        if _to_write(self) is None or not isinstance(reduced, tuple):
            return reduced
        return (rebuild, reduced[:2], *reduced[2:])

    def attn_implementation(self: Any) -> str | None:
        # Not where it is set: a config may have been read before this package was imported.
        name: str | None = named.fget(self)
        return _READ.get(name, name)  # type: ignore[arg-type]

    @functools.wraps(validate)
    def validate_output_attentions(self: Any) -> None:
        if self._attn_implementation not in IMPLEMENTATIONS:
            validate(self)

    def set_output_attentions(self: Any, value: bool) -> None:
        if self._attn_implementation in IMPLEMENTATIONS:
            self._output_attentions = value
        else:
            output_attentions.fset(self, value)

    # Known to every config, so that from_pretrained(..., mra={...}) takes it for the config's.
    for implementation in IMPLEMENTATIONS:
        setattr(config_class, implementation, None)
    config_class.to_dict = to_dict_with_implementation
    config_class.__reduce_ex__ = reduce_ex
    config_class._attn_implementation = named.getter(attn_implementation)
    config_class.validate_output_attentions = validate_output_attentions
    config_class.output_attentions = output_attentions.setter(set_output_attentions)
    # Classes that exist already have listed their validators.
    for known in _with_subclasses(config_class):
        validators = known.__dict__.get("__class_validators__", [])
        validators[:] = [
            validate_output_attentions if one is validate else one for one in validators
        ]


def rebuild(make: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Makes a config that was pickled; naming this function has the pickle import this package."""
    return make(*args)


def register_implementations() -> None:
    """Registers our implementations, and has models check that they can serve them."""
    from transformers.configuration_utils import PreTrainedConfig
    from transformers.masking_utils import AttentionMaskInterface
    from transformers.modeling_utils import AttentionInterface, PreTrainedModel

    from .attention_function import attention_forward
    from .excess_length import tell_of_excess_length
    from .families.class_patches import hand_out_config
    from .masks import make_mask
    from .pictures import note_pictures
    from .support import check_class, check_modules

    for implementation in IMPLEMENTATIONS:
        AttentionInterface.register(implementation, attention_forward)
        AttentionMaskInterface.register(implementation, make_mask)

    model_class: Any = PreTrainedModel
    get_correct = model_class.get_correct_attn_implementation
    post_init = model_class.post_init

    @functools.wraps(get_correct)
    def get_correct_attn_implementation(self: Any, *args: Any, **kwargs: Any) -> str:
        implementation: str = get_correct(self, *args, **kwargs)
        if implementation in IMPLEMENTATIONS:
            check_class(type(self), self.config)
            # A live model is given another one; a part with a config of its own is asked itself.
            own = [m for m in self.modules() if getattr(m, "config", self.config) is self.config]
            check_modules(self, own)
            hand_out_config(self)
            tell_of_excess_length(type(self))
            note_pictures(type(self))
            attention_for(self.config, implementation)  # refuses wrong parameters
            _hand_down_params(self.config, implementation)
            if implementation == MRA:
                _write_out_params(self.config)
        return implementation

    @functools.wraps(post_init)
    def post_init_and_check(self: Any) -> None:
        post_init(self)
        if self.config._attn_implementation in IMPLEMENTATIONS:
            # Before weights are loaded. A part may have been told to keep an attention of its own.
            configs = ((m, getattr(m, "config", self.config)) for m in self.modules())
            check_modules(self, [m for m, config in configs if _asks_for_ours(config)])

    def take_params(build: Any) -> Any:
        """Of a class method that takes a config: lets it take the config's parameters beside it."""

        @functools.wraps(build.__func__)
        def build_with_params(cls: Any, *args: Any, **kwargs: Any) -> Any:
            config = kwargs.get("config", args[0] if args else None)
            given = [name for name in IMPLEMENTATIONS if kwargs.get(name) is not None]
            if given and isinstance(config, PreTrainedConfig):
                config = copy.deepcopy(config)
                for name in given:
                    setattr(config, name, kwargs.pop(name))
                if "config" in kwargs:
                    kwargs["config"] = config
                else:
                    args = (config, *args[1:])
            return build.__func__(cls, *args, **kwargs)

        return classmethod(build_with_params)

    model_class.from_pretrained = take_params(model_class.from_pretrained)
    model_class._from_config = take_params(model_class._from_config)
    model_class.post_init = post_init_and_check
    model_class.get_correct_attn_implementation = get_correct_attn_implementation


def _asks_for_ours(config: Any) -> bool:
    return getattr(config, "_attn_implementation", None) in IMPLEMENTATIONS


def _to_write(config: Any) -> str | dict[str, Any] | None:
    """What a config has to be given as ``attn_implementation`` to get ours back.

    A name goes for the configs inside as well; where they differ, a dict tells them apart.
    """
    own = _WRITTEN.get(config._attn_implementation)
    inner = {
        key: _to_write(getattr(config, key))
        for key in config.sub_configs
        if getattr(config, key, None) is not None
    }
    if all(one == own for one in inner.values()):
        return own
    return {key: one for key, one in {"": own, **inner}.items() if one is not None}


def _hand_down_params(config: Any, implementation: str) -> None:
    """Gives the parameters to the configs inside, whose layers read their own config."""
    params = getattr(config, implementation, None)
    if params is None:
        return
    for key in config.sub_configs:
        inner = getattr(config, key, None)
        if inner is not None and getattr(inner, implementation, None) is None:
            setattr(inner, implementation, copy.deepcopy(params))


def _write_out_params(config: Any) -> None:
    """Has ``config.mra``, and that of the configs inside, say all that a preset stands for."""
    params = settled_params(config)
    if params is not None:
        config.mra = params
    for key in config.sub_configs:
        inner = getattr(config, key, None)
        if inner is not None:
            _write_out_params(inner)


def _with_subclasses(parent: type) -> list[type]:
    children: list[type] = parent.__subclasses__()
    return [parent, *(one for child in children for one in _with_subclasses(child))]
