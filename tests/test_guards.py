"""Each guard has one home: nothing in the package finds a way around it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hanol

SOURCE = Path(hanol.__file__).parent
# What is called, as it is written or by its last name, and the modules that may, with the reason.
GUARDS = {
    "terminal codes": (
        {
            "print", "rich.print", "rich.console.Console", "typer.echo", "typer.secho",
            "typer.confirm", "typer.prompt", "click.echo", "click.secho", "sys.stdout.write",
            "sys.stderr.write", "sys.stdout.buffer", "sys.stderr.buffer",
        },
        {
            "cli/_console.py": "the console itself",
            "autodeco/_render.py": "the type of the console that rich brings",
            "process.py": "answers of a helper process to its parent",
        },
    ),
    "answers without a limit": (
        {
            "httpx.Client", "httpx.AsyncClient", "httpx.get", "httpx.post", "httpx.request",
            "httpx.stream", "requests.*", "aiohttp.*", "http.client.*", "urllib.request.*",
            "socket.socket", "socket.create_connection", "asyncio.open_connection",
        },
        {"http.py": "the client itself"},
    ),
    "code in data": (
        {
            "pickle.*", "dill.*", "joblib.*", "marshal.*", "shelve.*", "eval", "exec",
            "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "runpy.*",
        },
        {},
    ),
    "programs": (
        {
            "subprocess.*", "asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell",
            "os.system", "os.popen", "os.execv", "os.execvp", "os.posix_spawn", "os.fork", "pty.*",
        },
        {
            "tools/sandbox/_bwrap.py": "the sandbox",
            "tools/sandbox/_sandbox.py": "the sandbox",
            "process.py": "helper processes, which can be killed",
            "retrieval/documents/pdf/_ocr.py": "tesseract, for a picture in a file of ours",
            "models/pulled/_fetch.py": "pip, with arguments of our table",
            "claims/_claim.py": "git, for the commit of a result",
        },
    ),
}  # fmt: skip


def calls(file: Path) -> Iterator[tuple[str, ast.AST]]:
    """Names that a module uses, written out: `from typer import echo` is `typer.echo`."""
    tree = ast.parse(file.read_text("utf-8"))
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                known[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                known[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        inner, parts = node, []
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if not isinstance(inner, ast.Name) or not isinstance(node, ast.Attribute | ast.Name):
            continue
        # Not a variable that is named like a module, nor a field named like a builtin.
        if inner.id in known or (inner is node and id(node) in called):
            yield ".".join([known.get(inner.id, inner.id), *reversed(parts)]), node


def is_used(name: str, guarded: set[str]) -> bool:
    return name in guarded or any(
        entry.endswith(".*") and (name + ".").startswith(entry[:-1]) for entry in guarded
    )


@pytest.mark.parametrize("guard", GUARDS)
def test_nothing_goes_around(guard: str) -> None:
    guarded, homes = GUARDS[guard]
    files = sorted(SOURCE.rglob("*.py"))
    assert len(files) > 300
    found: dict[str, list[str]] = {}
    for file in files:
        place = str(file.relative_to(SOURCE))
        for name, node in calls(file):
            if is_used(name, guarded):
                found.setdefault(place, []).append(f"line {node.lineno}: {name}")
    assert {place: uses for place, uses in found.items() if place not in homes} == {}
    assert set(homes) <= set(found), "a home that is none any more"


@pytest.mark.parametrize(
    "code",
    ["print(1)", "import sys\nsys.stdout.write('a')", "from sys import stdout\nstdout.write('a')",
     "import typer as t\nt.echo('a')", "from rich.console import Console as C\nC().print(1)",
     "from rich import print\nprint(1)", "import sys as s\ns.stderr.buffer.write(b'')"],
)  # fmt: skip
def test_the_search_finds_other_spellings(code: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(code)
    guarded, _ = GUARDS["terminal codes"]
    assert any(is_used(name, guarded) for name, _ in calls(tmp_path / "a.py"))


# Modules that open files otherwise than by `hanol.files`, with the reason.
OWN_FILES = {
    "files.py": "the guard itself",
    "autodeco/_render.py": "a page of the package",
    "autodeco/training/_steer.py": "texts of the package",
    "research/report/_report.py": "pages of the package",
    "rows.py": "rows that it appends, never through a link",
    "retrieval/citations/_words.py": "words of the package",
    "lazy.py": "modules of the package",
    "models/_speed.py": "the kernel's own",
    "models/_templates.py": "the kernel's own",
    "retrieval/citations/_units.py": "units of the package",
    "retrieval/documents/_charset.py": "encodings of the package",
    "retrieval/documents/tables/_cells.py": "labels of the package",
    "process.py": "the kernel's own",
    "retrieval/documents/office/_flow.py": "symbols of the package",
    "synthesis/reading/_patterns.py": "rules of the package",
    "cli/_fault.py": "a log that it makes",
    "cli/research/_commands.py": "a report that was written just before",
    "runs/_lock.py": "a lock, without waiting",
    "runs/_log.py": "a log that it appends to, without waiting",
    "runs/_origin.py": "the secret of this user",
    "tools/_mcp.py": "nothing, in the place of standard input",
    "tools/sandbox/_bwrap.py": "the kernel's own",
    "tools/sandbox/_memory.py": "the kernel's own",
    "tools/sandbox/_sandbox.py": "the kernel's own",
    "worlds/_factbook/_profiles.py": "facts of the package",
    "worlds/_problems/_code.py": "problems of an installed package",
}
# Parts of archives, which are opened by their names inside: what holds them is opened by `files`.
PARTS = {"package", "archive", "pillow", "self", "self._zip", "self._web", "Index", "Store"}


def opened(file: Path) -> Iterator[str]:
    """Calls by which a module opens a file for reading by its path."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        *before, name = ast.unparse(node.func).rpartition(".")
        # `path.open(mode)`, `open(path, mode)`
        modes = node.args[0 if before[0] not in ("", "io") else 1 :][:1]
        modes += [word.value for word in node.keywords if word.arg == "mode"]
        is_written = any(isinstance(m, ast.Constant) and str(m.value)[:1] in "wax" for m in modes)
        is_open = name == "open" and before[0] not in PARTS and not before[0].endswith("Index")
        if (name in ("read_text", "read_bytes") and before[0]) or (is_open and not is_written):
            yield f"line {node.lineno}: {ast.unparse(node.func)}"


def test_what_may_be_foreign_is_opened_by_files_alone() -> None:
    """A named pipe in the place of a file of a stranger's folder would block for ever."""
    found = {
        str(file.relative_to(SOURCE)): calls
        for file in sorted(SOURCE.rglob("*.py"))
        if (calls := list(opened(file)))
    }
    assert {place: uses for place, uses in found.items() if place not in OWN_FILES} == {}
    assert set(OWN_FILES) <= set(found), "a reason that is none any more"


@pytest.mark.parametrize(
    "code",
    ["open(path)", "open(path, 'rb')", "path.open()", "path.open('rb')", "io.open(path)",
     "Path(a, b).read_text()", "(folder / 'a').read_bytes()", "path.open(encoding='ascii')"],
)  # fmt: skip
def test_the_search_finds_what_is_opened(code: str, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(code)
    assert list(opened(tmp_path / "a.py"))


def test_code_of_checkpoints_and_pickles_are_refused() -> None:
    found = []
    loads = 0
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            name = ast.unparse(node.func)
            if name == "torch.load":
                loads += 1
            if given.get("trust_remote_code", "False") != "False" or (
                name == "torch.load" and given.get("weights_only") != "True"
            ):
                found.append(f"{file.relative_to(SOURCE)}:{node.lineno} {name}")
    assert found == []
    assert loads


def test_files_are_not_made_through_links() -> None:
    """Whoever makes a file by its flags says that a link is no file."""
    found = [
        f"{path.relative_to(SOURCE)}: {ast.unparse(node)}"
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Assign | ast.Expr | ast.Return)
        and "O_CREAT" in ast.unparse(node)
        and "O_NOFOLLOW" not in ast.unparse(node)
    ]
    assert found == []
