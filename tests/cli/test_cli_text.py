from pathlib import Path

from helpers.letter_models import WORDS
from transformers import AutoTokenizer

from mra_plugin.encoders.text import Tokens, read_text, tokenize


def test_tokens_keep_the_frame_of_special_tokens(tiny_bert: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    tokens = tokenize(tokenizer, "a b c", 5)
    a, b, c = (WORDS.index(letter) for letter in "abc")
    assert tokens == Tokens([2], [a, b, c], [3])
    assert tokens.cut(5) == tokenizer("a b c")["input_ids"]
    assert tokens.cut(4) == tokenizer("a b")["input_ids"]
    assert tokens.cut(7) == tokenizer("a b c a b")["input_ids"]
    assert len(tokens) == 5


def test_default_text_is_the_language_reference() -> None:
    text = read_text(None)
    assert "assert_stmt" in text
    assert len(text) > 100_000


def test_file_is_read_as_utf8(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("naïve ü\n".encode())
    assert read_text(path) == "naïve ü\n"
