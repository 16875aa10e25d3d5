"""Whether a completion makes a target from numbers, each used once: by steps or by one formula."""

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction

from hanol.errors import ConfigError

_SPEC = re.compile(r"(\d{1,9}):(\d{1,9}(?:,\d{1,9}){1,7})")
_SIGNS = str.maketrans("×·÷−x", "**/-*")
_STEP = re.compile(r"(?<![\d.)])(\d{1,9}) *([-+*/]) *(\d{1,9}) *= *(\d{1,9})(?![\d.])")
_FORMULA = re.compile(r"[\d(][\d\s()+*/-]{1,200}")
_LONGEST = 100_000  # characters at the end of a completion that are looked at
_LONGEST_FORMULA = 200
_MOST_POOLS = 5_000  # of numbers that are left, after which further steps are not followed
_OPERATIONS: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv
}  # fmt: skip
_NODES: dict[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"
}  # fmt: skip


class CountdownVerifier:
    """Whether a completion makes the target, using each number exactly once.

    Right are steps such as "12 - 3 = 9", each with two of the numbers that are left, where the last
    step of the completion is the one that leaves the target alone; steps that lead nowhere may
    stand between them, because a solution may have been searched for. Right is also a formula such
    as "(12 - 3) * 7"; of several with all the numbers the last one counts.

    Args:
        spec: "TARGET:NUMBER,NUMBER,...".

    Attributes:
        target: What has to be made.
        numbers: What it has to be made from.

    Raises:
        ConfigError: The spec is not written so.
    """

    def __init__(self, spec: str) -> None:
        if (match := _SPEC.fullmatch(spec)) is None:
            raise ConfigError(f'"countdown:{spec}" is no verifier: write "countdown:63:3,7,12".')
        self.target = int(match[1])
        self.numbers = tuple(map(int, match[2].split(",")))

    def __call__(self, prompt: str, completion: str, row: object) -> bool:
        """Judge one completion."""
        text = completion[-_LONGEST:].translate(_SIGNS)
        return self._by_steps(text) or self._by_formula(text)

    def _by_steps(self, text: str) -> bool:
        pools, done = {tuple(sorted(self.numbers))}, False
        for step in _STEP.finditer(text):
            made = {left for pool in pools if (left := after_step(pool, step[0])) is not None}
            done = (self.target,) in made
            if len(pools) < _MOST_POOLS:
                pools |= made
        return done

    def _by_formula(self, text: str) -> bool:
        for match in reversed(list(_FORMULA.finditer(text))):
            used = sorted(map(int, re.findall(r"\d+", match[0])))
            if used == sorted(self.numbers):
                return _value(match[0].strip()) == self.target
        return False


def after_step(pool: tuple[int, ...], step: str) -> tuple[int, ...] | None:
    """The numbers that a step of Countdown leaves.

    Args:
        pool: The numbers before it, sorted.
        step: Such as "12 - 3 = 9".

    Returns:
        The numbers after it, sorted; None when it is no step, uses a number that is not there, or
        is calculated wrongly.
    """
    if (match := _STEP.fullmatch(step.strip().translate(_SIGNS).rstrip("."))) is None:
        return None
    a, sign, b, result = int(match[1]), match[2], int(match[3]), int(match[4])
    left = list(pool)
    for used in (a, b):
        if used not in left:
            return None
        left.remove(used)
    if (sign == "/" and b == 0) or _OPERATIONS[sign](Fraction(a), Fraction(b)) != result:
        return None
    return tuple(sorted((*left, result)))


def calculated(formula: str) -> str | None:
    """The exact value of a formula of whole numbers, signs and brackets; None when it is none.

    Example:
        >>> calculated("(12 - 3) * 7 / 2")
        '63/2'
    """
    value = _value(formula.translate(_SIGNS).strip()) if len(formula) <= _LONGEST_FORMULA else None
    return None if value is None else str(value)


def _value(formula: str) -> Fraction | None:
    """Exact value of a formula; None when it is none."""
    try:
        return _of_node(ast.parse(formula, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _of_node(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return Fraction(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in _NODES:
        return _OPERATIONS[_NODES[type(node.op)]](_of_node(node.left), _of_node(node.right))
    raise ValueError("no formula of numbers")
