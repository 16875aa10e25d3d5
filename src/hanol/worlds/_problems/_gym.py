"""Problems of reasoning-gym's generators, by name; its own scorers check the answers.

A verifier names the entry, and the generator makes it again: nothing else has to be kept.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from hanol.errors import ConfigError, UnknownNameError, require
from hanol.scoring import Problem, Verifier, last_answer
from hanol.worlds._problems._problem import DraftProblem

_TAGGED = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.DOTALL)
_RIGHT = 0.999  # scorers give less than 1 to a right answer in a wrong form
# Entries of a generator. Most make them when asked for; some make all of them at once.
_MANY = 10_000


def gym_draws(name: str, options: str, seed: int) -> Iterator[DraftProblem]:
    """Entries of a generator in order.

    Args:
        name: Name of the generator, such as "chain_sum".
        options: Its options, as "min_terms=2,max_terms=2".
        seed: Seed of the generator.

    Raises:
        MissingExtraError: reasoning-gym is not installed.
        UnknownNameError: It has no such generator.
        ConfigError: The generator does not take these options.
    """
    dataset = _generator(name, options, seed)
    spec = f"gym:{name}:{seed}"
    index = 0
    while True:
        try:
            entry = dataset[index]
        except IndexError:
            return
        # Some problems have many right answers, which only the scorer tells, and no given one.
        text, answer = str(entry["question"]), str(entry["answer"] or "")
        verifier = f"{spec}:{index}" + (f":{options}" if options else "")
        yield DraftProblem(f"gym {text}", text, answer, None, verifier=verifier)
        index += 1


def gym_verifier(entry: str) -> Verifier:
    """What checks answers to one entry of a reasoning-gym generator.

    A completion is right when the generator's own scorer takes all of it, or what it gives as its
    answer: within <answer> tags, else by the rule of `hanol.scoring.last_answer`, else its last
    line.

    Args:
        entry: "NAME:SEED:INDEX" or "NAME:SEED:INDEX:OPTIONS".

    Raises:
        ConfigError: It is not written so.
        MissingExtraError: reasoning-gym is not installed.
    """
    name, _, rest = entry.partition(":")
    seed, _, rest = rest.partition(":")
    index, _, options = rest.partition(":")
    if not (seed.isdecimal() and index.isdecimal()):
        raise ConfigError(f'"gym:{entry}" is no verifier: write "gym:NAME:SEED:INDEX".')
    dataset = _generator(name, options, int(seed))
    asked = dataset[int(index)]

    def verify(prompt: str, completion: str, row: Problem) -> bool:
        text = completion.strip()
        tagged = _TAGGED.findall(text)
        answers = tagged[-1:] or [text, last_answer(text), text.rpartition("\n")[2].strip()]
        return any(
            float(dataset.score_answer(answer=answer, entry=asked)) >= _RIGHT
            for answer in filter(None, answers)
        )

    return verify


@lru_cache(maxsize=64)  # a verifier is made for each completion of each problem
def _generator(name: str, options: str, seed: int) -> Any:
    gym = require("reasoning_gym", extra="gym", feature=f"gym:{name}")
    known = require("reasoning_gym.factory", extra="gym", feature=f"gym:{name}").DATASETS
    if name not in known:
        raise UnknownNameError("generator of reasoning-gym", name, known)
    given: dict[str, Any] = {}
    for part in filter(None, options.split(",")):
        key, _, value = part.partition("=")
        given[key] = _scalar(value)
    try:
        return gym.create_dataset(name, seed=seed, size=_MANY, **given)
    except (TypeError, AssertionError) as err:
        raise ConfigError(f"{name} does not take {options or 'its defaults'}: {err}") from err


def _scalar(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.casefold(), text)


def gym_names() -> list[str]:
    """Names of reasoning-gym's generators.

    Raises:
        MissingExtraError: reasoning-gym is not installed.
    """
    return sorted(require("reasoning_gym.factory", extra="gym", feature="gym").DATASETS)
