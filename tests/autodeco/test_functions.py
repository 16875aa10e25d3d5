"""Functions of the standard library as rows: Python by themselves, split as in training."""

import ast
import textwrap
from collections import defaultdict
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest

from hanol.autodeco import Row, function_rows, tokenize
from hanol.autodeco.training import _data  # private: the folder of the standard library is replaced
from hanol.scoring import PythonVerifier, parse_verifier
from hanol.training import DataSection, SourceText, documents, is_held_out, read_recipe

ROOT = Path(__file__).parents[2]
STDLIB = DataSection(source="stdlib")
LONGEST = 600


@pytest.fixture(scope="module")
def held_out() -> list[Row]:
    return function_rows(held_out=True)


@pytest.fixture(scope="module")
def others() -> list[Row]:
    return function_rows(held_out=False)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[Row]]:
    """Rows of a library that is this text."""

    def rows(text: str) -> list[Row]:
        monkeypatch.setattr(_data, "documents", lambda _: iter([SourceText("m", text)]))
        return function_rows(held_out=is_held_out("m", 0.05))

    return rows


# -- the standard library of this Python


def test_held_out_rows_are_python_and_their_prompts_are_too(held_out: list[Row]) -> None:
    verify = parse_verifier("python:body")
    assert isinstance(verify, PythonVerifier)
    assert len(held_out) > 100
    for row in held_out:
        ast.parse(row.prompt)  # a docstring is a body
        ast.parse(row.prompt + row.completion)
        assert verify(row.prompt, row.completion, row)
        # The end of the function is the end of the completion: nothing of it is cut away.
        assert verify.cut(row.prompt, row.completion) == row.completion


def test_all_other_rows_pass_the_verifier_too(others: list[Row]) -> None:
    verify = parse_verifier("python:body")
    assert len(others) > 1000
    assert [row for row in others if not verify(row.prompt, row.completion, row)] == []


def test_a_prompt_ends_with_a_docstring_and_takes_any_body(held_out: list[Row]) -> None:
    for row in held_out:
        function = last_function(row.prompt)
        assert ast.get_docstring(function) is not None
        assert len(function.body) == 1
        assert row.prompt.endswith("\n")
        margin = " " * function.body[0].col_offset
        whole = last_function(f"{row.prompt}{margin}pass\n")
        assert [type(node) for node in whole.body] == [ast.Expr, ast.Pass]
        assert len(last_function(row.prompt + row.completion).body) > 1


def last_function(source: str) -> ast.FunctionDef:
    node = ast.parse(source).body[-1]
    if isinstance(node, ast.ClassDef):
        node = node.body[-1]
    assert isinstance(node, ast.FunctionDef)
    return node


def function_text(row: Row) -> str:
    """Header, docstring and body, without what was put above them."""
    lines = StringIO(row.prompt).readlines()
    return "".join(lines[last_function(row.prompt).lineno - 1 :]) + row.completion


def test_no_row_is_empty_or_long(held_out: list[Row], others: list[Row]) -> None:
    for row in held_out + others:
        assert 0 < len(row.prompt) <= LONGEST
        assert 0 < len(row.completion) <= LONGEST
        assert row.completion.strip()


def test_rows_come_whole_from_modules_of_their_side(held_out: list[Row], others: list[Row]) -> None:
    """Every header and body stands in a module of its side as it is."""
    with_header: dict[tuple[bool, str], list[str]] = defaultdict(list)
    for document in documents(STDLIB):
        side = is_held_out(document.group, 0.05)
        for line in set(StringIO(document.text)):
            if line.lstrip().startswith("def "):
                with_header[side, line].append(document.text)
    for side, rows in ((True, held_out), (False, others)):
        for row in rows:
            function = function_text(row)
            header = function.partition("\n")[0] + "\n"
            assert any(function in text for text in with_header[side, header])


def test_held_out_rows_are_not_what_the_bundled_model_was_trained_on(
    held_out: list[Row], others: list[Row]
) -> None:
    recipe = read_recipe(ROOT / "recipes/tiny/pretrain.yaml")
    assert recipe.data.source == "stdlib"
    assert recipe.data.held_out == 0.05  # the default of `function_rows`
    trained = "\0".join(
        document.text
        for document in documents(recipe.data)
        if not is_held_out(document.group, recipe.data.held_out)
    )
    assert [row for row in held_out if function_text(row) in trained] == []
    assert not set(map(function_text, held_out)) & set(map(function_text, others))
    # The other side is what it was trained on, so the test above can fail.
    assert all(function_text(row) in trained for row in others[::100])


def test_the_share_moves_modules_from_one_side_to_the_other(held_out: list[Row]) -> None:
    more = function_rows(held_out=True, share=0.08)
    assert len(more) > len(held_out)
    assert set(texts(held_out)) <= set(texts(more))


def test_rows_are_the_same_each_time(held_out: list[Row]) -> None:
    assert function_rows(held_out=True) == held_out


def texts(rows: list[Row]) -> list[tuple[str, str]]:
    return [(row.prompt, row.completion) for row in rows]


def test_rows_become_tokens(held_out: list[Row], byte_tokenizer) -> None:
    made = tokenize(held_out, byte_tokenizer, 4096)
    assert len(made.rows) == len(held_out)
    assert made.rows[0].num_labels == len(held_out[0].completion.encode()) + 1  # the end token


# -- modules of our own


def test_a_prompt_has_some_imports_the_line_of_the_class_and_the_header(
    module: Callable[[str], list[Row]],
) -> None:
    source = textwrap.dedent('''\
        """A module."""
        import os
        from a import (
            b,
        )
        import sys, re
        from c import d
        import e1
        import e2
        import e3

        X = 1

        @decorated
        def plain(a, b=(1,
                        2)):
            """One.

            Two.
            """
            # Why.
            return a

        class C(Base):
            """Its own."""

            def method(self):
                "Three."

                return self.x

                # The end is before this.
        ''')
    plain, method = module(source)
    above = "import os\nimport sys, re\nfrom c import d\nimport e1\nimport e2\n\n\n"
    assert plain.prompt == (
        f'{above}def plain(a, b=(1,\n                2)):\n    """One.\n\n    Two.\n    """\n'
    )
    assert plain.completion == "    # Why.\n    return a\n"
    assert method.prompt == f'{above}class C(Base):\n    def method(self):\n        "Three."\n'
    assert method.completion == "\n        return self.x\n"


@pytest.mark.parametrize("odd", ["\f", "\v", "\x1c", "\x85", "\u2028", "\u2029"])
def test_only_ends_of_lines_count_as_such(module: Callable[[str], list[Row]], odd: str) -> None:
    """Python's own sources have form feeds, and strings may hold other separators."""
    row = module(f'#{odd}\nx = 1\ndef f():\n    "A{odd}b."\n    return "{odd}"\n\ny = 2\n')[0]
    assert row.prompt == f'def f():\n    "A{odd}b."\n'
    assert row.completion == f'    return "{odd}"\n'


def test_the_last_line_may_have_no_end(module: Callable[[str], list[Row]]) -> None:
    [row] = module('def f():\n    "A."\n    return 1')
    assert row.completion.rstrip("\n") == "    return 1"


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    return 1\n",  # no docstring
        'def f():\n    "A."\n',  # nothing else
        'def f():\n    "A."; return 1\n',
        'def f(): "A."\n',
        'async def f():\n    "A."\n    return 1\n',
        'class C(\n    B\n):\n    def f(self):\n        "A."\n        return 1\n',
        "class C: x = 1\n",
        'if x:\n    def f():\n        "A."\n        return 1\n',
        "def broken(:\n",
        "Not Python, but text of the language reference.",
        "nul \0",
        f'def f():\n    "{"A" * LONGEST}"\n    return 1\n',
        f'def f():\n    "A."\n    return "{"B" * LONGEST}"\n',
    ],
)
def test_what_gives_no_row(module: Callable[[str], list[Row]], source: str) -> None:
    assert module(source) == []


def test_the_limit_is_inclusive(module: Callable[[str], list[Row]]) -> None:
    body = f'    return "{"B" * (LONGEST - 14)}"\n'
    assert len(body) == LONGEST
    [row] = module(f'def f():\n    "A."\n{body}')
    assert row.completion == body
