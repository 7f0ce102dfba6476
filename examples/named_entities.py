"""Named entities in a long text, read in one piece instead of in windows of 512 tokens.

Needs the extra "examples". From the repository's root:

    python examples/named_entities.py
    python examples/named_entities.py --model PATH --text FILE

PATH is a checkpoint for token classification; the part to copy is `read`. Without one, a linear
layer is trained for a few seconds on made-up sentences between pages of documentation. That shows
that names are found wherever they stand, and is no good at anything else.
"""

import argparse
import random
from pathlib import Path
from pydoc_data.topics import topics

import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

import mra_plugin
from mra_plugin.convert import stretch
from mra_plugin.encoders.demo import demo_model
from mra_plugin.encoders.stretching import stretchable_length

SENTENCES = ["{} went to {} .", "{} lives in {} .", "In {1} we met {0} .", "{} wrote from {} ."]
PEOPLE = ["Ada", "Alan", "Grace", "Edsger", "Frances", "Donald", "Barbara", "Margaret"]
PLACES = ["London", "Paris", "Boston", "Vienna", "Rome", "Oslo", "Dublin", "Zurich"]
LABELS = {**dict.fromkeys(PEOPLE, 1), **dict.fromkeys(PLACES, 2)}


def read(model, tokenizer, text: str) -> list[dict]:
    """The entities of a text, with their places in it: one pass, whatever its length."""
    tokens = len(tokenizer(text, verbose=False)["input_ids"])
    if tokens > stretchable_length(model):
        stretch(model, tokenizer, tokens)
    mra_plugin.patch(model, preset="close")
    tagger = pipeline(
        "token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="first"
    )
    return tagger(text)


def made_up_text(topic: str, people: list[str], places: list[str]) -> str:
    """Pages of Python's documentation, with a sentence about somebody after every 70 words."""
    numbers = random.Random(topic)
    words = topics[topic].split()
    pieces = []
    for start in range(0, len(words), 70):
        sentence = numbers.choice(SENTENCES)
        pieces += words[start : start + 70]
        pieces += sentence.format(numbers.choice(people), numbers.choice(places)).split()
    return " ".join(pieces)


def trained_on_made_up_text(path: str, tokenizer):
    """An encoder, as it is, with a linear layer that tells people and places from all else."""
    torch.manual_seed(0)
    model = AutoModelForTokenClassification.from_pretrained(
        path, id2label={0: "O", 1: "PER", 2: "LOC"}, num_labels=3, attn_implementation="mra"
    ).eval()
    stretch(model, tokenizer, 4096)
    hidden, targets = [], []
    for topic in ("operator-summary", "attribute-access", "customization"):
        words = made_up_text(topic, PEOPLE[:6], PLACES[:6]).split()
        batch = tokenizer(words, is_split_into_words=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            hidden.append(model.base_model(**batch).last_hidden_state[0])
        read_words = [None if at is None else words[at] for at in batch.word_ids()]
        targets += [LABELS.get(word, 0) for word in read_words]
    optimizer = torch.optim.Adam(model.classifier.parameters(), lr=0.02)
    for _ in range(100):
        scores = model.classifier(torch.cat(hidden))
        loss = torch.nn.functional.cross_entropy(scores, torch.tensor(targets))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="folder or id of a checkpoint for token classification")
    parser.add_argument("--text", type=Path, help="file to read")
    given = parser.parse_args(arguments)

    path = given.model or demo_model()
    tokenizer = AutoTokenizer.from_pretrained(path)
    if given.model:
        model = AutoModelForTokenClassification.from_pretrained(path).eval()
    else:
        model = trained_on_made_up_text(path, tokenizer)
    if given.text:
        text = given.text.read_text("utf-8")
    else:
        text = made_up_text("strings", PEOPLE[6:], PLACES[6:])  # names that it was not shown
    for found in read(model, tokenizer, text):
        if found["score"] > 0.9:
            name = text[found["start"] : found["end"]]
            print(f"{found['start']:>7}  {found['entity_group']}  {name}")


if __name__ == "__main__":
    main()
