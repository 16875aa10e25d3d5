"""Tokenizers of strangers: what could go on for ever is refused or ended in a line."""

import copy
import json
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
from tests.training import chat_model as chat

from hanol import models
from hanol.errors import CheckpointError
from hanol.models import _tokenizers  # private: its limits are lowered

PATTERNS = {  # of the tokenizers that most checkpoints have
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama-3": (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "o200k": (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "kimi-k2": (
        r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
    ),
    "deepseek": (
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "bloom": r" ?[^(\s|[.,!?…。，、।۔،])]+",
    "smiles": r"(\[[^\]]+]|Br?|Cl?|N|O|S|\(|\)|\.|=|\\|\/|:|>>?|\*|\$|\%[0-9]{2}|[0-9])",
    "sentencepiece": " {2,}",
}


def model(folder: Path, **parts: Any) -> Path:
    """A small checkpoint, parts of whose tokenizer are others."""
    chat.make_checkpoint(folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    for token in content["added_tokens"]:
        token["normalized"] = True  # loading sends it through the rules, too
    file.write_text(json.dumps(content | parts))
    return folder


def split(expression: str) -> dict[str, Any]:
    pattern = {"Regex": expression}
    own = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    in_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {"type": "Sequence", "pretokenizers": [own, in_bytes | {"use_regex": False}]}


def replace(what: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": what, "content": content}


def sequence(*steps: dict[str, Any], of: str = "normalizers") -> dict[str, Any]:
    return {"type": "Sequence", of: list(steps)}


LETTER, A = {"Regex": "."}, {"String": "a"}
GROWING = {
    "any letter": sequence(*[replace(LETTER, "a" * 32)] * 7),
    "one letter": sequence(*[replace(A, "a" * 32)] * 7),
    "in a circle": sequence(*[replace(A, "b" * 32), replace({"String": "b"}, "a" * 32)] * 3),
    "another form": sequence(replace(A, "A" * 99), {"type": "Lowercase"}, replace(A, "b" * 99)),
    "sequences": sequence(sequence(*[replace(A, "aa")] * 9), sequence(*[replace(A, "aa")] * 9)),
    "at once": replace(A, "b" * 100_000),
    "nothing": sequence(*[replace({"String": ""}, "ab")] * 20),
}


@pytest.mark.parametrize("name", GROWING)
def test_rules_by_which_a_letter_grows_without_end_are_refused(name: str, tmp_path: Path) -> None:
    folder = model(tmp_path / "model", normalizer=GROWING[name])
    with pytest.raises(CheckpointError, match="normalizer .* may write one letter as more than"):
        models.load_tokenizer(folder)
    steps = GROWING[name].get("normalizers", [GROWING[name]])
    folder = model(tmp_path / "decoder", decoder=sequence(*steps, of="decoders"))
    if name not in ("another form", "sequences"):  # which are no rules of decoders
        with pytest.raises(CheckpointError, match="decoder .* may write one letter as more than"):
            models.load_tokenizer(folder)


def test_rules_of_real_tokenizers_are_used(tmp_path: Path) -> None:
    signs = [replace({"String": sign}, word) for sign, word in (
        ("\u2026", "..."), ("\u00bd", "1/2"), ("\u2122", "(TM)"), ("\u201c", '"'), ("\u00a0", " "),
    )] * 3  # fmt: skip
    rules = sequence(
        {"type": "Prepend", "prepend": "\u2581"}, {"type": "NFKC"}, {"type": "Lowercase"},
        *signs, replace({"Regex": " {2,}"}, " "), replace({"String": " "}, "\u2581"),
    )  # fmt: skip
    tokenizer = models.load_tokenizer(model(tmp_path / "model", normalizer=rules))
    assert tokenizer("a").input_ids


@pytest.mark.parametrize("name", PATTERNS)
def test_expressions_of_real_tokenizers_are_used(name: str, tmp_path: Path) -> None:
    tokenizer = models.load_tokenizer(model(tmp_path / "m", pre_tokenizer=split(PATTERNS[name])))
    text = "We'll see: 한글, 漢字 and 1234 apples...\n\n  Br(Cl)"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids) == text
    again = copy.deepcopy(tokenizer)  # each engine has a copy for its thread
    assert again(text).input_ids == tokenizer(text).input_ids
    assert again._encode_plus.args[0].__self__ is again
    assert pickle.loads(pickle.dumps(tokenizer))(text).input_ids == tokenizer(text).input_ids


@pytest.mark.parametrize(
    "expression",
    [
        "(a+)+$", "(a|aa)+$", "(?:a*)*c", "(.*)*\\1x", "(?:(?:a{0,1000}){0,1000}){0,1000}z",
        "((a|b)|c)*d", "(a+){20}", r"(?:\p{L}+\s?)+$", "a*a*a*a*a*b", "([a-z]+[)+]?)*x",
    ],
)  # fmt: skip
@pytest.mark.parametrize("part", ["pre_tokenizer", "normalizer"])
def test_expressions_that_may_never_end_are_refused(
    part: str, expression: str, tmp_path: Path
) -> None:
    rules = {
        "pre_tokenizer": split(expression),
        "normalizer": replace({"Regex": expression}, "x"),
    }
    began = time.monotonic()
    with pytest.raises(CheckpointError, match="which may take for ever") as told:
        models.load_tokenizer(model(tmp_path / "model", **{part: rules[part]}))
    assert "\n" not in str(told.value)
    assert time.monotonic() - began < 5


def test_a_text_that_takes_too_long_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = "[^q]{0,40}" * 3 + "(?!.)"
    tokenizer = models.load_tokenizer(model(tmp_path / "model", pre_tokenizer=split(slow)))
    assert tokenizer("abq").input_ids
    monkeypatch.setattr(_tokenizers, "_SECONDS", 0.05)
    with pytest.raises(CheckpointError, match=r"takes more than 0 s for a text of 1,001"):
        tokenizer("a" * 1000 + "q")


def test_a_panic_is_an_error_with_its_cause(tmp_path: Path) -> None:
    tokenizer = models.load_tokenizer(
        model(tmp_path / "model", pre_tokenizer=split("[^q]*[^q]*[^q]*[^q]*(?!.)"))
    )
    with pytest.raises(CheckpointError, match="fails at a text: .*retry-limit"):
        tokenizer("a" * 1000 + "q")


def test_a_word_without_a_token_is_an_error_with_its_cause(tmp_path: Path) -> None:
    words = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "[UNK]"}
    folder = model(tmp_path / "model", model=words)
    tokenizer = models.load_tokenizer(folder)
    with pytest.raises(CheckpointError, match="fails at a text: "):
        tokenizer("b")
