"""Checkpoints of strangers: configs, templates, tokenizers and weights that are made to harm."""

import json
import os
import pickle
import re
import shutil
import struct
from pathlib import Path
from random import Random
from typing import Any

from tests.faults.damage import Ran, change
from tests.faults.lab import Lab, Outcome, kind
from tests.models import test_gguf_load as sound
from tests.training import chat_model as chat

from hanol import models

TEMPLATES = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ 'a' * 10 ** 9 }}",
    "{{ cycler.__init__ }}",
    "{% include '/etc/passwd' %}",
    "{{ raise_exception('\x1b]0;owned\x07') }}",
    "{{ messages[9] }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{{ 1 / 0 }}",
    "{% if %}",
    "{{ (" * 500,
    "",
    "{{ lipsum.__globals__.os.system('touch RAN') }}",
    "{{ range(10 ** 12) | list }}",
    "{{ 10 ** 10 ** 8 }}",
    "{{ 2 ** (2 ** 40) }}",
    "{{ 1 | round(-(10 ** 9)) }}",
    "{{ 'a'.ljust(10 ** 10) }}",
    "{{ '{:>9999999999}'.format(1) }}",
    "{% set n = namespace(x=9) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x~n.x %}{% endfor %}",
    "{{ messages | map('upper') | sum }}",
    "x" * 1_000_000,
    "{{ self._TemplateReference__context }}",
    "{% set x = namespace(a=1) %}{{ x.__class__ }}",
]
SIZES: list[Any] = [10**9, 10**18, -1, 0, 1.5, "64", [64], None, True, float("nan"), 2**63]


def _replaced(expression: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": expression}, "content": content}


def _split(expression: str) -> dict[str, Any]:
    pattern = {"Regex": expression}
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}


_TEXT = {"Sequence": {"id": "A", "type_id": 0}}
_MARK = {"SpecialToken": {"id": "x", "type_id": 0}}


def _framed(count: int, number: int) -> dict[str, Any]:
    marks = {"x": {"id": "x", "ids": [number], "tokens": ["x"]}}
    single = [_MARK] * count + [_TEXT]
    return {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": marks}


RULES: list[dict[str, Any]] = [  # parts of a tokenizer
    {"normalizer": {"type": "Sequence", "normalizers": [_replaced(".", "a" * 32)] * 7}},
    {"normalizer": _replaced("(a+)+$", "x")},
    {"normalizer": _replaced(".", "x" * 1_000_000)},
    {"pre_tokenizer": _split("(a+)+$")},
    {"pre_tokenizer": _split("(a|aa)+$")},
    {"pre_tokenizer": _split("[^q]{0,90}[^q]{0,90}[^q]{0,90}(?!.)")},
    {"pre_tokenizer": None},
    {"decoder": {"type": "Sequence", "decoders": [_replaced(".", "a" * 32)] * 7}},
    {"decoder": _replaced("(.*)*x", "")},
    {"decoder": {"type": "Strip", "content": "a", "start": 2**62, "stop": 2**62}},
    {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "[UNK]"}},
    {"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": 5, "byte_fallback": True}},
    {"model": {"type": "WordPiece", "vocab": {"a": 0}, "unk_token": "[UNK]",
               "continuing_subword_prefix": "#" * 100_000, "max_input_chars_per_word": 10**12}},
    {"post_processor": _framed(100_000, 0)},
    {"post_processor": _framed(1, 4_000_000_000)},
    {"padding": {"strategy": {"Fixed": 10**11}, "direction": "Right", "pad_to_multiple_of": None,
                 "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}},
    {"truncation": {"direction": "Right", "max_length": 1, "strategy": "LongestFirst",
                    "stride": 5}},
]  # fmt: skip


def make_hostile(folder: Path, rng: Random, lab: Lab) -> str:
    """Do harm to a sound checkpoint; says which."""
    code = f"import os; os.mknod({str(lab.ran)!r})\n"
    config_file, tokenizer_file = folder / "config.json", folder / "tokenizer.json"
    config = json.loads(config_file.read_text())
    how = rng.choice(
        [
            "size",
            "size",
            "size",
            "config",
            "config",
            "code",
            "pickle",
            "pipe",
            "link",
            "template",
            "template",
            "template",
            "tokenizer",
            "tokenizer",
            "rules",
            "rules",
            "index",
            "index",
            "type",
            "generation",
            "adapter",
            "header",
            "header",
            "heads",
            "deep",
        ]
    )
    match how:
        case "size":
            keys = [key for key, value in config.items() if isinstance(value, int)]
            for key in rng.sample(keys, rng.choice([1, 1, 3])):
                config[key] = rng.choice(SIZES)
        case "config":
            change(config, rng, values=[{"a": []}, "../../x", [[1]]])
        case "code":
            (folder / "evil.py").write_text(code + "class M:\n    pass\n")
            config["auto_map"] = dict.fromkeys(
                ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer"), "evil.M"
            )
            config["model_type"] = rng.choice(["evil", config["model_type"]])
            (folder / "custom_generate").mkdir()
            (folder / "custom_generate" / "generate.py").write_text(code)
            (folder / "modules.json").write_text(
                '[{"idx": 0, "name": "0", "path": "", "type": "evil.M"}]'
            )
        case "pickle":
            name = rng.choice(
                ["pytorch_model.bin", "model.safetensors", "a.pt", "training_args.bin"]
            )
            if rng.random() < 0.5:
                (folder / "model.safetensors").unlink()
            (folder / name).write_bytes(pickle.dumps(Ran(lab.ran)))
        case "pipe":
            name = rng.choice([file.name for file in folder.iterdir()])
            (folder / name).unlink()
            os.mkfifo(folder / name)
            return f"{how} {name}"
        case "link":
            name = rng.choice([file.name for file in folder.iterdir()])
            (folder / name).unlink()
            (folder / name).symlink_to(rng.choice(["/dev/zero", str(lab.secret), name, "/etc"]))
            return f"{how} {name}"
        case "template":
            template = rng.choice(TEMPLATES).replace("RAN", str(lab.ran))
            (folder / "chat_template.jinja").write_text(template)
            return f"{how} {template[:40]!r}"
        case "tokenizer":
            content = json.loads(tokenizer_file.read_text())
            change(content, rng, values=[2**40, {"type": "Nothing"}], depth=3)
            tokenizer_file.write_text(json.dumps(content))
        case "rules":
            content = json.loads(tokenizer_file.read_text())
            for token in content["added_tokens"]:
                token["normalized"] = rng.random() < 0.5
            rules = rng.choice(RULES)
            tokenizer_file.write_text(json.dumps(content | rules))
            return f"{how} {str(rules)[:60]}"
        case "index":
            target = rng.choice(
                [
                    "../../canary/secret.txt",
                    "/etc/passwd",
                    "missing.safetensors",
                    5,
                    None,
                    "model.safetensors",
                    "evil.bin",
                    "x" * 300,
                ]
            )
            (folder / "model.safetensors.index.json").write_text(
                json.dumps({"weight_map": {"lm_head.weight": target}})
            )
            if rng.random() < 0.7:
                (folder / "model.safetensors").rename(folder / "evil.bin")
        case "type":
            config["model_type"] = rng.choice(
                ["", "\x1b]0;owned\x07", "autodeco", "bert", "clip", "mamba", "x" * 9000, 5, None]
            )
        case "generation":
            (folder / "generation_config.json").write_text(
                json.dumps(
                    {
                        rng.choice(
                            [
                                "eos_token_id",
                                "temperature",
                                "top_p",
                                "max_length",
                                "custom_generate",
                                "bos_token_id",
                            ]
                        ): rng.choice([*SIZES, "x", [None]])
                    }
                )
            )
        case "adapter":
            (folder / "adapter_config.json").write_text(
                json.dumps(
                    {
                        "peft_type": rng.choice(["LORA", "EVIL", 5]),
                        "r": rng.choice(SIZES),
                        "base_model_name_or_path": rng.choice(
                            [str(folder), "../..", "/etc", "a/b", 5]
                        ),
                        "target_modules": rng.choice(["all-linear", "(a+)+$", 5, ["q_proj"]]),
                    }
                )
            )
            if rng.random() < 0.5:
                shutil.copy(folder / "model.safetensors", folder / "adapter_model.safetensors")
        case "header":
            data = (folder / "model.safetensors").read_bytes()
            size = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + size])
            name = rng.choice(sorted(header.keys() - {"__metadata__"}))
            header[name][rng.choice(["dtype", "shape", "data_offsets"])] = rng.choice(
                ["F8", [10**12, 10**12], [0, 10**15], [-1], [5, 1], None, "x", [[1]], []]
            )
            packed = json.dumps(header).encode()
            length = rng.choice([len(packed), len(packed), 2**60, 0])
            (folder / "model.safetensors").write_bytes(
                length.to_bytes(8, "little") + packed + data[8 + size :]
            )
        case "heads":
            config = {
                "model_type": "autodeco",
                "base_model_name_or_path": rng.choice(
                    ["/etc", "../..", 5, None, "a/b", str(folder)]
                ),
                "hidden_size": rng.choice(SIZES),
            }
        case "deep":
            config_file.write_text("[" * 100_000)
            return how
    if how in ("size", "config", "code", "type", "heads"):
        config_file.write_text(json.dumps(config))
    return how


@kind("hostile checkpoint", short=3, long=200)
def hostile_checkpoint(lab: Lab, rng: Random) -> Outcome:
    number = rng.randrange(6)

    def use(model: Path) -> Outcome:
        new = model.with_name("new")
        command: list[object] = [
            ["inspect", model], ["inspect", model, "--json"],
            ["generate", model, "-p", "a", "--max-tokens", "2"],
            ["chat", model, "-p", "hello", "--max-tokens", "2"],
            ["convert", model, new], ["merge", model, model, "--output", new],
        ][number]  # fmt: skip
        outcome = lab.judged(lab.run(*command))
        return outcome._replace(detail=f"{command[0]}: {outcome.detail}")

    lab.sound(f"use {number} of a model", lambda: use(chat.make_checkpoint(lab.folder() / "model")))
    model = chat.make_checkpoint(lab.folder() / "model")
    how = make_hostile(model, rng, lab)
    outcome = use(model)
    return outcome._replace(detail=f"{how}, {outcome.detail}")


ODD = [0, 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1]
KEY = re.compile(rb"(?:general|llama|tokenizer)\.[a-z_.]+|blk\.0\.[a-z_]+\.weight")


def spoil(data: bytes, rng: Random) -> tuple[str, bytes]:
    """Change the header of a GGUF file: counts, lengths, types, values, shapes, places."""
    found = rng.choice([*KEY.finditer(data, 0, 200_000)])
    name, end = found[0].decode(), found.end()
    how, form, place = rng.choice(
        [("count", "<Q", rng.choice([8, 16])), ("length", "<Q", found.start() - 8),
         ("type", "<I", end), ("value", "<Q", end + 4), ("value", "<I", end + 4),
         ("length of an array", "<Q", end + 8), ("version", "<I", 4),
         *[("shape or place", "<Q", end + 4 + 8 * n + 4 * (n > 2)) for n in range(3)]]
    )  # fmt: skip
    number = rng.choice([*ODD, *range(14), 250, 32, rng.getrandbits(20)])
    changed = bytearray(data)
    struct.pack_into(form, changed, place, number % (1 << 8 * struct.calcsize(form)))
    if rng.random() < 0.1:
        changed = changed[: rng.randrange(len(changed))]
    return f"{name}, {how}: {number}", bytes(changed)


@kind("hostile GGUF", short=2, long=300)
def hostile_gguf(lab: Lab, rng: Random) -> Outcome:
    number = rng.randrange(3)

    def make() -> bytes:
        model = models.build(sound.CONFIGS["llama"][0], seed=5)
        path = lab.root / "sound.gguf"
        return models.to_gguf(model, sound.make_tokenizer("smollm"), path, "f16").read_bytes()

    def use(data: bytes) -> Outcome:
        file = lab.folder() / "model.gguf"
        file.write_bytes(data)
        command: list[object] = [
            ["inspect", file], ["generate", file, "-p", "a", "--max-tokens", "2"],
            ["convert", file, file.with_name("new")],
        ][number]  # fmt: skip
        outcome = lab.judged(lab.run(*command))
        return outcome._replace(detail=f"{command[0]}: {outcome.detail}")

    data = lab.once("a GGUF file", make)
    lab.sound(f"use {number} of a GGUF file", lambda: use(data))
    how, changed = spoil(data, rng)
    outcome = use(changed)
    return outcome._replace(detail=f"{how}, {outcome.detail}")
