"""The items that the experiments read.

They are not part of this repository. `HANOL_METRICALIGN` names the file: `data/data-sample.json` of
github.com/WHUNextGen/DITING (129 items), or a JSON lines file of such items (105 were used for the
recorded results).
"""

import os
from functools import cache

import numpy as np

from hanol.errors import DataError
from hanol.evaluation import LabelledItem, read_labels

_FILE = "HANOL_METRICALIGN"
CRITERIA = 3  # each from 0 to 2


@cache
def items(quick: bool) -> tuple[LabelledItem, ...]:
    """The items with people's scores; made-up ones where only the machinery is tried.

    Raises:
        DataError: The environment names no file.
    """
    if quick:
        return tuple(_made_up())
    if not (path := os.environ.get(_FILE)):
        raise DataError(
            f"The MetricAlign items are not part of hanol: set {_FILE} to data/data-sample.json of "
            "github.com/WHUNextGen/DITING."
        )
    return tuple(read_labels(path))


def names(item: LabelledItem) -> list[str]:
    """The criteria that people scored of an item: the specific one, then the general ones."""
    return [name for name in next(iter(item.ratings.values())) if name != "total"]


def _made_up() -> list[LabelledItem]:
    rng = np.random.default_rng(0)
    made = []
    for n in range(48):
        quality = n % 4 * 2 // 3
        words = rng.choice(["the", "cat", "sat", "on", "a", "mat"], 8)
        kept = [*words[: 3 * quality + 1], *["stray"] * (2 - quality)]
        ratings = {
            rater: {
                name: float(np.clip(quality + rng.choice([-1, 0, 0, 0, 1]), 0, 2))
                for name in ("specific", "general_1", "general_2")
            }
            for rater in ("A", "B")
        }
        made.append(
            LabelledItem(
                id=str(n), candidate=" ".join(kept), reference=" ".join(words),
                system=f"system-{n % 8}", group=f"source-{n // 8}", ratings=ratings,
            )
        )  # fmt: skip
    return made
