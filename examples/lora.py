"""LoRA fine-tuning with PEFT of an encoder that was stretched to long documents.

Needs the extra "examples". From the repository's root:

    python examples/lora.py OUT

writes OUT/base, the stretched encoder with MRA attention in its config, and OUT/adapter, the few
weights that were trained; then loads both again. Like any code that loads such a folder, it has to
import mra_plugin. The task is made up: do pages of documentation end by saying that something is
deprecated, beyond what the encoder could read before?
"""

import argparse
from pathlib import Path
from pydoc_data.topics import topics

import torch
from peft import AutoPeftModelForSequenceClassification, LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import mra_plugin
from mra_plugin.convert import stretch
from mra_plugin.encoders.demo import demo_model


def write_base(path: str, folder: Path, length: int) -> None:
    """Writes an encoder that reads up to ``length`` tokens, and its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=2)
    stretch(model, tokenizer, length)
    mra_plugin.patch(model, preset="close")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def documents(words: int) -> tuple[list[str], list[int]]:
    """Texts of so many words, and whether the last of them say that something is deprecated."""
    pages = " ".join(topics.values()).split()
    starts = range(0, 8 * words, words)
    texts = [" ".join(pages[start : start + words]) for start in starts]
    labels = [place % 2 for place in range(len(texts))]
    ends = (" This is fine . " * 20, " Deprecated , do not use it . " * 20)
    return [text + ends[label] for text, label in zip(texts, labels, strict=True)], labels


def train(
    folder: Path, adapter: Path, texts: list[str], labels: list[int], steps: int
) -> torch.nn.Module:
    """Trains an adapter for the encoder in ``folder``, and writes it."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = AutoModelForSequenceClassification.from_pretrained(folder)
    config = LoraConfig(task_type="SEQ_CLS", r=8, target_modules=["query", "value"])
    model = get_peft_model(base, config)
    model.print_trainable_parameters()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(steps):
        chosen = slice(2 * step % len(texts), 2 * step % len(texts) + 2)
        batch = tokenizer(texts[chosen], padding=True, truncation=True, return_tensors="pt")
        loss = model(**batch, labels=torch.tensor(labels[chosen])).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step + 1}: loss {loss:.3f}")
    model.save_pretrained(adapter)
    return model.eval()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="new folder")
    parser.add_argument("--model", help="folder or id of an encoder like BERT")
    parser.add_argument("--length", type=int, default=1536, help="tokens of the longest document")
    parser.add_argument("--steps", type=int, default=16)
    given = parser.parse_args(arguments)

    base, adapter = given.out / "base", given.out / "adapter"
    write_base(given.model or demo_model(), base, given.length)
    texts, labels = documents(words=given.length // 2)
    train(base, adapter, texts, labels, given.steps)

    # The adapter knows where its base is, and the base's config that its attention is MRA.
    model = AutoPeftModelForSequenceClassification.from_pretrained(adapter).eval()
    print(f"loaded with attention={model.config._attn_implementation!r}")
    tokenizer = AutoTokenizer.from_pretrained(base)
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        found = model(**batch).logits.argmax(-1).tolist()
    print(f"{sum(map(int.__eq__, found, labels))} of {len(labels)} documents right")


if __name__ == "__main__":
    main()
