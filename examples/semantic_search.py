"""Semantic search over long documents: each is read as a whole, in one piece, with MRA attention.

Needs the extra "examples". From the repository's root:

    python examples/semantic_search.py "How do I step through my program line by line?"

searches Python's language reference. --texts FOLDER takes the .txt files of a folder, --model PATH
another model of sentence-transformers.
"""

import argparse
from pathlib import Path
from pydoc_data.topics import topics

from sentence_transformers import SentenceTransformer

import mra_plugin
from mra_plugin.convert import stretch
from mra_plugin.encoders.demo import demo_model


def long_encoder(path: str, length: int) -> SentenceTransformer:
    """A model of sentence-transformers that reads up to ``length`` tokens, with MRA attention."""
    model = SentenceTransformer(path, device="cpu")
    stretch(model.transformers_model, model.tokenizer, length)
    mra_plugin.patch(model, preset="close")
    return model


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("question")
    parser.add_argument("--texts", type=Path, help="folder of .txt files")
    parser.add_argument("--model", help="folder or id of a sentence-transformers model")
    parser.add_argument("--length", type=int, default=4096, help="most tokens of a document")
    given = parser.parse_args(arguments)

    documents = topics
    if given.texts:
        documents = {path.name: path.read_text("utf-8") for path in given.texts.glob("*.txt")}
    names = list(documents)
    model = long_encoder(given.model or demo_model(), given.length)
    # Few at a time: documents of a batch are padded to the longest.
    embeddings = model.encode_document(list(documents.values()), batch_size=4)
    scores = model.similarity(model.encode_query(given.question), embeddings)[0]

    for place in scores.argsort(descending=True)[:5].tolist():
        tokens = len(model.tokenizer(documents[names[place]], truncation=True)["input_ids"])
        print(f"{scores[place]:.3f}  {names[place]} ({tokens} tokens read)")


if __name__ == "__main__":
    main()
