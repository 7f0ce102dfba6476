"""What a MEGA model is made of."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from mra_plugin.registry import get_attention

NORMALIZATIONS = ("scalenorm", "layernorm", "rmsnorm", "batchnorm", "syncbatchnorm")
ATTENTION_FUNCTIONS = ("softmax", "laplace", "relu2")
POSITIONAL_BIASES = ("rotary", "simple")

_COUNTS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "intermediate_size",
    "ema_projection_size",
    "shared_representation_size",
    "nffn_hidden_size",
    "max_positions",
    "type_vocab_size",
)
_PROBABILITIES = (
    "dropout_prob",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "nffn_activation_dropout_prob",
    "classifier_dropout",
)
_SPREADS = ("initializer_range", "ema_delta_alpha_range", "ema_beta_range", "ema_gamma_omega_range")
_CHOICES = {
    "normalization_type": NORMALIZATIONS,
    "attention_activation": ATTENTION_FUNCTIONS,
    "relative_positional_bias": POSITIONAL_BIASES,
}
_PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")


@strict
class MegaConfig(PreTrainedConfig):
    """Configuration of the MEGA models; all fields are keywords.

    Fields and defaults are those of transformers 4.

    Attributes:
        vocab_size: rows of the word table.
        hidden_size: channels of a token.
        num_hidden_layers: layers of the model.
        intermediate_size: channels of the values, and of the gate on what attention gives.
        ema_projection_size: moving averages of each channel.
        bidirectional: whether the moving average runs in both directions; False for a decoder.
        shared_representation_size: channels of queries and keys; even for rotary positions.
        use_chunking: whether attention sees one chunk of ``chunk_size`` tokens at a time. The
            moving average always sees the whole sequence.
        chunk_size: tokens of a chunk; without ``use_chunking`` it means nothing. The last chunk of
            a sequence may be shorter. Chunks count from the first real token of a sequence.
        truncation: tokens, its own included, that the moving average of a token reaches back, and
            ahead if it is bidirectional; None means all.
        normalize_before_mega: whether attention normalises its input, or else its output.
        normalization_type: ``"scalenorm"``, ``"layernorm"``, ``"rmsnorm"``, ``"batchnorm"`` or
            ``"syncbatchnorm"``. The last two count padding, as transformers 4 does, in training.
        norm_affine: whether norms have parameters.
        activation: name of an activation of transformers, for values, candidates, and the
            feed-forward part.
        attention_activation: ``"softmax"``, ``"laplace"`` or ``"relu2"``.
        dropout_prob: dropout of the moving average, of a layer's candidate, and of what the
            feed-forward part gives.
        hidden_dropout_prob: dropout of the values, and of the heads' inputs.
        attention_probs_dropout_prob: dropout of attention's weights. An attention that
            `mra_plugin.patch` puts in has none.
        use_feature_dropout: whether dropout, but for that of attention's weights, drops a channel
            at all tokens of a sequence alike.
        use_normalized_ffn: whether layers have a feed-forward part.
        nffn_hidden_size: channels inside of it.
        normalize_before_ffn: whether it normalises its input, or else its output.
        nffn_activation_dropout_prob: dropout inside of it.
        max_positions: longest sequence for ``"simple"`` positions without chunks. Rotary positions
            know no limit; there it is the length that training and conversion take for the model's.
        add_token_type_embeddings: whether there is a table of token types.
        type_vocab_size: its rows.
        initializer_range: standard deviation of new weights.
        ema_delta_alpha_range: the same of the averages' damping and decay.
        ema_beta_range: the same of their inputs' weights, around 1 and -1 in turn.
        ema_gamma_omega_range: the same of their outputs' weights, and of the channel's own.
        relative_positional_bias: ``"rotary"`` or ``"simple"``, a learned number per distance.
        classifier_dropout: dropout of the heads that classify sequences and tokens; None means
            ``hidden_dropout_prob``.
        use_cache: whether a decoder gives a cache to go on from.
        add_lm_hidden_dense_layer: whether the language models have a dense layer with tanh before
            the vocabulary.
        num_attention_heads: 1; MEGA has no other.
        attend_across_chunks: whether attention sees the whole sequence although the model has
            chunks: for an encoder that was trained with them, and softmax attention with rotary
            positions. New here; meant for an attention that `mra_plugin.patch` puts in.
        pad_token_id: its row of the word table is not trained.
        bos_token_id: first token of a sequence.
        eos_token_id: last token of a sequence.
        is_decoder: whether attention is causal; needs ``bidirectional=False``.
        add_cross_attention: whether the layers of a decoder attend to an encoder's states as well.
        tie_word_embeddings: whether the language models predict with the word table.

    Raises:
        StrictDataclassFieldValidationError: a field has the wrong type (huggingface_hub's own).
        ValueError: a field has a value that no model can be built with, or fields contradict each
            other.
    """

    model_type = "mega"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012
    # What tools ask every model for.
    attribute_map = {"max_position_embeddings": "max_positions"}  # noqa: RUF012

    vocab_size: int = 30522
    hidden_size: int = 128
    num_hidden_layers: int = 4
    intermediate_size: int = 256
    ema_projection_size: int = 16
    bidirectional: bool = True
    shared_representation_size: int = 64
    use_chunking: bool = False
    chunk_size: int = -1
    truncation: int | None = None
    normalize_before_mega: bool = True
    normalization_type: str = "scalenorm"
    norm_affine: bool = True
    activation: str = "silu"
    attention_activation: str = "softmax"
    dropout_prob: float | int = 0.1
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    use_feature_dropout: bool = False
    use_normalized_ffn: bool = True
    nffn_hidden_size: int = 256
    normalize_before_ffn: bool = True
    nffn_activation_dropout_prob: float | int = 0.1
    max_positions: int = 2048
    add_token_type_embeddings: bool = False
    type_vocab_size: int = 2
    initializer_range: float | int = 0.02
    ema_delta_alpha_range: float | int = 0.2
    ema_beta_range: float | int = 0.02
    ema_gamma_omega_range: float | int = 1.0
    relative_positional_bias: str = "rotary"
    classifier_dropout: float | int | None = None
    use_cache: bool = True
    add_lm_hidden_dense_layer: bool = True
    num_attention_heads: int = 1
    attend_across_chunks: bool = False
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    is_decoder: bool = False
    add_cross_attention: bool = False
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        self._check_numbers()
        self._check_names()
        self._check_positions()
        self._check_decoder()

    @property
    def longest_attention(self) -> int | None:
        """Tokens that attention can see at once; None without a limit."""
        limits = [self.chunk_size] if self.in_chunks else []
        if self.relative_positional_bias == "simple":
            limits.append(self.max_positions)
        return min(limits, default=None)

    @property
    def in_chunks(self) -> bool:
        """Whether attention sees one chunk at a time."""
        return self.use_chunking and not self.attend_across_chunks

    def check_attention(self, attention: str, params: dict[str, Any]) -> None:
        """Refuses an attention that a model with these fields can't have.

        Args:
            attention: name in the registry.
            params: its parameters, right by themselves.

        Raises:
            ValueError: it can't take the place of the model's own.
        """
        if self.attention_activation != "softmax":
            raise ValueError(
                f"attention={attention!r} is a softmax, and can't take the place of "
                f"attention_activation={self.attention_activation!r}"
            )
        if (
            self.relative_positional_bias == "simple"
            and "bias" not in get_attention(attention).serves
        ):
            raise ValueError(
                f"attention={attention!r} does not serve a bias on its scores, which "
                "relative_positional_bias='simple' is; rotary positions need none"
            )

    def _check_numbers(self) -> None:
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in _PROBABILITIES:
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {value}")
        for name in _SPREADS:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not self.num_labels:
            raise ValueError(f"num_labels must be at least 1, got {self.num_labels}")
        if self.num_attention_heads != 1:
            raise ValueError(
                f"num_attention_heads must be 1, MEGA has one head, got {self.num_attention_heads}"
            )
        if self.truncation is not None and self.truncation < 1:
            raise ValueError(f"truncation must be None or at least 1, got {self.truncation}")
        if self.pad_token_id is not None and not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(
                f"pad_token_id must be None or a row of the word table (vocab_size="
                f"{self.vocab_size}), got {self.pad_token_id}"
            )
        if self.chunk_size_feed_forward:
            raise ValueError(
                "chunk_size_feed_forward must be 0, the feed-forward part is not cut here, got "
                f"{self.chunk_size_feed_forward}"
            )

    def _check_names(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, got {getattr(self, name)!r}")
        if self.problem_type is not None and self.problem_type not in _PROBLEM_TYPES:
            raise ValueError(
                f"problem_type must be None or one of {_PROBLEM_TYPES}, got {self.problem_type!r}"
            )
        # transformers may be in the middle of loading its activations when this module is loaded.
        from transformers.activations import ACT2FN

        if self.activation not in ACT2FN:
            raise ValueError(
                f"activation must name an activation of transformers "
                f"({', '.join(sorted(ACT2FN))}), got {self.activation!r}"
            )

    def _check_positions(self) -> None:
        simple = self.relative_positional_bias == "simple"
        if self.use_chunking and self.chunk_size < 1:
            raise ValueError(
                f"use_chunking needs a chunk_size of at least 1, got {self.chunk_size}"
            )
        if simple and self.use_chunking and self.chunk_size > self.max_positions:
            raise ValueError(
                f"chunk_size must be at most max_positions ({self.max_positions}), as "
                "relative_positional_bias='simple' has no more distances, got "
                f"{self.chunk_size}"
            )
        if not simple and self.shared_representation_size % 2:
            raise ValueError(
                "shared_representation_size must be even for relative_positional_bias='rotary', "
                f"got {self.shared_representation_size}"
            )
        if self.attend_across_chunks:
            self.check_across_chunks()

    def check_across_chunks(self) -> None:
        """Refuses ``attend_across_chunks`` where it has no meaning.

        Raises:
            ValueError: another field stands against it.
        """
        for name, wanted in (
            ("use_chunking", True),
            ("is_decoder", False),
            ("relative_positional_bias", "rotary"),
            ("attention_activation", "softmax"),
        ):
            if getattr(self, name) != wanted:
                raise ValueError(
                    f"attend_across_chunks needs {name}={wanted!r}, got {getattr(self, name)!r}"
                )

    def _check_decoder(self) -> None:
        if self.is_decoder and self.bidirectional:
            raise ValueError(
                "is_decoder=True needs bidirectional=False: a moving average in both directions "
                "sees the tokens that are to be predicted"
            )
        if self.add_cross_attention and not self.is_decoder:
            raise ValueError("add_cross_attention=True needs is_decoder=True")
