"""`mra train` at toy size in the processes of a world."""

import json
import os
import random
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers as tf
from accelerate import state
from accelerate.utils import DistributedType
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from mra_plugin.cli import app

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "mask_token": "<mask>"}
STEPS, CHECKPOINT = 6, 3
OPTIONS = [
    *("--steps", STEPS, "--checkpoint-every", CHECKPOINT, "--log-every", 1),
    *("--batch-size", 4, "--length", 64, "--learning-rate", 1e-3, "--warmup", 0),
    *("--attention", "mra", "--block-per-row", 1),
]


def make_inputs(folder: Path) -> None:
    """A model without dropout, its tokenizer, and documents of letters in a row."""
    ids = {word: number for number, word in enumerate([*SPECIAL.values(), *LETTERS])}
    words = Tokenizer(models.WordLevel(ids, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tf.PreTrainedTokenizerFast(tokenizer_object=words, **SPECIAL).save_pretrained(folder / "model")
    torch.manual_seed(0)
    config = tf.RobertaConfig(
        vocab_size=len(ids),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=66,
        pad_token_id=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    tf.RobertaForMaskedLM(config).save_pretrained(folder / "model")
    generator = random.Random(0)
    with (folder / "text.jsonl").open("w") as lines:
        for _ in range(60):
            start, count = generator.randrange(26), generator.randrange(10, 150)
            text = " ".join(LETTERS[(start + i) % 26] for i in range(count))
            lines.write(json.dumps({"text": text}) + "\n")


def arguments(folder: Path, out: str, *more: str) -> list[str]:
    paths = [folder / "model", folder / out, "--data", folder / "text.jsonl"]
    return ["train", *map(str, [*paths, *OPTIONS, *more])]


def train(folder: Path, out: str, port: int, fsdp: bool, *more: str) -> str:
    """Runs the command in this process of a world; returns how accelerate ran it."""
    rank, size = str(dist.get_rank()), str(dist.get_world_size())
    if size != "1":  # what torchrun sets; the command makes the process group itself
        os.environ.update(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=size, LOCAL_WORLD_SIZE=size)
        os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
        dist.destroy_process_group()
    os.environ.update(ACCELERATE_USE_CPU="1")
    os.environ.update(ACCELERATE_USE_FSDP=str(fsdp), FSDP_VERSION="2")
    # A process normally runs one command.
    for known in (state.AcceleratorState, state.PartialState, state.GradientState):
        known._reset_state()
    let_accelerate_shard_on_cpu()
    app(arguments(folder, out, *more), standalone_mode=False)
    return str(state.AcceleratorState().distributed_type)


def let_accelerate_shard_on_cpu() -> None:
    """accelerate leaves FSDP to accelerators, though PyTorch shards on CPUs as well."""
    state_class: Any = state.AcceleratorState
    make = state_class.__init__
    if hasattr(make, "__wrapped__"):
        return

    def make_sharded(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        make(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    make_sharded.__wrapped__ = make
    state_class.__init__ = make_sharded


def losses(out: Path) -> list[float]:
    """The loss of each step."""
    log = json.loads((out / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in log if "loss" in entry]
