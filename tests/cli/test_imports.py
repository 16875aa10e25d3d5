"""Each command imports what it uses: seconds before its first word are imports, nearly all."""

import subprocess
import sys

import pytest

from hanol import models

# What importing torch and transformers' model classes drags in, and one process never calls.
MACHINERY = {
    "accelerate", "datasets", "pandas", "peft", "scipy.optimize", "sentence_transformers",
    "sklearn", "sympy", "torch._dynamo", "torch.distributed.checkpoint", "torch.distributed.fsdp",
    "torch.distributed.tensor", "transformers.data", "transformers.integrations.deepgemm",
    "transformers.trainer",
}  # fmt: skip
HEADS = {"hanol.autodeco", "hanol.training"}
NO_MODEL = {"torch", "transformers", "numba", "scipy", *MACHINERY}
LOOK = """
import atexit, sys
sys.argv = ["hanol", *sys.argv[1:]]
atexit.register(lambda: print(" ".join(["modules:", *sys.modules]), file=sys.stderr))
from hanol.cli import main
main()
"""


def imported(*command: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *command], capture_output=True, text=True, input=""
    )
    assert done.returncode == 0, done.stderr
    *_, line = (line for line in done.stderr.splitlines() if line.startswith("modules: "))
    found = set(line.split()[1:])
    assert {"typer", "hanol.cli._app"} < found
    return found


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("notes")
    (folder / "keys.md").write_text("# Keys\n\nKeys are rotated by an angle.\n")
    imported("index", str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("llama") / "model"
    models.save(models.build("llama-3m"), folder, models.load_tokenizer("tiny"))
    return str(folder)


@pytest.mark.parametrize("command", [["--help"], ["models"], ["models", "--json"]])
def test_help_and_models(command: list[str]) -> None:
    assert imported(*command) & {*NO_MODEL, "numpy", "hanol.models._load"} == set()


def test_search(documents: str) -> None:
    readers = {"hanol.retrieval.documents._documents", "hanol.retrieval.documents._mail"}
    found = imported("search", documents, "keys")
    assert found & {*NO_MODEL, *readers, "numpy", "openai", "httpx"} == set()


def test_ask_without_a_model(documents: str) -> None:
    assert imported("ask", documents, "How are keys rotated?") & {*NO_MODEL, "openai"} == set()


def test_generate_with_a_llama(llama: str) -> None:
    found = imported("generate", llama, "-p", "x", "--max-tokens", "1")
    assert found & {*MACHINERY, *HEADS} == set()
    assert "transformers.models.llama.modeling_llama" in found


def test_chat_with_kimi_linear() -> None:
    found = imported("chat", "chatml:tiny", "-p", "x", "--max-tokens", "1")
    assert found & {*MACHINERY, *HEADS} == set()


def test_ask_with_heads(documents: str) -> None:
    heads = "chatml:tiny-autodeco"
    found = imported("ask", documents, "Keys?", "--model", heads, "--write")
    assert found & MACHINERY == set()
    assert "hanol.autodeco" in found
