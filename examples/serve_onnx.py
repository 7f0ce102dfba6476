"""An encoder with MRA attention as an ONNX file, run by onnxruntime at several lengths.

Needs the extra "examples". From the repository's root:

    python examples/serve_onnx.py model.onnx

The file gives what the model gives, for any batch and length. Inside of it attention is dense,
with the weights that MRA stands for: it is no faster than exact attention, and memory is quadratic
in the length.
"""

import argparse
import time
from pathlib import Path
from pydoc_data.topics import topics

import onnxruntime
import torch
from transformers import AutoModel, AutoTokenizer

import mra_plugin
from mra_plugin.convert import stretch
from mra_plugin.encoders.demo import demo_model

INPUTS = ["input_ids", "attention_mask"]


def export(model: torch.nn.Module, file: Path) -> None:
    """Writes a model, with a batch and a length that are open."""
    # Not one tensor for both: it would become one input of the file.
    example = {name: torch.ones(2, 64, dtype=torch.long) for name in INPUTS}
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    program = torch.onnx.export(
        model,
        kwargs=example,
        dynamic_shapes=dict.fromkeys(INPUTS, axes),
        output_names=["last_hidden_state"],
        dynamo=True,
        verbose=False,
    )
    program.save(file)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="the ONNX file to write")
    parser.add_argument("--model", help="folder or id of an encoder")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 2048])
    given = parser.parse_args(arguments)

    path = given.model or demo_model()
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModel.from_pretrained(path, return_dict=False).eval()
    stretch(model, tokenizer, max(given.lengths))
    mra_plugin.patch(model, preset="close")
    export(model, given.file)

    # From here on nothing is needed but the file, the tokenizer and onnxruntime.
    session = onnxruntime.InferenceSession(given.file)
    text = " ".join(topics.values())
    for length in given.lengths:
        batch = tokenizer(text, truncation=True, max_length=length, return_tensors="np")
        start = time.perf_counter()
        (hidden,) = session.run(["last_hidden_state"], {name: batch[name] for name in INPUTS})
        seconds = time.perf_counter() - start

        with torch.no_grad():
            expected = model(**{name: torch.tensor(batch[name]) for name in INPUTS})[0]
        away = (torch.tensor(hidden) - expected).abs().max().item()
        print(f"{length:>6} tokens: {seconds:.2f} s, at most {away:.0e} from PyTorch's output")


if __name__ == "__main__":
    main()
