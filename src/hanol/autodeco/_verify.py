r"""Which of a model's answers are right.

Answers are text of a model: they are parsed, never run. An answer in \boxed{} is compared as the
official evaluation does (normalised LaTeX, string equality) and as a number or formula, which also
takes 1,000 for 1000 and 7.0 for 7.

Source: arXiv 2510.26697, section 3.1.
"""

import ast
import importlib
import io
import re
import tokenize
import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from hanol.autodeco._data import Row
from hanol.errors import ConfigError, DataError

_LONGEST = 100_000  # characters of a program or text that is looked at
_LONGEST_ANSWER = 300  # characters of a formula
_LARGEST = 1000  # digits of a power


class Verifier(Protocol):
    """Says whether a completion is right. Any callable of this form is one."""

    def __call__(self, prompt: str, completion: str, row: Row) -> bool:
        """Judge one completion."""
        ...


@dataclass(frozen=True)
class AnswerCheck:
    """How an answer compares with the right one.

    Attributes:
        found: The answer in the completion; None when there is none.
        string: Whether both are the same text once normalised (the official check).
        symbolic: Whether both are the same number or formula; None when one is neither, or sympy
            is not installed.
    """

    found: str | None
    string: bool
    symbolic: bool | None

    @property
    def right(self) -> bool:
        """Whether one of the two checks says so."""
        return self.string or bool(self.symbolic)


def parse_verifier(spec: str) -> Verifier:
    """The verifier that a text names.

    Args:
        spec: "arithmetic"; "python", or "python:body" to look at the body of the prompt's
            function only; "regex:PATTERN"; "module:function" of the user's own.

    Raises:
        ConfigError: It names none, the pattern is not valid, or the function cannot be imported.
    """
    kind, _, rest = spec.partition(":")
    if kind == "arithmetic" and not rest:
        return verify_arithmetic
    if kind == "python" and rest in ("", "body"):
        return PythonVerifier(body=rest == "body")
    if kind == "regex":
        return RegexVerifier(rest)
    if rest and kind.replace(".", "").isidentifier() and rest.isidentifier():
        return _imported(kind, rest)
    raise ConfigError(
        f'No verifier is named {spec!r}. Give "arithmetic", "python", "python:body", '
        '"regex:PATTERN" or "module:function".'
    )


# -- arithmetic


def verify_arithmetic(prompt: str, completion: str, row: Row) -> bool:
    r"""Whether the last \boxed expression, or else the last number, is the row's answer.

    Raises:
        DataError: The row has no answer.
    """
    return check_answer(completion, answer_of(row)).right


def check_answer(completion: str, answer: str) -> AnswerCheck:
    r"""Compare the last \boxed (or \fbox) expression, or else the last number, with an answer."""
    found = last_answer(completion)
    if found is None:
        return AnswerCheck(None, False, None)
    string = normalised(found) == normalised(answer)
    return AnswerCheck(found, string, _same_value(found, answer))


def last_answer(text: str) -> str | None:
    r"""Content of the last closed \boxed or \fbox, else the last number, else None."""
    text = text[-_LONGEST:]
    for match in reversed(list(re.finditer(r"\\f?box(?:ed)?\s*\{", text))[-20:]):
        inside = _inside_braces(text, match.end())
        if inside is not None:
            return inside.strip()
    numbers = re.findall(r"-?(?:\d{1,3}(?:,\d{3}){1,9}(?!\d)|\d+)(?:\.\d+)?(?:/\d+)?", text)
    return numbers[-1] if numbers else None


def _inside_braces(text: str, begin: int) -> str | None:
    depth = 1
    for at in range(begin, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return text[begin:at]
    return None


# In this order; each pair is a pattern and what takes its place.
_NORMALISE = [
    (r"\u2212", "-"),
    (r"\\!|\\,|\\;|\\:|\\ |\$|\n", ""),
    (r"\\[dtc]frac", r"\\frac"),
    (r"\\left(?![a-z])|\\right(?![a-z])", ""),
    (r"\^\s*\{?\s*\\circ\s*\}?|\\degree|°", ""),
    (r"\\%|%", ""),
    (r"(?<=.)\\(?:text|mbox|mathrm)\s*\{[^{}]*\}\s*$", ""),  # a unit behind a value
    (r"\\(?:text|mbox|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r"\1"),
    (r"^[a-zA-Z]\s*(?:=|\\in(?![a-z]))\s*", ""),  # "x = " before the value
    (r"\s+", ""),
    (r"\\sqrt(\w)", r"\\sqrt{\1}"),
    (r"\\frac(\d)(\d)", r"\\frac{\1}{\2}"),
    (r"\\frac(\d)\{", r"\\frac{\1}{"),
    (r"\\frac\{([^{}]*)\}(\d)", r"\\frac{\1}{\2}"),
    (r"(?<![\d.])\.(?=\d)", "0."),
    (r"^0\.50*$", r"\\frac{1}{2}"),
    (r"^(-?\d+)/(\d+)$", r"\\frac{\1}{\2}"),
    (r"^-\\frac\{(\d+)\}\{(\d+)\}$", r"\\frac{-\1}{\2}"),
    (r"\.$", ""),
]  # fmt: skip


def normalised(answer: str) -> str:
    """LaTeX of an answer without what does not change its value, for comparison as text."""
    answer = answer.strip()
    if len(answer) > 10 * _LONGEST_ANSWER:
        return answer
    for pattern, new in _NORMALISE:
        answer = re.sub(pattern, new, answer)
    return answer


def _same_value(found: str, answer: str) -> bool | None:
    try:
        return _equal(_value(normalised(found)), _value(normalised(answer)))
    except ModuleNotFoundError:
        return None
    except (ArithmeticError, ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None  # one of both is no formula that is understood here


# From normalised LaTeX to Python's grammar, innermost braces first, again until nothing changes.
_TO_PYTHON = [
    (r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1)/(\2))"),
    (r"\\sqrt\{([^{}]*)\}", r"sqrt(\1)"),
    (r"\^\{([^{}]*)\}", r"**(\1)"),
    (r"\^(?!\{)", "**"),
    (r"\\pi(?![a-z])", "pi"),
    (r"\\cdot|\\times", "*"),
    (r"\\div", "/"),
    (r"\\\{|\\\}", ""),  # a set is compared as the sequence that it is written as
    (r"(?<=[\d)])(?=[a-z(\\])|(?<=\))(?=\d)", "*"),
]


def _value(text: str) -> Any:
    """The value of normalised LaTeX: a sympy expression, or a tuple of them."""
    if len(text) > _LONGEST_ANSWER:
        raise ValueError("too long")
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text):
        text = text.replace(",", "")
    before = None
    while before != text:
        before = text
        for pattern, new in _TO_PYTHON:
            text = re.sub(pattern, new, text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python has remarks on some literals
        tree = ast.parse(text, mode="eval")
    return _walk(tree.body)


def _walk(node: ast.expr) -> Any:
    """Build a value from a closed list of nodes; anything else is refused."""
    sympy: Any = importlib.import_module("sympy")

    if isinstance(node, ast.Tuple):
        return tuple(_walk(element) for element in node.elts)
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        # A decimal is the fraction that it says, not the nearest binary number.
        return sympy.Rational(repr(node.value))
    if isinstance(node, ast.Name):
        if node.id == "pi":
            return sympy.pi
        if len(node.id) == 1:
            return sympy.Symbol(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _walk(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "sqrt"
        and len(node.args) == 1
        and not node.keywords
    ):
        return sympy.sqrt(_walk(node.args[0]))
    if isinstance(node, ast.BinOp):
        left, right = _walk(node.left), _walk(node.right)
        if isinstance(left, tuple) or isinstance(right, tuple):
            raise ValueError("arithmetic on sequences")
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Div):
            if right == 0:
                raise ZeroDivisionError
            return left / right
        if isinstance(node.op, ast.Pow):
            return _power(left, right)
    raise ValueError(f"{type(node).__name__} is no part of a formula")


def _power(base: Any, exponent: Any) -> Any:
    """Raise to a power, unless that would be a number without end."""
    sympy: Any = importlib.import_module("sympy")

    if not exponent.is_Rational or abs(exponent) > _LARGEST:
        raise ValueError("exponent")
    if base.is_number:
        if base == 0 and exponent <= 0:
            raise ZeroDivisionError
        size = 0.0 if base == 0 else abs(float(sympy.log(abs(base)).evalf(5))) / 2.3
        if size * abs(exponent) > _LARGEST or abs(exponent.q) > 10:
            raise ValueError("a number of too many digits")
    elif abs(exponent) > 20:
        raise ValueError("degree")
    return base**exponent


def _equal(a: Any, b: Any) -> bool:
    sympy: Any = importlib.import_module("sympy")

    if isinstance(a, tuple) or isinstance(b, tuple):
        return (
            isinstance(a, tuple)
            and isinstance(b, tuple)
            and len(a) == len(b)
            and all(_equal(*pair) for pair in zip(a, b, strict=True))
        )
    if a.free_symbols != b.free_symbols:
        return False
    if a == b:
        return True
    # To fifty digits, at two points: expanding a formula of a hostile model could take forever.
    symbols = sorted(a.free_symbols, key=str)
    for first in (7, 11):
        point = {s: sympy.Rational(first + i, 13 + 2 * i) for i, s in enumerate(symbols)}
        values = [sympy.N(side.subs(point), 50) for side in (a, b)]
        if not all(value.is_number and value.is_finite for value in values):
            return False
        if abs(values[0] - values[1]) > (1 + abs(values[1])) * sympy.Float("1e-40"):
            return False
    return True


# -- Python


@dataclass(frozen=True)
class PythonVerifier:
    """Whether prompt and completion together are Python, as `ast.parse` sees it.

    Attributes:
        body: Look only at the body of the last function of the prompt: what the model wrote after
            its end does not count.
    """

    body: bool = False

    def __call__(self, prompt: str, completion: str, row: Row) -> bool:
        """Judge one completion; an empty one is wrong."""
        return self.cut(prompt, completion) is not None

    def cut(self, prompt: str, completion: str) -> str | None:
        """The part of a completion that counts; None when it does not parse or is blank."""
        if not completion.strip() or len(prompt) + len(completion) > _LONGEST:
            return None
        if not self.body:
            return completion if _parses(prompt + completion) else None
        indent = _margin_of_last_function(prompt)
        if indent is None:
            return None
        begin = 0
        ends = []
        for line in completion.splitlines(keepends=True):
            # What the completion begins with goes on the prompt's last line.
            starts_line = begin > 0 or prompt.endswith(("\n", "\r"))
            if starts_line and line.strip():
                margin = line.expandtabs()
                if len(margin) - len(margin.lstrip()) <= indent:
                    ends.append(begin)
            begin += len(line)
        # A line at the margin may lie within a string or brackets: then what is before it does
        # not parse, and the next one may be the end.
        for end in [*ends[:20], len(completion)]:
            part = completion[:end]
            if part.strip() and _parses(prompt + part):
                return part
        return None


def _margin_of_last_function(prompt: str) -> int | None:
    """Columns before the last `def` that is code, not part of a string; None without one."""
    margin = None
    # The prompt is unfinished: the tokens before what is wrong with its end are all there.
    with suppress(tokenize.TokenError, SyntaxError):
        for token in tokenize.generate_tokens(io.StringIO(prompt).readline):
            if token.type == tokenize.NAME and token.string == "def":
                line = token.line.expandtabs()
                margin = len(line) - len(line.lstrip())
    return margin


def _parses(source: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes and the like
            ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


# -- patterns and the user's own


class RegexVerifier:
    """Whether the last match of a pattern is the row's answer.

    Args:
        pattern: A regular expression; its first group is compared when it has one.

    Raises:
        ConfigError: The pattern is empty or not valid.
    """

    def __init__(self, pattern: str) -> None:
        if not pattern:
            raise ConfigError('"regex:" needs a pattern behind it, as in "regex:answer: (.*)".')
        try:
            self.pattern = re.compile(pattern)
        except re.error as err:
            raise ConfigError(f"The pattern {pattern!r} is not valid: {err}.") from err

    def __call__(self, prompt: str, completion: str, row: Row) -> bool:
        """Judge one completion.

        Raises:
            DataError: The row has no answer.
        """
        answer = answer_of(row)
        matches = list(self.pattern.finditer(completion[-_LONGEST:]))
        if not matches:
            return False
        found = matches[-1][1] if self.pattern.groups else matches[-1][0]
        return found is not None and found.strip() == answer.strip()


def _imported(module: str, name: str) -> Verifier:
    try:
        function = getattr(importlib.import_module(module), name, None)
    except ImportError as err:
        raise ConfigError(f"The verifier's module {module!r} cannot be imported: {err}") from err
    if not callable(function):
        raise ConfigError(f"The module {module!r} has no function {name!r}.")

    def verify(prompt: str, completion: str, row: Row) -> bool:
        verdict = function(prompt, completion, row)
        if not isinstance(verdict, bool):
            raise DataError(f"{module}:{name} gave {verdict!r}, but a verifier says True or False.")
        return verdict

    return verify


def answer_of(row: Row) -> str:
    """The right answer that a row carries.

    Raises:
        DataError: It has none.
    """
    if row.answer is None:
        raise DataError(f'{row.where}: this verifier compares with "answer", which is not there.')
    return row.answer
