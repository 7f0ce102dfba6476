"""transformers' pipelines, with a small tokenizer made on the spot."""

from pathlib import Path

import pytest
import torch
from helpers.tiny_mra import make
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, pipeline

import mra_plugin

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
WORDS = [*SPECIAL, "the", "cat", "sat", "on", "a", "mat", "and", "slept"]
SENTENCES = ["the cat sat on the <mask>", "the cat <mask> and slept on a mat and slept"]


def save(head: str, folder: Path) -> str:
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=128,
    ).save_pretrained(folder)
    make(head, vocab_size=len(WORDS)).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("task", "head"),
    [
        ("fill-mask", "MraForMaskedLM"),
        ("text-classification", "MraForSequenceClassification"),
        ("zero-shot-classification", "MraForSequenceClassification"),
        ("token-classification", "MraForTokenClassification"),
        ("feature-extraction", "MraModel"),
    ],
)
def test_pipeline(task: str, head: str, tmp_path: Path) -> None:
    pipe = pipeline(task, model=save(head, tmp_path))
    assert type(pipe.model) is getattr(mra_plugin, head)
    more = {"candidate_labels": ["cat", "mat"]} if task.startswith("zero") else {}
    alone = [pipe(sentence, **more) for sentence in SENTENCES]
    together = pipe(SENTENCES, batch_size=2, **more)
    assert len(together) == 2
    for one, other in zip(alone, together, strict=True):
        if task == "feature-extraction":
            states = torch.tensor(one)
            batched = torch.tensor(other)[:, : states.shape[1]]
            torch.testing.assert_close(states, batched, atol=1e-4, rtol=1e-4)
        elif task == "zero-shot-classification":
            assert one["labels"] == other["labels"]
        else:
            one, other = ([x] if isinstance(x, dict) else x for x in (one, other))
            assert [x["score"] for x in one] == pytest.approx([x["score"] for x in other], abs=1e-4)
            if task == "fill-mask":
                assert all(x["token_str"] in WORDS for x in one)
