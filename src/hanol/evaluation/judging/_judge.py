"""`judge`: items before judges, resumed by content, each in a row of an append-only file."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hanol.engines import Engine
from hanol.errors import CapabilityError, ConfigError, DataError
from hanol.evaluation.judging._item import Item, SourceResolver, check_items
from hanol.evaluation.judging._ranking import check_alike
from hanol.evaluation.judging._record import Judgement, Protocol, Scores
from hanol.evaluation.judging._rubric import Rubric
from hanol.evaluation.judging._settings import JudgeLimits, JudgeSettings, digest
from hanol.evaluation.judging.agents._calls import Calls, StoppedError, UnscoredError
from hanol.evaluation.judging.agents._oracles import OfflineJudge
from hanol.evaluation.judging.agents._prompts import PROMPT_HASH
from hanol.evaluation.judging.agents._protocols import PROTOCOLS, Case, Decision, Team
from hanol.files import read_json, replace_json
from hanol.rows import JsonLines
from hanol.runs import Ledger, alone, gather, synchronous

Engines = Engine | Sequence[Engine] | Mapping[str, Engine]
_ROLES = {"a": "A", "scorera": "A", "scorer1": "A", "b": "B", "scorerb": "B", "scorer2": "B",
          "scorer": "scorer", "scorers": "scorer", "judge": "judge", "j": "judge"}  # fmt: skip


@dataclass(frozen=True)
class JudgePlan:
    """What a run would cost at least and at most, before any call.

    Args:
        items: Judgements that would be made.
        done: Those that the run's folder has.
        calls: Fewest and most calls, were every reply valid.
        prompt_tokens: For the same.
        generated_tokens: Most.
    """

    items: int
    done: int
    calls: tuple[int, int]
    prompt_tokens: tuple[int, int]
    generated_tokens: int
    cost: float


class JudgeRun:
    """Judges items by a rubric; `judge` is its short form.

    Args:
        rubric: One for all items; of a rubric with tasks, each item names its own.
        engines: One for all roles; or scorers and then the judge, in order; or by role: "A", "B"
            (or "scorer"), "judge". Of a panel, its members.
        settings: How judges work.
        limits: What the run may do at a time and spend.
        run: Folder whose judgements.jsonl and calls.jsonl grow; None keeps nothing.
        source_resolver: Finds the source text of an item that has a pointer to it.

    Attributes:
        spent: What this process's calls have cost.
        reused: Judgements that the folder had.

    Raises:
        ConfigError: The engines do not fit the protocol.
    """

    def __init__(
        self,
        rubric: Rubric,
        engines: Engines,
        *,
        settings: JudgeSettings | None = None,
        limits: JudgeLimits | None = None,
        run: str | Path | None = None,
        source_resolver: SourceResolver | None = None,
    ) -> None:
        self.rubric, self.settings = rubric, settings or JudgeSettings()
        self.limits = limits or JudgeLimits()
        self.team, self.judges = _team(engines, self.settings)
        self._folder = None if run is None else Path(run)
        self._resolver = source_resolver
        self.spent, self.reused = Ledger(), 0
        if self.settings.score_mode == "token-weighted":
            for engine in self.team.scorers:
                if "logprobs" not in engine.capabilities:
                    raise CapabilityError(
                        f"{engine.name!r} gives no log-probabilities, which `score_mode` "
                        "'token-weighted' needs: use 'sampled-mean', or another engine."
                    )

    async def judge(
        self, items: Iterable[Item], on_judgement: Callable[[Judgement], None] | None = None
    ) -> None:
        """Judge items, and give each judgement to `on_judgement` as soon as it is there.

        Raises:
            DataError: Two items have one id, or no source text (`MissingSourceError`).
            UnknownNameError: An item's task is none of the rubric's.
            EngineError: No call was ever answered.
            RunError: Another process writes the folder.
        """
        tell = on_judgement or (lambda _: None)
        pairs = self._checked(items)
        with ExitStack() as at_end:
            if self._folder is not None:
                at_end.enter_context(alone(self._folder))
            wanted = {key: (pair, repeat) for pair, repeat, key in self._cases(pairs)}
            log = None if self._folder is None else JsonLines(self._folder / "judgements.jsonl")
            for row in log.read() if log else ():
                if "no_answer" in row.get("flags", ()):
                    continue  # an engine failed: it is asked again
                if wanted.pop(str(row.get("key")), None) is not None:
                    self.reused += 1
                    tell(Judgement.from_dict(row))
            path = None if self._folder is None else self._folder / "calls.jsonl"
            if (
                self._folder is not None
                and not (kept := self._folder / _kept(self.rubric.hash)).exists()
            ):
                replace_json(kept, self.rubric.model_dump(mode="json"))
            calls = Calls(self.limits, path, set(wanted))

            async def one(key: str) -> None:
                judgement, is_final = await self._decide(key, *wanted.pop(key), calls)
                calls.forget(key)
                if log is not None and is_final:
                    log.append(judgement.to_dict())
                tell(judgement)

            try:
                await gather(one, list(wanted), concurrency=self.limits.concurrency)
            finally:
                self.spent += calls.spent

    def estimate(self, items: Iterable[Item]) -> JudgePlan:
        """What judging these items would cost; nothing is called.

        Tokens are counted by the engines, of prompts whose replies take half of `max_tokens`.

        Raises:
            DataError, UnknownNameError: As `judge`.
        """
        done: set[str] = set()
        if self._folder is not None:
            rows = JsonLines(self._folder / "judgements.jsonl").read()
            done = {str(row.get("key")) for row in rows if "no_answer" not in row.get("flags", ())}
        cases = list(self._cases(self._checked(items)))
        low = high = prompt_low = prompt_high = 0
        calls = Calls(self.limits, None, set())
        for (_, item), repeat, key in cases:
            if key in done:
                continue
            case = self._case(key, item, repeat, calls)
            fewest, most = _num_calls(self.settings, len(self.rubric.criteria))
            length = self.team.judge.count_tokens(case.begin(self.team.judge, judge=True))
            low, high = low + fewest, high + most
            prompt_low += fewest * length
            # A conversation grows with each reply that it holds.
            prompt_high += most * (length + most * self.settings.max_tokens // 4)
        written = high * self.settings.max_tokens
        found = sum(key in done for _, _, key in cases)
        return JudgePlan(len(cases) - found, found, (low, high), (prompt_low, prompt_high), written,
                        self.limits.cost(prompt_high, written))  # fmt: skip

    def _checked(self, items: Iterable[Item]) -> list[tuple[Item, Item]]:
        """The items as they are kept, and as judges read them: with their source texts."""
        items = list(items)
        check_items(items)
        is_read = any(
            not isinstance(one, OfflineJudge) for one in (*self.team.scorers, self.team.judge)
        )
        made = []
        for item in items:
            rubric = self.rubric.for_task(item.task, item.id)
            needs = "source" in rubric.reads or (item.source is None and item.source_ref)
            made.append((item, item.with_source(self._resolver) if is_read and needs else item))
        return made

    def _cases(
        self, pairs: Sequence[tuple[Item, Item]]
    ) -> Iterator[tuple[tuple[Item, Item], int, str]]:
        settings = self.settings
        common = [self.rubric.hash, settings.hash, PROMPT_HASH, self.judges, settings.seed]
        for pair in pairs:
            for repeat in range(settings.repeat):
                yield pair, repeat, digest(*common, pair[1].hash, repeat)[:32]

    def _case(self, key: str, item: Item, repeat: int, calls: Calls) -> Case:
        rubric = self.rubric.for_task(item.task, item.id)
        return Case(key, item, rubric, self.settings, self.team, calls, repeat)

    async def _decide(
        self, key: str, pair: tuple[Item, Item], repeat: int, calls: Calls
    ) -> tuple[Judgement, bool]:
        """The judgement of an item, and whether it is final: a limit leaves it to the next run."""
        item, read = pair
        case = self._case(key, read, repeat, calls)
        decision: Decision | None = None
        problem, is_final, lost = None, True, False
        try:
            decision = await PROTOCOLS[self.settings.protocol](case)
        except UnscoredError as err:
            problem, lost = str(err), err.unanswered
        except StoppedError as err:
            problem, is_final = str(err), False
        # Not as they came: equal runs are equal byte by byte.
        transcript = sorted(
            case.transcript, key=lambda one: (one.round, one.role == "judge", one.role, one.attempt)
        )
        flags = {flag for said in transcript for flag in said.flags} | (
            {"no_answer"} if lost else set()
        )
        scores = total = None
        status = "unscored"
        if decision is not None:
            raw = decision.scores
            gated = case.rubric.gated(raw, item.candidate) if self.settings.gates else raw
            scores, total = Scores(raw, gated), case.rubric.total(gated)
            flags |= {*decision.flags, *(["gate"] if gated != raw else [])}
            repaired = any(one.status == "repaired" for one in transcript)
            status = "repaired" if repaired else "ok"
        return Judgement(
            key=key, item=item, status=status, scores=scores, total=total,  # type: ignore[arg-type]
            rubric=self.rubric.id, rubric_hash=self.rubric.hash, protocol=self.settings.protocol,
            protocol_hash=self.settings.hash, prompt_hash=PROMPT_HASH, judges=self.judges,
            score_mode=self.settings.score_mode, seed=self.settings.seed, repeat=repeat,
            problem=problem, rounds=decision.rounds if decision else 0, calls=len(transcript),
            prompt_tokens=case.prompt_tokens, generated_tokens=case.generated_tokens,
            decided_by=decision.decided_by if decision else None, flags=tuple(sorted(flags)),
            transcript=tuple(transcript),
        ), is_final  # fmt: skip


def stored_rubric(run: str | Path, judgements: Sequence[Judgement]) -> Rubric:
    """The rubric of a run, as its folder keeps it.

    Raises:
        DataError: The judgements are by several, or the folder lacks it.
    """
    check_alike(judgements)
    run = Path(run)
    path = (run if run.is_dir() else run.parent) / _kept(judgements[0].rubric_hash)
    try:
        return Rubric(**read_json(path))
    except (OSError, ValueError, TypeError) as err:
        raise DataError(
            f"The rubric of the run cannot be read ({err}): name it with --suite."
        ) from err


def _kept(hash_: str) -> str:
    return f"rubric-{hash_[:12]}.json"


async def ajudge(
    items: Iterable[Item],
    rubric: Rubric,
    engines: Engines,
    *,
    protocol: Protocol = "paper",
    max_rounds: int = 4,
    run: str | Path | None = None,
    source_resolver: SourceResolver | None = None,
    **options: Any,
) -> list[Judgement]:
    """Judge items by a rubric.

    An item whose judges give no valid reply, or do not answer, is "unscored" and stops nothing.

    Args:
        items: What is judged; ids must be unique.
        rubric: What by.
        engines: One for all roles; scorers and then the judge; or by role. See `JudgeRun`.
        protocol: Who speaks when; see `JudgeSettings`.
        max_rounds: Rounds of a debate, at most.
        run: Folder of the run: what it has is not judged again. None keeps nothing.
        source_resolver: Finds the source text of an item that has a pointer to it.
        options: Other fields of `JudgeSettings` and `JudgeLimits`.

    Returns:
        `repeat` judgements of each item, in the order of the items.

    Raises:
        ConfigError: An option is unknown or out of range, or the engines do not fit the protocol.
        DataError: Two items have one id, or one has no source text (`MissingSourceError`).
        UnknownNameError: An item's task is none of the rubric's.
        EngineError: No call was ever answered.

    Example:
        >>> from hanol.engines import ScriptedEngine
        >>> said = '{"judge": "yes", "sp": 2, "g_1": 2, "g_2": 1}'
        >>> item = Item(id="1", task="idiom", source="马马虎虎", candidate="So so.")
        >>> one, = judge([item], Rubric.load("diting"), ScriptedEngine(lambda _: said))
        >>> one.status, one.total, one.calls
        ('ok', 5.0, 3)
    """
    names = {one.name for one in fields(JudgeLimits)}
    limits = JudgeLimits(**{name: options.pop(name) for name in names & set(options)})
    settings = JudgeSettings(protocol=protocol, max_rounds=max_rounds, **options)
    judging = JudgeRun(rubric, engines, settings=settings, limits=limits, run=run,
                       source_resolver=source_resolver)  # fmt: skip
    items = list(items)
    found: dict[tuple[str, int], Judgement] = {}
    await judging.judge(items, lambda one: found.update({(one.id, one.repeat): one}))
    return [found[item.id, repeat] for item in items for repeat in range(settings.repeat)]


judge = synchronous(ajudge)


def _team(engines: Engines, settings: JudgeSettings) -> tuple[Team, dict[str, str]]:
    """The engines by role, and their names."""
    protocol = settings.protocol
    wanted = {"paper": 2, "official": 2, "single": 1}.get(protocol, 0)  # 0: any number
    if isinstance(engines, Mapping):
        by_role: dict[str, Engine] = {}
        for name, engine in engines.items():
            plain = str(name).casefold().replace("_", "").replace(" ", "")
            if plain not in _ROLES:
                raise ConfigError(
                    f"No role of a judge is named {name!r}. Known: A, B, scorer, judge."
                )
            by_role[_ROLES[plain]] = engine
        scorer = by_role.get("scorer") or by_role.get("A") or by_role.get("judge")
        if scorer is None:
            raise ConfigError("`engines` names no scorer: give A and B, or scorer.")
        pair = (by_role.get("A", scorer), by_role.get("B", scorer))
        members = pair if wanted == 2 or by_role.keys() >= {"A", "B"} else (scorer,)
        given = [*members[: wanted or None], by_role.get("judge", scorer)]
    elif isinstance(engines, Sequence):
        given = list(engines)
    else:
        given = [engines]
    if not given:
        raise ConfigError("`engines` is empty: give at least one engine.")
    if protocol == "panel":
        if isinstance(engines, Mapping):
            given = given[:-1]
        scorers = given * settings.members if len(given) == 1 else given
        names = sorted(one.name for one in scorers)
        return Team(tuple(scorers), scorers[0]), {f"member {n}": x for n, x in enumerate(names, 1)}
    if wanted and len(given) > wanted + 1:
        raise ConfigError(
            f"`engines` has {len(given)} engines, but the protocol {protocol!r} takes at most "
            f"{wanted + 1}: scorers, then the judge."
        )
    *scorers, judge_ = given if len(given) > 1 else given * 2
    if protocol == "single":
        return Team((given[0],), given[0]), {"scorer": given[0].name}
    if wanted and len(scorers) < wanted:
        scorers = scorers * wanted
    labels = ["A", "B"] if wanted else [f"scorer {n}" for n in range(1, len(scorers) + 1)]
    names_by_role = {label: one.name for label, one in zip(labels, scorers, strict=True)}
    return Team(tuple(scorers), judge_), {**names_by_role, "judge": judge_.name}


def _num_calls(settings: JudgeSettings, criteria: int) -> tuple[int, int]:
    """Fewest and most calls for one item whose replies are all valid."""
    rounds = settings.max_rounds
    if settings.protocol == "single":
        n = settings.samples if settings.score_mode == "sampled-mean" else 1
        return n, n
    if settings.protocol == "panel":
        return settings.members, settings.members
    if settings.protocol == "roles":
        return criteria + 1, (criteria + 1) * rounds
    most = 3 * rounds + (settings.protocol == "official")
    return (2 if settings.judge_optional and settings.protocol == "paper" else 3), most
