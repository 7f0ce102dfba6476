"""What a Nyströmformer is made of."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from mra_plugin.models.config_checks import check_encoder_config

_COUNTS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "num_landmarks",
)
_PROBABILITIES = ("hidden_dropout_prob", "attention_probs_dropout_prob")


@strict
class NystromformerConfig(PreTrainedConfig):
    """Configuration of the Nyströmformer models; all fields are keywords.

    The defaults are those of transformers' class of the same name. With them attention is exact,
    and quadratic in length: there are as many landmarks as ``segment_means_seq_len`` says tokens.
    Layers read the fields of attention when they run.

    Attributes:
        vocab_size: rows of the word table.
        hidden_size: channels of a token; a multiple of ``num_attention_heads``.
        num_hidden_layers: layers of the encoder.
        num_attention_heads: heads per layer.
        intermediate_size: channels inside the feed-forward part of a layer.
        hidden_act: name of an activation of transformers.
        hidden_dropout_prob: dropout of hidden states in training.
        attention_probs_dropout_prob: kept for the checkpoints' sake. Nyström attention has no
            dropout, here as in the original.
        max_position_embeddings: longest sequence in tokens.
        type_vocab_size: rows of the token type table.
        segment_means_seq_len: tokens that the original cuts into landmarks, the one length that it
            reads. Here any length is read, and the number says one thing alone: equal to
            ``num_landmarks``, attention is exact.
        num_landmarks: segments that each sequence's real tokens are cut into, as equal as can be;
            more is closer and slower. A sequence with no more real tokens gets exact attention.
        conv_kernel_size: tokens that a filter of each head spans, odd, in the convolution of
            values that is added to attention. None leaves it out; transformers 5 refuses None.
        inv_coeff_init_option: whether the iteration for the inverse starts from each head's own
            norm, which converges faster, and not from the greatest among a sequence's heads.
        add_cross_attention: kept for the checkpoints' sake; these models have none.
        initializer_range: standard deviation of new weights.
        layer_norm_eps: added to variances.
        pad_token_id: its row of the word table is not trained.
        bos_token_id: first token of a sequence.
        eos_token_id: last token of a sequence.
        tie_word_embeddings: whether the masked language model predicts with the word table.

    Raises:
        StrictDataclassFieldValidationError: a field has the wrong type (huggingface_hub's own).
        ValueError: a field has a value that no model can be built with.
    """

    model_type = "nystromformer"

    vocab_size: int = 30000
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu_new"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    max_position_embeddings: int = 510
    type_vocab_size: int = 2
    segment_means_seq_len: int = 64
    num_landmarks: int = 64
    conv_kernel_size: int | None = 65
    inv_coeff_init_option: bool = False
    initializer_range: float | int = 0.02
    layer_norm_eps: float | int = 1e-5
    pad_token_id: int | None = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    add_cross_attention: bool = False
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        check_encoder_config(self, _COUNTS, _PROBABILITIES)
        if self.segment_means_seq_len < self.num_landmarks:
            raise ValueError(
                f"segment_means_seq_len must be at least num_landmarks ({self.num_landmarks}), "
                f"got {self.segment_means_seq_len}"
            )
        if self.conv_kernel_size is not None and (
            self.conv_kernel_size < 1 or self.conv_kernel_size % 2 == 0
        ):
            raise ValueError(
                f"conv_kernel_size must be None or odd and at least 1, got {self.conv_kernel_size}"
            )
        if self.add_cross_attention:
            raise ValueError("add_cross_attention must be False, as there is no cross attention")
