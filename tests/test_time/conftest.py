"""A toy environment: solutions are digits, scored and ended by fixed rules."""

from collections.abc import Callable, Sequence

from hanol.test_time import Prefix, Search, Step


class Toy:
    """Steps are digits that follow from the seed; a solution ends after some, and sums them up.

    Attributes:
        asked: Every prefix that was continued, by its steps, with the number of continuations.
        tokens: Tokens generated, 1 a step.
    """

    def __init__(self, depth: int = 3, length: Callable[[str], int] | None = None) -> None:
        self.length = length or (lambda text: depth)
        self.asked: list[tuple[str, int]] = []
        self.tokens = 0

    def continuation(self, prefix: Prefix, number: int) -> list[Step]:
        text, made, i = prefix.text, list[Step](), 0
        while not made or (not made[-1].ends and len(made) != prefix.max_steps):
            if prefix.max_tokens is not None and len(made) == prefix.max_tokens:
                break
            drawn = (prefix.seed + number) * 7919 + 31 * i
            digit = "9" if prefix.greedy else str(drawn * 2654435761 % 2**32 % 10)
            text, i = text + digit, i + 1
            ends = len(text) >= self.length(text[0])
            answer = str(sum(map(int, filter(str.isdigit, text))) % 10) if ends else None
            made.append(Step(digit, tokens=1, final=ends, answer=answer))
        return made

    def score(self, steps: Sequence[str]) -> float:
        digits = [int(s) for s in steps if s.isdigit()]
        return (sum((i + 1) * d for i, d in enumerate(digits)) * 37 % 101) / 101

    def answer(self, search: Search, prefix: Prefix) -> None:
        made = [self.continuation(prefix, i) for i in range(prefix.n)]
        self.asked.append((prefix.text, prefix.n))
        self.tokens += sum(map(len, made))
        texts = [[*prefix.steps, *(s.text for s in one)] for one in made]
        scores = [
            [self.score(text[: len(prefix.steps) + k + 1]) for k in range(len(one))]
            for text, one in zip(texts, made, strict=True)
        ]
        search.tell(prefix, made, scores)

    def run(self, search: Search) -> Search:
        while not search.done:
            for prefix in search.ask():
                self.answer(search, prefix)
        return search
