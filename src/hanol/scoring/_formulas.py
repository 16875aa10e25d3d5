r"""Answers to mathematical problems: as LaTeX text, and as numbers or formulas.

What counts as the answer of a completion is the last of the first kind of these that occurs:

1. `\boxed{X}` or `\fbox{X}`;
2. `#### X` on a line of its own, X being a value with at most a unit;
3. what follows "the answer is", "the answer to ... is" or "answer:" (also "정답은", "답:",
   "答案是") in that sentence: its first number, or behind the last "=" of a calculation;
4. `**X**`, where the bold text is a value with at most a unit, or ends in "= X";
5. the last number.

A calculation that is not carried out ("the answer is 3 + 4") is no answer. What is found is
compared as the official evaluation does (normalised LaTeX, string equality) and as a number or
formula, which also takes 1,000 for 1000 and 7.0 for 7. Answers are text of a model: they are
parsed, never run.

Source: arXiv 2510.26697, section 3.1.
"""

import ast
import operator
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

_LONGEST = 100_000  # characters at the end of a completion in which an answer is looked for
_LONGEST_ANSWER = 300  # characters of a formula
_LARGEST = 1000  # digits of a power


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


def check_answer(completion: str, answer: str) -> AnswerCheck:
    r"""Compare the answer of a completion with the right one.

    The answer is what the completion marks as such (\boxed, "####", "the answer is", bold), else
    its last number.

    Example:
        >>> check_answer("The answer is 5. So he has 5 pens in 2024.", "5").right
        True
    """
    if (plain := compare_numbers(completion, answer)) is not None:
        return plain
    found = last_answer(completion) or ""
    string = normalised(found) == normalised(answer)
    return AnswerCheck(found, string, _same_value(found, answer))


def compare_numbers(completion: str, answer: str) -> AnswerCheck | None:
    """`check_answer` where it takes no formula: without an answer, or of two plain numbers."""
    found = last_answer(completion)
    if found is None:
        return AnswerCheck(None, False, None)
    texts = normalised(found), normalised(answer)
    values = [_number(text) for text in texts]
    if None in values:
        return None
    return AnswerCheck(found, texts[0] == texts[1], values[0] == values[1])


_DIGITS = r"(?:0|[1-9][0-9]*)"
_PLAIN = re.compile(rf"-?(?:{_DIGITS}|[1-9][0-9]{{0,2}}(?:,[0-9]{{3}})+)(?:\.[0-9]+)?")
_FRACTION = re.compile(rf"\\frac\{{(-?{_DIGITS})\}}\{{([1-9][0-9]*)\}}")


def _number(text: str) -> Fraction | None:
    """The value of a number or a fraction of two, as normalised LaTeX; None of anything else."""
    if len(text) > _LONGEST_ANSWER:
        return None
    if _PLAIN.fullmatch(text):
        return Fraction(text.replace(",", ""))
    parts = _FRACTION.fullmatch(text)
    return Fraction(int(parts[1]), int(parts[2])) if parts else None


_NUMBER = (
    r"(?:(?<![\w)}])[-\u2212])?"  # no minus of a difference
    r"(?:\\[dtc]?frac\{\d+\}\{\d+\}|(?:\d{1,3}(?:,\d{3}){1,9}(?!\d)|\d+)(?:\.\d+)?(?:/\d+)?)"
)
_FOUND = re.compile(_NUMBER)
# A number with a sign of an operation and another number behind it, or a choice of two.
_CALCULATION = re.compile(
    rf"{_NUMBER}(?:(?:\s+[^\W\d]{{2,20}}){{0,2}}[\s$*_`)]*(?:[-+×÷^/x*\u2212]|\\times|\\cdot|\\div)"
    rf"|\s*(?:,|or\b|and\b))[\s$(]*{_NUMBER}"
)
_VALUE = re.compile(
    rf"\s*\\?[$€£¥₩]?\s*({_NUMBER})(?:\s*\\?[%$°]|\s*[^\W\d][^\d=:;,.!?\n]{{0,30}})?\s*\.?\s*"
)
_HASHES = re.compile(r"^####[ \t]*(.{1,80})$", re.MULTILINE)
_BOLD = re.compile(r"\*\*([^*\n]{1,80})\*\*")
_LIST_MARK = re.compile(r"\d+[.):]\s*")
_SAID = re.compile(
    r"\banswers?[*_\s]*(?:\b(?:is|are|was|equals|(?:will|would|should|must) be)\b|[:=])"
    r"|\banswer\s+(?:to|of|for)\b(?:[^.;,\n]|[.,](?=\d)){1,200}\b(?:is|equals)\b"
    r"|(?:정답|답)[*_\s]*(?:은|:|=)|答案[*_\s]*(?:是|为|:|:|=)",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[:*_\s]*((?:[^.!?。\n]|\.(?=\d)){1,300})")
_MOST_MARKS = 20  # of a kind that are looked at, from the end


def last_answer(text: str) -> str | None:
    """The answer that a text gives, by the rule at the top of this module; None without one."""
    marked = _marked(text, bold=True)
    if marked is not None:
        return marked or None
    numbers = _FOUND.findall(text[-_LONGEST:])
    return numbers[-1] if numbers else None


def stated_answer(text: str) -> str | None:
    r"""The answer that a text states as such, by \boxed, "####" or "the answer is"; else None.

    Example:
        >>> stated_answer("2 + 3 = 5"), stated_answer("So the answer is 5.")
        (None, '5')
    """
    return _marked(text, bold=False) or None


def _marked(text: str, *, bold: bool) -> str | None:
    """The answer that is marked as one; "" where it is a calculation, None without a mark."""
    text = text[-_LONGEST:]
    for match in reversed(list(re.finditer(r"\\f?box(?:ed)?\s*\{", text))[-_MOST_MARKS:]):
        inside = _inside_braces(text, match.end())
        if inside is not None:
            return inside.strip()
    for match in reversed(list(_HASHES.finditer(text))[-_MOST_MARKS:]):
        if value := _VALUE.fullmatch(match[1]):
            return value[1]
    for match in reversed(list(_SAID.finditer(text))[-_MOST_MARKS:]):
        sentence = _SENTENCE.match(text, match.end())
        said = sentence and _said(sentence[1])
        if said is not None:
            return said
    for match in reversed(list(_BOLD.finditer(text))[-_MOST_MARKS:]) if bold else ():
        of_list = _LIST_MARK.fullmatch(match[1]) and text[: match.start()].endswith(("\n", "- "))
        value = _VALUE.fullmatch(match[1].rpartition("=")[2])
        if value and not of_list:
            return value[1]
    return None


def _said(sentence: str) -> str | None:
    """The value in what follows "the answer is"; "" where it is a calculation, None without one."""
    if sentence.startswith("not ") or not _FOUND.search(sentence):
        return None
    for part in (sentence, sentence.rpartition("=")[2]):
        number = _FOUND.search(part)
        if number and not _CALCULATION.match(part, number.start()):
            return number[0]
    return ""


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
    import sympy

    match node:
        case ast.Tuple(elts=elements):
            return tuple(map(_walk, elements))
        case ast.Constant(value=value) if type(value) in (int, float):
            # A decimal is the fraction that it says, not the nearest binary number.
            return sympy.Rational(repr(value))
        case ast.Name(id="pi"):
            return sympy.pi
        case ast.Name(id=name) if len(name) == 1:
            return sympy.Symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_walk(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _walk(operand)
        case ast.Call(func=ast.Name(id="sqrt"), args=[argument], keywords=[]):
            return sympy.sqrt(_walk(argument))
        case ast.BinOp(left, op, right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_operand(left), _operand(right))
    raise ValueError(f"{type(node).__name__} is no part of a formula")


def _operand(node: ast.expr) -> Any:
    value = _walk(node)
    if isinstance(value, tuple):
        raise ValueError("arithmetic on sequences")
    return value


def _quotient(dividend: Any, divisor: Any) -> Any:
    if divisor == 0:
        raise ZeroDivisionError
    return dividend / divisor


def _power(base: Any, exponent: Any) -> Any:
    """Raise to a power, unless that would be a number without end."""
    import sympy

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


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: _quotient,
    ast.Pow: _power,
}


def _equal(a: Any, b: Any) -> bool:
    import sympy

    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, tuple) or isinstance(b, tuple):
        return False
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
