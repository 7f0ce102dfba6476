"""Embeddings of a large collection of long documents, by several processes on one machine.

Needs the extra "examples". From the repository's root:

    python examples/embed_collection.py OUT.npy

embeds the pages of Python's language reference. --texts FOLDER takes the .txt files of a folder,
in the order of their names, and --model PATH another model of sentence-transformers.

The cores are divided among the processes: with too many threads they wait for each other. The
model is sent to them with its stretched positions, and brings mra_plugin with it.
"""

import argparse
import os
from pathlib import Path
from pydoc_data.topics import topics

import numpy
from sentence_transformers import SentenceTransformer

import mra_plugin
from mra_plugin.convert import stretch
from mra_plugin.encoders.demo import demo_model


def main(arguments: list[str] | None = None) -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the .npy file to write, a row per document")
    parser.add_argument("--texts", type=Path, help="folder of .txt files")
    parser.add_argument("--model", help="folder or id of a sentence-transformers model")
    parser.add_argument("--length", type=int, default=2048, help="most tokens of a document")
    parser.add_argument("--processes", type=int, default=cores)
    given = parser.parse_args(arguments)

    texts = list(topics.values())
    if given.texts:
        texts = [path.read_text("utf-8") for path in sorted(given.texts.glob("*.txt"))]
    model = SentenceTransformer(given.model or demo_model(), device="cpu")
    stretch(model.transformers_model, model.tokenizer, given.length)
    mra_plugin.patch(model, preset="close")

    # PyTorch reads it when a process starts, which these do afresh.
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores // given.processes))
    # Small chunks: the last ones keep all processes busy.
    devices = ["cpu"] * given.processes
    embeddings = model.encode(texts, device=devices, batch_size=4, chunk_size=16)
    numpy.save(given.out, embeddings)
    print(f"{len(texts)} documents, {embeddings.shape[1]} numbers each, in {given.out}")


if __name__ == "__main__":
    main()
