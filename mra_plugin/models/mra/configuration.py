"""What an MRA model is made of."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from mra_plugin.adapters.transformers.families.mra_options import options_of, stated_options
from mra_plugin.models.config_checks import check_encoder_config
from mra_plugin.ops import MRAOptions

POSITION_EMBEDDING_TYPES = ("absolute", "relative_key", "relative_key_query")

_COUNTS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
_PROBABILITIES = ("hidden_dropout_prob", "attention_probs_dropout_prob")


@strict
class MraConfig(PreTrainedConfig):
    """Configuration of the MRA models; all fields are keywords.

    The defaults are those of
    [uw-madison/mra-base-512-4](https://huggingface.co/uw-madison/mra-base-512-4).

    Layers read the fields of attention when they run, so that ``model.config.block_per_row = 8``
    takes effect at once. Parameters that `mra_plugin.patch` leaves in ``config.mra`` go before
    the fields.

    Attributes:
        vocab_size: rows of the word table.
        hidden_size: channels of a token; a multiple of ``num_attention_heads``.
        num_hidden_layers: layers of the encoder.
        num_attention_heads: heads per layer.
        intermediate_size: channels inside the feed-forward part of a layer.
        hidden_act: name of an activation of transformers.
        hidden_dropout_prob: dropout of hidden states in training.
        attention_probs_dropout_prob: kept for the checkpoints' sake. MRA attention has no
            dropout, here as in the original.
        max_position_embeddings: longest sequence in tokens; at least ``block_size``.
        type_vocab_size: rows of the token type table.
        initializer_range: standard deviation of new weights.
        layer_norm_eps: added to variances.
        position_embedding_type: ``"absolute"``, or also learned distances between tokens in every
            layer's scores, against the query (``"relative_key"``) or against query and key
            (``"relative_key_query"``), as BERT defines them. The latter two take memory quadratic
            in length, see `mra_plugin.models.mra.relative`.
        block_size: tokens per block, a power of two from 8 to 128.
        block_per_row: budget of exact blocks. In all, every sequence and head gets
            ``(max_position_embeddings // block_size) * block_per_row`` of them whatever its
            length, as the original does; with ``selection="per_row"`` every block of queries
            gets ``block_per_row``.
        approx_mode: ``"full"`` averages the blocks that were not chosen, ``"sparse"`` drops them.
        initial_prior_first_n_blocks: the first n rows and columns of blocks come first.
        initial_prior_diagonal_n_blocks: block pairs with ``|x - y| <= n // 2`` come first.
        selection: ``"global"`` spends the budget where it matters most, ``"per_row"`` evenly.
        coarse_key_size: keys per cell that what was not chosen is averaged over, a power of two up
            to ``block_size``; None is ``block_size``.
        salient_keys: keys of each head that every query sees exactly.
        block_score: ``"mean"`` chooses blocks by the score of their means, ``"mass"`` by their
            estimated share of the row.
        exact_up_to: a sequence of at most so many real tokens gets exact attention.
            What else `mra_plugin.ops.MRAOptions` has can be given as well, such as ``num_blocks``
            for a budget in all that the length of the longest sequence does not say.
        pad_token_id: its row of the word table is not trained.
        bos_token_id: first token of a sequence.
        eos_token_id: last token of a sequence.
        tie_word_embeddings: whether the masked language model predicts with the word table.

    Raises:
        StrictDataclassFieldValidationError: a field has the wrong type (huggingface_hub's own).
        ValueError: a field has a value that no model can be built with.
    """

    model_type = "mra"

    vocab_size: int = 50265
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 1
    initializer_range: float | int = 0.02
    layer_norm_eps: float | int = 1e-5
    position_embedding_type: str = "absolute"
    block_size: int = 32
    block_per_row: int = 4
    approx_mode: str = "full"
    initial_prior_first_n_blocks: int = 0
    initial_prior_diagonal_n_blocks: int = 0
    selection: str = "global"
    coarse_key_size: int | None = None
    salient_keys: int = 0
    block_score: str = "mean"
    exact_up_to: int = 0
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        check_encoder_config(self, _COUNTS, _PROBABILITIES)
        if self.position_embedding_type not in POSITION_EMBEDDING_TYPES:
            raise ValueError(
                f"position_embedding_type must be one of {POSITION_EMBEDDING_TYPES}, "
                f"got {self.position_embedding_type!r}"
            )
        self._check_options(MRAOptions(**stated_options(self)))
        if self.max_position_embeddings < self.block_size:
            raise ValueError(
                f"max_position_embeddings must be at least block_size ({self.block_size}), as the "
                f"budget counts in blocks of the longest sequence, "
                f"got {self.max_position_embeddings}"
            )

    def attention_options(self, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """The options of `mra_plugin.ops.mra_attention` that these fields stand for.

        Args:
            params: what goes before the fields; ``config.mra`` by default.
        """
        return options_of(self, (getattr(self, "mra", None) or {}) if params is None else params)

    def check_attention(self, attention: str, params: dict[str, Any]) -> None:
        """Refuses an attention that a model with these fields can't have.

        Args:
            attention: name in the registry.
            params: its parameters, right by themselves.

        Raises:
            ValueError: they don't go with the fields.
        """
        relative = self.position_embedding_type != "absolute"
        if attention != "mra":
            if relative:
                raise ValueError(
                    f"attention={attention!r} does not know relative positions "
                    f"(position_embedding_type={self.position_embedding_type!r}); only MRA does"
                )
            return
        options = self.attention_options(params)
        impl = options.pop("impl", "auto")
        self._check_options(MRAOptions(**options))
        if relative and impl != "auto":
            raise ValueError(
                f"impl={impl!r} does not know relative positions "
                f'(position_embedding_type={self.position_embedding_type!r}); leave it at "auto"'
            )

    def _check_options(self, options: MRAOptions) -> None:
        """Refuses options that relative positions don't know, in a model that has them."""
        if self.position_embedding_type != "absolute":
            # It imports nothing of transformers, which may be halfway loaded here.
            from .relative import check_known

            check_known(options)
