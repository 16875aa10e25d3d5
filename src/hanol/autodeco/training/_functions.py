"""Functions of the standard library as prompts: headers to complete, bodies as one right answer.

Every machine with Python has them, a parser says whether a completion is Python, and the modules
that the bundled model never saw are held out here too.
"""

import ast
from collections.abc import Iterator
from io import StringIO

from hanol.autodeco.training._data import Row
from hanol.training import DataSection, documents, is_held_out

_IMPORTS = 5  # lines of the module that stand above a header
_LONGEST = 600  # characters of a body, and of a prompt


def function_rows(*, held_out: bool, share: float = 0.05) -> list[Row]:
    """Functions and methods with a docstring, in an order that does not depend on the machine.

    A prompt is Python by itself: some imports of the module, the class's first line for a method,
    the function's header and its docstring. The completion is the rest of the body.

    Args:
        held_out: Whether the modules that are kept for evaluation, or all others.
        share: Of modules that are held out, by the same hash as in training.
    """
    rows = []
    for document in documents(DataSection(source="stdlib", held_out=share)):
        if is_held_out(document.group, share) != held_out:
            continue
        try:
            tree = ast.parse(document.text)
        except (SyntaxError, ValueError):
            continue  # the language reference
        # Not `splitlines`, which takes form feeds and other separators for ends of lines.
        lines = StringIO(document.text).readlines()
        imports = "".join(
            "".join(lines[node.lineno - 1 : node.end_lineno])
            for node in tree.body
            if isinstance(node, ast.Import | ast.ImportFrom) and node.lineno == node.end_lineno
        )
        above = "".join(imports.splitlines(keepends=True)[:_IMPORTS])
        rows += [row for node in tree.body for row in _rows(node, lines, above)]
    return rows


def _rows(node: ast.stmt, lines: list[str], above: str) -> Iterator[Row]:
    if isinstance(node, ast.ClassDef):
        header = "".join(lines[node.lineno - 1 : node.body[0].lineno - 1]).splitlines(True)[:1]
        if header and header[0].rstrip().endswith(":"):
            for inner in node.body:
                yield from _function(
                    inner, lines, f"{above}\n\n{header[0]}" if above else header[0]
                )
    else:
        yield from _function(node, lines, f"{above}\n\n" if above else "")


def _function(node: ast.stmt, lines: list[str], above: str) -> Iterator[Row]:
    if not isinstance(node, ast.FunctionDef) or ast.get_docstring(node) is None:
        return
    docstring, rest = node.body[0], node.body[1:]
    if not rest or docstring.end_lineno is None or rest[0].lineno == docstring.end_lineno:
        return
    prompt = above + "".join(lines[node.lineno - 1 : docstring.end_lineno])
    body = "".join(lines[docstring.end_lineno : node.end_lineno])
    if len(prompt) <= _LONGEST and len(body) <= _LONGEST:
        yield Row(prompt=prompt, completion=body)
