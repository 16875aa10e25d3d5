"""Judgements: what was said about an item, by whom and by what; rows of an append-only file."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from hanol.errors import DataError
from hanol.evaluation.judging._item import Item
from hanol.rows import JsonLines

Protocol = Literal["paper", "official", "single", "panel", "roles"]
ScoreMode = Literal["single", "sampled-mean", "token-weighted"]
_SCHEMA = 1


@dataclass(frozen=True)
class Utterance:
    """One reply of one agent.

    Args:
        role: Who spoke: "A", "B", "judge", "scorer", "member 1", or the id of a criterion.
        round: From 1.
        attempt: 1, or more where earlier replies were invalid.
        text: The reply as it came.
        status: As `parse_reply` read it; None where nothing was to be read.
    """

    role: str
    round: int
    attempt: int
    text: str
    status: str | None = None
    scores: Mapping[str, float] | None = None
    verdict: str | None = None
    reason: str = ""
    flags: tuple[str, ...] = ()
    problem: str | None = None


class Scores(Mapping[str, float]):
    """Scores by criterion: what counts, and what the judges said before gates.

    Attributes:
        raw: As the judges gave them.
        gated: After the rubric's gates and special cases; the mapping itself holds these.
    """

    def __init__(self, raw: Mapping[str, float], gated: Mapping[str, float]) -> None:
        self.raw, self.gated = dict(raw), dict(gated)

    def __getitem__(self, name: str) -> Any:
        if name not in self.gated and name in ("raw", "gated"):
            return getattr(self, name)
        return self.gated[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.gated)

    def __len__(self) -> int:
        return len(self.gated)

    def __repr__(self) -> str:
        return f"Scores(raw={self.raw}, gated={self.gated})"


@dataclass(frozen=True)
class Judgement:
    """What judges made of one item.

    Args:
        key: Everything that decides it, as a hash: item, rubric, protocol, judges, seed.
        status: "ok", "repaired" where a reply that counts had to be repaired, "unscored".
        scores: None where it is unscored.
        total: Weighted sum of the gated scores.
        problem: Why it is unscored.
        rounds: Rounds of debate.
        calls: Calls of models, those for invalid replies too.
        transcript: Every reply, in order.
        decided_by: "agreement" of the scorers, "judge", "aggregate" or "scorer".
        flags: What was unusual: "gate", "override" (the judge was not followed), flags of replies.
        judges: Specifications of the engines by role.
        score_mode: What a score is: one reply's, the mean of several, weighted by token
            probabilities. Scores of different modes do not compare.
        prompt_hash: Hash of the wording of all prompts.
        repeat: Which of several judgements of the item, from 0.
    """

    key: str
    item: Item
    status: Literal["ok", "repaired", "unscored"]
    scores: Scores | None
    total: float | None
    rubric: str
    rubric_hash: str
    protocol: Protocol
    protocol_hash: str
    prompt_hash: str
    judges: Mapping[str, str]
    score_mode: ScoreMode = "single"
    seed: int = 0
    repeat: int = 0
    problem: str | None = None
    rounds: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    decided_by: str | None = None
    flags: tuple[str, ...] = ()
    transcript: tuple[Utterance, ...] = field(default=(), repr=False)

    @property
    def id(self) -> str:
        """Id of the item."""
        return self.item.id

    def to_dict(self) -> dict[str, Any]:
        """Plain values: a row of judgements.jsonl."""
        made = {name: getattr(self, name) for name in self.__dataclass_fields__}
        made["item"] = self.item.model_dump(mode="json", exclude_defaults=True)
        made["scores"] = (
            None if self.scores is None else {"raw": self.scores.raw, "gated": self.scores.gated}
        )
        made["transcript"] = [asdict(one) for one in self.transcript]
        return {"schema": _SCHEMA, "id": self.item.id, **made}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Self:
        """The judgement of a row.

        Raises:
            DataError: It is none.
        """
        try:
            if (schema := row["schema"]) != _SCHEMA:
                raise DataError(f"A judgement has the schema {schema!r}, not {_SCHEMA}: another "
                                "version of hanol wrote it.")  # fmt: skip
            content = {name: row[name] for name in cls.__dataclass_fields__}
            content["item"] = Item(**content["item"])
            scores = content["scores"]
            content["scores"] = None if scores is None else Scores(scores["raw"], scores["gated"])
            content["flags"] = tuple(content["flags"])
            content["transcript"] = tuple(
                Utterance(**{**one, "flags": tuple(one["flags"])}) for one in content["transcript"]
            )
            return cls(**content)
        except (KeyError, TypeError) as err:
            raise DataError(f"No judgement: {err!r:.200} in a row of judgements.") from err


def read_judgements(path: str | Path) -> list[Judgement]:
    """Judgements of a run's folder, or of its judgements.jsonl.

    Raises:
        DataError: There are none, or a row is damaged; the message names the file.
    """
    path = Path(path)
    path = path / "judgements.jsonl" if path.is_dir() else path
    if not path.exists():
        raise DataError(f"There are no judgements in {str(path)!r}: name the folder of a run of "
                        "`hanol eval judge`, or a file of judgements.")  # fmt: skip
    rows = []
    for number, row in enumerate(JsonLines(path).read(), start=1):
        try:
            rows.append(Judgement.from_dict(row))
        except DataError as err:
            raise DataError(f"{str(path)!r}, line {number}: {err}") from err
    # An item whose engine failed in one run has another row of the next.
    return list({one.key or one.id: one for one in rows}.values())
