"""Rows that teach a model to revise its answers: wrong ones first, then a right one.

Source: arXiv 2408.03314, section 6.1: of the wrong answers the one that is most like the right one
stands last, so that there is something to revise.
"""

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from hanol.errors import DataError
from hanol.test_time._prompts import revision_messages


def revision_rows(
    samples: Iterable[Mapping[str, Any]],
    *,
    most: int = 4,
    seed: int = 0,
    exclude: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Conversations in which a right answer follows wrong ones, for recipes of the kind `sft`.

    For each right answer a number j is drawn uniformly from 0 to `most` (to the number of wrong
    answers, where there are fewer). The last of j wrong answers is the one with the smallest edit
    distance to the right one, the others are drawn from the rest.

    Args:
        samples: Rows of `sample_answers`: `prompt`, `answers`, `right`.
        most: Largest number of wrong answers before a right one.
        seed: Seed for drawing.
        exclude: Problems that must not be learned from: those of a test.

    Returns:
        A row per right answer: `prompt` (the messages before it) and `completion` (the right
        answer, the only text that is learned).

    Raises:
        DataError: A problem is in `exclude`, or a row is malformed.

    Example:
        >>> row = {"prompt": "1 + 1?", "answers": ["3", "2"], "right": [False, True]}
        >>> [m["content"] for m in revision_rows([row], seed=1)[0]["prompt"]][:2]
        ['1 + 1?', '3']
    """
    rng = random.Random(f"revisions {seed}")  # noqa: S311
    rows = []
    for sample in samples:
        prompt, answers, right = (sample.get(key) for key in ("prompt", "answers", "right"))
        if (
            not isinstance(prompt, str)
            or not isinstance(answers, list)
            or (not isinstance(right, list) or len(right) != len(answers))
        ):
            raise DataError('A row needs "prompt", "answers" and, one each, "right".')
        if prompt in exclude:
            raise DataError(
                f"{prompt[:60]!r} is a problem of the test: leave it out of what is learned."
            )
        answers = [answer.strip() for answer in answers]
        wrong = sorted({a for a, good in zip(answers, right, strict=True) if not good})
        for answer, good in zip(answers, right, strict=True):
            if not good:
                continue
            count = rng.randint(0, min(most, len(wrong)))
            before: list[str] = []
            if count:
                nearest = min(wrong, key=lambda one: (edit_distance(one, answer), one))
                rest = [one for one in wrong if one != nearest]
                before = [*rng.sample(rest, count - 1), nearest]
            messages = [message.to_dict() for message in revision_messages(prompt, before)]
            said = {"role": "assistant", "content": answer}
            rows.append({"prompt": messages, "completion": [said], "wrong": count})
    return rows


def edit_distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Levenshtein distance: characters inserted, removed and replaced.

    By bit vectors (Hyyro 2003, after Myers 1999), a column of the table in one number: the library
    for it, rapidfuzz, would be needed for nothing else.
    """
    if not one:
        return len(other)
    places: dict[str, int] = {}
    for i, char in enumerate(one):
        places[char] = places.get(char, 0) | 1 << i
    mask, last = (1 << len(one)) - 1, 1 << (len(one) - 1)
    up, down, distance = mask, 0, len(one)
    for char in other:
        same = places.get(char, 0)
        across = (((same & up) + up) ^ up) | same
        grows = (down | ~(across | up)) & mask
        shrinks = up & across
        distance += bool(grows & last) - bool(shrinks & last)
        grows = (grows << 1) | 1
        up = ((shrinks << 1) | ~((same | down) | grows)) & mask
        down = grows & (same | down) & mask
    return distance
