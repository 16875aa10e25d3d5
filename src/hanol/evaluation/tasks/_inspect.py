"""Tasks under inspect_ai: its models and logs for our tasks, our engines for its tasks.

Checked with inspect_ai 0.3.285. Nothing here is imported before it is called.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from hanol.engines import Capability, Choice, Completion, Engine, Message, Request, Sampling, Usage
from hanol.errors import DataError, EngineError, require
from hanol.evaluation.tasks._report import TaskReport, make_report
from hanol.evaluation.tasks._run import Answered
from hanol.evaluation.tasks._task import Ask, EvalTask, TaskItem, TaskScorer, Value
from hanol.runs import Ledger

_SCORES = {"C": True, "I": False}


def _library(name: str = "inspect_ai") -> ModuleType:
    return require(name, extra="inspect", feature="A task under inspect_ai")


class InspectEngine(Engine):
    """A model of inspect_ai as an engine.

    Args:
        model: What `inspect_ai.model.get_model` returns.
    """

    capabilities: frozenset[Capability] = frozenset()

    def __init__(self, model: Any) -> None:
        self._model, self.name = model, f"inspect:{model}"

    async def complete(self, request: Request) -> Completion:
        """The model's answer.

        Raises:
            EngineError: The model gave none.
        """
        self.check(request)
        ai = _library("inspect_ai.model")
        kinds = {
            "system": ai.ChatMessageSystem,
            "user": ai.ChatMessageUser,
            "assistant": ai.ChatMessageAssistant,
        }
        drawn = request.sampling
        config = ai.GenerateConfig(
            temperature=drawn.temperature,
            top_p=drawn.top_p,
            top_k=drawn.top_k,
            seed=drawn.seed,
            max_tokens=drawn.max_tokens,
            stop_seqs=list(drawn.stop) or None,
        )
        messages = [kinds[one.role](content=one.text) for one in request.messages]
        made = await self._model.generate(messages, config=config)
        if made.error or not made.choices:
            raise EngineError(f"{self.name!r} gave no answer: {made.error or 'no choices'}.")
        usage = made.usage
        return Completion(
            tuple(
                Choice(one.message.text, "length" if "length" in one.stop_reason
                       or "max_tokens" in one.stop_reason else "stop")
                for one in made.choices
            ),
            Usage(usage.input_tokens, usage.output_tokens) if usage else Usage(),
        )  # fmt: skip

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """An estimate: four bytes a token."""
        return sum(len(one.text.encode()) // 4 + 4 for one in messages)


def inspect_model(engine: Engine) -> Any:
    """An engine as a model of inspect_ai, for `inspect_ai.eval(..., model=...)`.

    Raises:
        MissingExtraError: inspect_ai is not installed.
    """
    ai = _library("inspect_ai.model")

    @ai.modelapi(name="hanol")
    class EngineAPI(ai.ModelAPI):  # type: ignore[name-defined]
        async def generate(
            self, input: list[Any], tools: Any, tool_choice: Any, config: Any
        ) -> Any:
            if tools:
                raise EngineError("Tools of inspect_ai are not offered to engines of hanol.")
            sampling = Sampling(
                temperature=config.temperature,
                top_p=config.top_p,
                top_k=config.top_k,
                seed=config.seed,
                max_tokens=config.max_tokens,
                stop=tuple(config.stop_seqs or ()),
            )
            messages = tuple(Message(one.role, one.text) for one in input)
            done = await engine.complete(Request(messages, sampling))
            reason = "max_tokens" if done.finish_reason == "length" else "stop"
            made = ai.ModelOutput.from_content(engine.name, done.text, stop_reason=reason)
            prompt, written = done.usage.prompt_tokens, done.usage.generated_tokens
            made.usage = ai.ModelUsage(
                input_tokens=prompt, output_tokens=written, total_tokens=prompt + written
            )
            return made

    return ai.get_model(f"hanol/{engine.name}", memoize=False)


def inspect_task(task: EvalTask, *, sampling: Sampling | None = None) -> Any:
    """A task of ours as a `Task` of inspect_ai: its items, our solver on its model, our scorer.

    Args:
        task: The task.
        sampling: How solvers draw answers; greedy by default.

    Raises:
        MissingExtraError: inspect_ai is not installed.

    Example:
        >>> inspect_ai.eval(inspect_task(open_task("sums")), model=...)  # doctest: +SKIP
    """
    ai = _library()
    from_scorer, from_solver = _library("inspect_ai.scorer"), _library("inspect_ai.solver")
    dataset, get_model = _library("inspect_ai.dataset"), _library("inspect_ai.model").get_model
    items = {item.id: item for item in task.items}
    drawn = Sampling(temperature=0.0, seed=0) if sampling is None else sampling

    @from_solver.solver(name="hanol_solver")
    def solver() -> Any:
        async def solve(state: Any, generate: Any) -> Any:
            ask = Ask(InspectEngine(get_model()), drawn)
            text = await task.solver(items[state.sample_id], ask)
            state.output = _library("inspect_ai.model").ModelOutput.from_content(
                str(state.model), text, stop_reason="max_tokens" if ask.is_cut else "stop"
            )
            state.messages.append(state.output.message)
            return state

        return solve

    @from_scorer.scorer(metrics=[from_scorer.mean(), from_scorer.stderr()], name="hanol_scorer")
    def scorer() -> Any:
        async def score(state: Any, target: Any) -> Any:
            found = await task.scorer(items[state.sample_id], state.output.completion)
            return _score(found, state.output.completion)

        return score

    samples = [
        dataset.Sample(
            input=item.question,
            target=list(item.answers) or "",
            id=item.id,
            metadata={**item.extra, "group": item.group, "source": item.source,
                      "verifier": item.verifier},
        )
        for item in task.items
    ]  # fmt: skip
    return ai.Task(
        dataset=dataset.MemoryDataset(samples, name=task.name),
        solver=solver(),
        scorer=scorer(),
        name=f"hanol_{''.join(c if c.isalnum() else '_' for c in task.name)}"[:60],
        metadata={"task": task.name, "task_hash": task.hash, "scorer": task.scorer.name},
    )


def _score(value: Value, text: str) -> Any:
    Score = _library("inspect_ai.scorer").Score
    if value is None:  # NaN is its mark of a sample without a score
        return Score(value=float("nan"), answer=text, reason="no verdict")
    if isinstance(value, bool):
        return Score(value="C" if value else "I", answer=text)
    return Score(value=value, answer=text)


class InspectLog(NamedTuple):
    """A log of inspect_ai, read.

    Args:
        task: Its items; they are scored as the log says.
        answers: What was answered, with scores.
        report: Scores with intervals.
    """

    task: EvalTask
    answers: list[Answered]
    report: TaskReport


def read_inspect_log(path: str | Path, *, scorer: str | None = None) -> InspectLog:
    """Read a log of inspect_ai (.eval or .json), whoever wrote it; no model is asked.

    Args:
        path: The log.
        scorer: Name of the scorer whose scores are taken; None takes the first.

    Raises:
        DataError: It is no log, has no samples, or no such scorer.
        MissingExtraError: inspect_ai is not installed.
    """
    ai = _library("inspect_ai.log")
    try:
        log = ai.read_eval_log(str(path))
    except Exception as err:  # whatever its readers raise
        raise DataError(f"{str(path)!r} is no log of inspect_ai: {err}") from err
    if not log.samples:
        raise DataError(f"{str(path)!r} has no samples.")
    items: dict[str, TaskItem] = {}
    answers = []
    for sample in log.samples:
        item = items.setdefault(str(sample.id), _item(sample))
        value, name = _value(sample.scores or {}, scorer, path)
        problem = sample.error.message if sample.error else ""
        text = None if sample.error else sample.output.completion
        cut = bool(sample.output.choices) and sample.output.stop_reason == "max_tokens"
        used = sum((_ledger(one) for one in sample.model_usage.values()), Ledger())
        answers.append(Answered(item, sample.epoch, text, problem, cut, used, False, value))
    own = TaskScorer(scorer or name or "none", lambda item, text: None)
    plan = ", ".join(step.solver for step in log.plan.steps) or "unknown"
    task = EvalTask(log.eval.task, list(items.values()), _Logged(plan), own)
    sampling = log.plan.config.model_dump(exclude_none=True)
    return InspectLog(task, answers, make_report(task, log.eval.model, sampling, answers))


class _Logged:
    """The solver of a log, which cannot be called."""

    calls = 1

    def __init__(self, name: str) -> None:
        self.name = name

    async def __call__(self, item: TaskItem, ask: Ask) -> str:
        raise EngineError("A log has answers alone: open its task by name to ask a model.")


def _item(sample: Any) -> TaskItem:
    asked = sample.input
    if not isinstance(asked, str):
        asked = next((one.text for one in reversed(asked) if one.role == "user"), "")
    targets = [sample.target] if isinstance(sample.target, str) else sample.target
    meta = dict(sample.metadata)
    return TaskItem(
        str(sample.id),
        asked,
        tuple(one for one in targets if one),
        meta.pop("verifier", None),
        str(meta.pop("group", "") or ""),
        meta.pop("source", None),
        meta,
    )


def _value(scores: dict[str, Any], name: str | None, path: str | Path) -> tuple[Value, str | None]:
    if name is not None and scores and name not in scores:
        known = ", ".join(scores)
        raise DataError(f"{str(path)!r} has no scorer {name!r}; it has {known}.")
    if not scores:
        return None, name
    name = name or next(iter(scores))
    value = scores[name].value
    if value in _SCORES:
        return _SCORES[value], name
    if isinstance(value, bool) or not isinstance(value, int | float):
        return (value if isinstance(value, bool) else None), name
    return (None if value != value else float(value)), name


def _ledger(usage: Any) -> Ledger:
    return Ledger(
        model_calls=1,
        prompt_tokens=usage.input_tokens + (usage.input_tokens_cache_read or 0),
        cached_tokens=usage.input_tokens_cache_read or 0,
        generated_tokens=usage.output_tokens,
    )


def write_inspect_log(
    task: EvalTask, report: TaskReport, answers: Sequence[Answered], path: str | Path
) -> None:
    """Write a run of a task as a log that `inspect view` shows.

    Args:
        task: The task.
        report: What `run_task` returned.
        answers: What it called `on_answer` with.
        path: File to write, ending in .eval or .json.

    Raises:
        MissingExtraError: inspect_ai is not installed.
    """
    ai, of_model = _library("inspect_ai.log"), _library("inspect_ai.model")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    samples = [_sample(one, report.model) for one in sorted(answers, key=lambda one: one.run)]
    used = of_model.ModelUsage(
        input_tokens=int(report.spent["prompt_tokens"]),
        output_tokens=int(report.spent["generated_tokens"]),
        total_tokens=int(report.spent["prompt_tokens"] + report.spent["generated_tokens"]),
    )
    metrics = {"mean": ai.EvalMetric(name="mean", value=report.score.value)}
    known = {name: report.sampling.get(name) for name in
             ("temperature", "top_p", "top_k", "seed", "max_tokens")}  # fmt: skip
    log = ai.EvalLog(
        status="success",
        eval=ai.EvalSpec(
            created=now,
            task=task.name,
            dataset=ai.EvalDataset(
                name=task.name, samples=len(task.items), sample_ids=[one.id for one in task.items]
            ),
            model=report.model,
            config=ai.EvalConfig(epochs=len(report.runs)),
            metadata={"task_hash": report.task_hash, "scorer": report.scorer},
        ),
        plan=ai.EvalPlan(
            steps=[ai.EvalPlanStep(solver=task.solver.name, params={})],
            config=of_model.GenerateConfig(**known),
        ),
        results=ai.EvalResults(
            total_samples=report.items * len(report.runs),
            completed_samples=sum(one.text is not None for one in answers),
            scores=[
                ai.EvalScore(
                    name=task.scorer.name,
                    scorer=task.scorer.name,
                    scored_samples=report.scored,
                    unscored_samples=report.unscored,
                    metrics=metrics,
                )
            ],
        ),
        stats=ai.EvalStats(started_at=now, completed_at=now, model_usage={report.model: used}),
        samples=[sample.model_copy(update={"scores": {task.scorer.name: sample.scores["hanol"]}})
                 for sample in samples],
    )  # fmt: skip
    ai.write_eval_log(log, str(path))


def _sample(answered: Answered, model: str) -> Any:
    ai, of_model = _library("inspect_ai.log"), _library("inspect_ai.model")
    item, text = answered.item, answered.text or ""
    reason = "max_tokens" if answered.is_cut else "stop"
    output = of_model.ModelOutput.from_content(model, text, stop_reason=reason)
    error = None
    if answered.text is None:
        error = ai.EvalError(message=answered.problem, traceback="", traceback_ansi="")
    used = of_model.ModelUsage(
        input_tokens=answered.spent.prompt_tokens,
        output_tokens=answered.spent.generated_tokens,
        total_tokens=answered.spent.tokens,
    )
    return ai.EvalSample(
        id=item.id,
        epoch=answered.run,
        input=item.question,
        target=list(item.answers),
        messages=[of_model.ChatMessageUser(content=item.question), output.message],
        output=output,
        scores={"hanol": _score(answered.value, text)},
        metadata={**item.extra, "group": item.group, "source": item.source,
                  "verifier": item.verifier},
        model_usage={model: used},
        error=error,
    )  # fmt: skip
