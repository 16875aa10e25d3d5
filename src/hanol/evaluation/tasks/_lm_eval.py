"""Tasks under lm-evaluation-harness: our engines as its models, our tasks as its tasks.

Checked with lm_eval 0.4.13. Nothing here is imported before it is called.
"""

from collections.abc import Awaitable, Callable, Sequence
from types import ModuleType
from typing import Any, TypeVar

from hanol.engines import Engine, Message, Request, Sampling
from hanol.errors import EngineError, require
from hanol.evaluation.tasks._task import EvalTask, TaskItem, Value
from hanol.runs import gather, synchronous

T = TypeVar("T")
_MAX_TOKENS = 256  # of an answer, where a task names no limit


def _library(name: str = "lm_eval") -> ModuleType:
    return require(name, extra="lm-eval", feature="A task under lm-evaluation-harness")


class _Conversation(str):
    """A rendered chat history; the harness handles it as text, the engine gets its messages."""

    messages: tuple[Message, ...] = ()


def lm_eval_model(engine: Engine, *, concurrency: int = 16) -> Any:
    """An engine as a model of lm-evaluation-harness, for `lm_eval.simple_evaluate(model=...)`.

    Generation works on every engine: a context is one message of the user's, or with
    `apply_chat_template=True` the conversation itself. Log-likelihoods need an engine that scores
    and takes token ids (a checkpoint in this process).

    Args:
        engine: The engine; it is not closed.
        concurrency: Requests at once.

    Raises:
        MissingExtraError: lm_eval is not installed.
    """
    base, utils = _library("lm_eval.api.model").LM, _library("lm_eval.utils")

    class EngineLM(base):  # type: ignore[valid-type,misc]
        tokenizer_name = engine.name

        def loglikelihood(self, requests: list[Any], **options: Any) -> list[tuple[float, bool]]:
            return _all(_likelihood, [request.args for request in requests])

        def loglikelihood_rolling(self, requests: list[Any], **options: Any) -> list[float]:
            return _all(_rolling, [request.args[0] for request in requests])

        def generate_until(self, requests: list[Any], **options: Any) -> list[str]:
            return _all(_generate, [request.args for request in requests])

        def apply_chat_template(
            self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
        ) -> str:
            text = _Conversation("\n\n".join(one["content"] for one in chat_history))
            text.messages = tuple(Message(one["role"], one["content"]) for one in chat_history)  # type: ignore[arg-type]
            return text

    def _all(work: Callable[[Any], Awaitable[T]], jobs: Sequence[Any]) -> list[T]:
        return synchronous(gather)(work, jobs, concurrency=concurrency)

    async def _generate(job: tuple[str, dict[str, Any]]) -> str:
        context, options = job
        until = options.get("until") or []
        is_drawn = bool(options.get("do_sample")) and options.get("temperature") != 0
        sampling = Sampling(
            temperature=options.get("temperature", 1.0) if is_drawn else 0.0,
            top_p=options.get("top_p") if is_drawn else None,
            seed=0,
            stop=tuple([until] if isinstance(until, str) else until),
            max_tokens=options.get("max_gen_toks", _MAX_TOKENS),
        )
        messages = getattr(context, "messages", None) or (Message("user", context),)
        return (await engine.complete(Request(messages, sampling))).text

    async def _likelihood(job: tuple[str, str]) -> tuple[float, bool]:
        context, continuation = job
        # Spaces at the end of a context belong to the tokens of what follows.
        bare = context.rstrip()
        continuation = context[len(bare) :] + continuation
        whole, prompt = engine.encode(bare + continuation), engine.encode(bare)
        ids = whole[len(prompt) :]
        if not prompt:  # nothing to condition on: the first token is not counted
            prompt, ids = whole[:1], whole[1:]
        return await _of_ids(prompt, ids)

    async def _of_ids(prompt: tuple[int, ...], ids: tuple[int, ...]) -> tuple[float, bool]:
        if not prompt or not ids:
            raise EngineError("A text of fewer than two tokens has no likelihood to compute.")
        request = Request(prompt_ids=prompt)
        scored = (await engine.score(request, [ids]))[0]
        greedy = Sampling(temperature=0.0, max_tokens=len(ids))
        # One of two tokens below a half may be the likeliest: then only greedy decoding tells.
        done = await engine.complete(Request(prompt_ids=prompt, sampling=greedy))
        return scored.logprob, done.ids is not None and done.ids[: len(ids)] == tuple(ids)

    async def _rolling(text: str) -> float:
        ids = list(engine.encode(text))
        if len(ids) < 2:
            raise EngineError("A text of fewer than two tokens has no likelihood to compute.")
        window = engine.context_window or len(ids)
        total = 0.0
        pairs = utils.get_rolling_token_windows(ids[1:], ids[0], window - 1, 1)
        for prompt, following in map(utils.make_disjoint_window, pairs):
            request = Request(prompt_ids=tuple(prompt))
            total += (await engine.score(request, [tuple(following)]))[0].logprob
        return total

    return EngineLM()


def lm_eval_task(task: EvalTask) -> Any:
    """A task of ours as a task of lm-evaluation-harness: its questions, our scorer.

    The harness asks by itself, once an item and greedily: of solvers it takes "generate".

    Raises:
        EngineError: The task has another solver.
        MissingExtraError: lm_eval is not installed.

    Example:
        >>> lm_eval.simple_evaluate(
        ...     lm_eval_model(engine), tasks=[lm_eval_task(open_task("sums"))]
        ... )  # doctest: +SKIP
    """
    if task.solver.name != "generate":
        raise EngineError(
            f"lm-evaluation-harness asks by itself and cannot use the solver {task.solver.name!r}: "
            "take solver='generate'."
        )
    api, datasets = _library("lm_eval.api.task"), require(
        "datasets", extra="train", feature="A task under lm-evaluation-harness"
    )  # fmt: skip
    items = {item.id: item for item in task.items}

    @synchronous
    async def scored(item: TaskItem, answer: str) -> Value:
        return await task.scorer(item, answer)

    def made(**_: Any) -> Any:
        rows = [{"id": item.id, "question": item.question, "answer": item.answer or ""}
                for item in task.items]  # fmt: skip
        return {"test": datasets.Dataset.from_list(rows)}

    def results(row: dict[str, Any], answers: Sequence[str]) -> dict[str, float]:
        value = scored(items[row["id"]], answers[0])
        return {"score": float("nan") if value is None else float(value)}

    return api.ConfigurableTask(
        config={
            "task": f"hanol_{task.name}",
            "custom_dataset": made,
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": "{{question}}",
            "doc_to_target": "{{answer}}",
            "process_results": results,
            "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": 1024},
            "metric_list": [
                {"metric": "score", "aggregation": _mean_of_known, "higher_is_better": True}
            ],
            "num_fewshot": 0,
            "metadata": {"version": task.hash[:12]},
        }
    )


def _mean_of_known(values: Sequence[float]) -> float:
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")
