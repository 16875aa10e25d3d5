"""Seconds from a command to its first word: a token, a hit, a line of help.

    python benchmarks/start.py [--quick] [--json] [--record] [--threads 2]

Each round starts every command once, as a process of its own, and stops it at its first byte on
standard output. Nothing is downloaded; the first round, which fills the system's cache, is not
counted. A start cannot be quicker than `import torch` where a model runs in PyTorch; llama.cpp with
the same weights takes part where llama-cpp-python is installed.
"""

import os
import shutil
import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from _bench import ROOT, Report, Table, arguments, finish, interleaved, medians, spread
from hanol import models

IMPORTS = {
    "import torch": "import torch; print(1)",
    "import transformers": "import transformers; print(1)",
    "its model classes": "import torch, transformers.modeling_utils; print(1)",
}
LLAMA_CPP = """
import sys; from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=512, n_threads=int(sys.argv[2]), verbose=False)
print(next(model("x", max_tokens=1, stream=True))["choices"][0]["text"])
"""


def first_byte(command: list[str], threads: int) -> None:
    """Run a command until it says something."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        env=environment,
    ) as process:  # fmt: skip
        said = process.stdout.read(1) if process.stdout else b""
        process.kill()
    if not said:
        raise SystemExit(f"{' '.join(command)} says nothing: run it by hand.")


def commands(folder: Path, threads: int, *, quick: bool) -> dict[str, list[str]]:
    """Every command by its row; those of models that are not here are left out."""
    hanol = [sys.executable, "-m", "hanol"]
    notes = folder / "notes"
    shutil.copytree(ROOT / "docs" / "reference", notes)
    shutil.copy(ROOT / "docs" / "attention.md", notes)
    subprocess.run([*hanol, "index", str(notes)], check=True, capture_output=True)
    one = ["-p", "x", "--max-tokens", "1"]
    found = {
        "hanol --help": [*hanol, "--help"],
        "hanol models": [*hanol, "models"],
        "hanol search": [*hanol, "search", str(notes), "cache"],
        "hanol ask": [*hanol, "ask", str(notes), "What is a cache?"],
        "hanol generate tiny": [*hanol, "generate", "tiny", *one],
    }
    found |= {name: [sys.executable, "-c", code] for name, code in IMPORTS.items()}
    pulled = {entry.name: entry.path for entry in models.list_models()}
    if quick or pulled.get("smollm2") is None:
        return found
    found |= {
        "hanol generate smollm2": [*hanol, "generate", "smollm2", *one],
        "hanol chat smollm2": [*hanol, "chat", "smollm2", *one],
        "hanol ask --model smollm2": [
            *hanol, "ask", str(notes), "What is a cache?", "--model", "smollm2"
        ],
    }  # fmt: skip
    if find_spec("llama_cpp") is not None:
        file = folder / "smollm2.gguf"
        models.to_gguf(models.load_model("smollm2"), models.load_tokenizer("smollm2"), file)
        found["llama.cpp, smollm2"] = [sys.executable, "-c", LLAMA_CPP, str(file), str(threads)]
    return found


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    with TemporaryDirectory() as folder:
        found = commands(Path(folder), options.threads, quick=options.quick)
        runs = {name: partial(first_byte, line, options.threads) for name, line in found.items()}
        for run in () if options.quick else runs.values():
            run()  # files come into the cache
        seconds = interleaved(runs, 1 if options.quick else 7, "first words")
    middle = medians(seconds)
    report = Report(
        "start", "The first word", f"python benchmarks/start.py --threads {options.threads}"
    )
    report.figures |= {f"{name} seconds": value for name, value in middle.items()}
    torch = middle["import torch"]
    rows = [
        [
            f"`{name}`",
            f"{middle[name]:.2f} s",
            spread(seconds[name]),
            f"{middle[name] / torch:.1f}x",
        ]
        for name in found
    ]
    report.tables.append(
        Table(
            "Seconds to the first byte on standard output",
            ["", "time", "range", "`import torch`"],
            rows,
            f"A warm file cache; medians of {len(seconds['import torch'])} rounds. `generate` and "
            "`chat` write one token.",
        )
    )
    finish(report, options, ("transformers", "numba", "llama_cpp_python"))


if __name__ == "__main__":
    main()
