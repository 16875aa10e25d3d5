"""Many completions of a task's prompts, drawn as a decoding setting says.

Shape suffixes: R rows decoded together, V vocabulary, S prompt tokens, H hidden width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hanol.attention import CACHE_NAME
from hanol.autodeco import AutoDecoForCausalLM, Row, prompt_ids
from hanol.errors import ConfigError, DataError
from hanol.runs import Ledger
from hanol.sampling import Sampling, draw
from hanol.scoring import Verifier

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DecodingTask:
    """Problems with a verifier.

    Args:
        name: What tables and plots call it.
        prompts: Token ids, one list per problem.
        verify: Called with a prompt and the token ids of a completion; tells whether it is right.
        max_new_tokens: A completion that has no end token by then is cut.

    Raises:
        DataError: There are no prompts, or one is empty.
        ConfigError: `max_new_tokens` is below 1.
    """

    name: str
    prompts: Sequence[Sequence[int]]
    verify: Callable[[Any, Any], bool]
    max_new_tokens: int

    def __post_init__(self) -> None:
        if not self.prompts:
            raise DataError(f"The task {self.name!r} has no prompts.")
        if empty := [i for i, prompt in enumerate(self.prompts) if len(prompt) == 0]:
            raise DataError(f"Prompt {empty[0]} of the task {self.name!r} is empty.")
        if self.max_new_tokens < 1:
            raise ConfigError(f"`max_new_tokens` is {self.max_new_tokens}, but must be at least 1.")

    @classmethod
    def from_rows(
        cls,
        name: str,
        rows: Sequence[Row],
        verify: Verifier,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_new_tokens: int,
    ) -> Self:
        """Make a task of rows as they are read for training, and a named verifier.

        Prompts become token ids as in training: chats by the template, one begin token.

        Args:
            rows: Prompts or conversations, with the answers that the verifier looks at.
            verify: Called with the prompt, the completion, both as texts, and the row.

        Raises:
            DataError: Two rows have the same prompt and different answers; or as the rows raise
                it.
        """
        by_prompt: dict[tuple[int, ...], Row] = {}
        for row in rows:
            ids = tuple(prompt_ids(row, tokenizer))
            if by_prompt.setdefault(ids, row).answer != row.answer:
                raise DataError(
                    f"{row.where} has the prompt of another row, but the answer {row.answer!r} "
                    f"in the place of {by_prompt[ids].answer!r}."
                )

        def check(prompt: tuple[int, ...], completion: list[int]) -> bool:
            row = by_prompt[prompt]
            # Decoded after some of the prompt, for the spaces.
            before = list(prompt[-5:])
            skipped = len(tokenizer.decode(before, skip_special_tokens=True))
            text = tokenizer.decode(before + completion, skip_special_tokens=True)[skipped:]
            return verify(row.prompt_text(tokenizer), text, row)

        return cls(name, list(by_prompt), check, max_new_tokens)

    def cost(self, samples: "Drawn") -> Ledger:
        """What samples of all problems have cost; a prompt is computed once, greedy ones too."""
        drawn = {id(one): len(one.token_ids) for row in samples for one in row}
        read, written = sum(map(len, self.prompts)), sum(drawn.values())
        return Ledger(model_calls=len(drawn), prompt_tokens=read, generated_tokens=written)

    def check(self, samples: "Drawn") -> NDArray[np.bool_]:
        """Whether each sample is right, [problems, samples of a problem]."""
        return np.array(
            [
                [bool(self.verify(prompt, one.token_ids)) for one in row]
                for prompt, row in zip(self.prompts, samples, strict=True)
            ]
        )


@dataclass(frozen=True)
class StaticSetting:
    """One temperature and one top-p for all tokens.

    Args:
        temperature: 0 is greedy.
        top_p: In (0, 1].

    Raises:
        ConfigError: A value is out of range.
    """

    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if None in (self.temperature, self.top_p):
            raise ConfigError("A static setting needs a `temperature` and a `top_p`, not None.")
        Sampling(temperature=self.temperature, top_p=self.top_p)  # refuses them out of range


@dataclass(frozen=True)
class HeadsSetting:
    """The model's own choice at every token, of both values or of one with the other at 1.

    A top-p head alone reads the temperature 1, as it does in a model that has no other head.

    Args:
        temperature: Whether the temperature head chooses.
        top_p: Whether the top-p head chooses.
    """

    temperature: bool = True
    top_p: bool = True


Setting = StaticSetting | HeadsSetting


class DrawnCompletion(NamedTuple):
    """One sample, and what was chosen for each of its tokens."""

    token_ids: list[int]  # the end token included
    stopped: bool  # at an end token; otherwise cut by `max_new_tokens`
    temperature: NDArray[np.float32]
    top_p: NDArray[np.float32]
    nucleus_size: NDArray[np.int64]  # tokens that top-p left


Drawn = Sequence[Sequence[DrawnCompletion]]  # of each problem


def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    task: DecodingTask,
    setting: Setting,
    *,
    n: int = 1,
    seed: int = 0,
    batch_size: int = 64,
    on_progress: Progress | None = None,
) -> list[list[DrawnCompletion]]:
    """Draw `n` completions of every prompt.

    The prompt goes through the model once for all of its samples. Every sample draws from random
    numbers of its own, which follow from the seed, its problem and its place among the `n`: not
    from the batch that it was in, and they are the same under every setting, which makes
    comparisons of settings sharper. (A model whose logits change in the last bits with the batch
    can still give another token now and then.)

    Args:
        model: Any causal language model; with heads for a `HeadsSetting`.
        tokenizer: Its tokenizer, whose end token ends a completion too; None for none.
        task: Prompts and the length of completions; the verifier is not called.
        setting: How to choose temperature and top-p. Greedy completions are computed once.
        n: Completions of a prompt.
        seed: The same seed gives the same completions.
        batch_size: Rows decoded together, at most; prompts of about the same length.
        on_progress: Called with the prompts done and all prompts.

    Returns:
        For every prompt its completions.

    Raises:
        ConfigError: A value is out of range, a prompt and the new tokens do not fit into the
            model's context, or the model has no head that `setting` asks for.
    """
    if n < 1 or batch_size < 1:
        raise ConfigError(f"`n` is {n} and `batch_size` {batch_size}, but both must be at least 1.")
    prompts = [list(map(int, prompt)) for prompt in task.prompts]
    _refuse_long(model, prompts, task.max_new_tokens)
    ends = _end_tokens(model, tokenizer)
    greedy = isinstance(setting, StaticSetting) and setting.temperature == 0
    drawn = 1 if greedy else n
    done: list[list[DrawnCompletion]] = [[] for _ in prompts]
    was_training = model.training
    model.eval()
    try:
        with only(model, setting), torch.inference_mode():
            for rows in _batches(prompts, drawn, batch_size):
                samples = _decode(model, prompts, rows, task.max_new_tokens, setting, seed, ends)
                for (problem, _), completion in zip(rows, samples, strict=True):
                    done[problem].append(completion)
                if on_progress is not None:
                    on_progress(sum(len(row) == drawn for row in done), len(prompts))
    finally:
        model.train(was_training)
    return [row * n for row in done] if greedy else done


@dataclass
class TaskSampler:
    """Samples of a task under one setting after another, with one progress and one cost."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    task: DecodingTask
    seed: int
    batch_size: int
    on_progress: Progress | None
    parts: int  # settings that there will be, at most
    part: int = 0  # settings before the next one
    spent: Ledger = field(default_factory=Ledger)

    def __call__(self, setting: Setting, n: int) -> list[list[DrawnCompletion]]:
        """Draw `n` completions of every prompt; see `sample`."""
        part, self.part = self.part, self.part + 1

        def report(done: int, total: int) -> None:
            if self.on_progress is not None:
                self.on_progress(part * total + done, self.parts * total)

        drawn = sample(
            self.model, self.tokenizer, self.task, setting, n=n, seed=self.seed,
            batch_size=self.batch_size, on_progress=report,
        )  # fmt: skip
        self.spent += self.task.cost(drawn)
        return drawn


def _refuse_long(model: Any, prompts: list[list[int]], new: int) -> None:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(map(len, prompts))
    if limit is not None and longest + new > limit:
        raise ConfigError(
            f"A prompt has {longest} tokens and {new} are to follow, but the model's context is "
            f"{limit}. Shorten the prompt or lower `max_new_tokens`."
        )


@contextmanager
def only(model: PreTrainedModel, setting: Setting) -> Iterator[None]:
    """Switch off the heads that the setting does not ask for."""
    if isinstance(setting, StaticSetting):
        yield
        return
    wanted = (setting.temperature, setting.top_p)
    before = active_heads(model)
    for name, asked, has in zip(("temperature", "top-p"), wanted, before, strict=True):
        if asked and not has:
            raise ConfigError(
                f"The setting asks for a {name} head, but this {type(model).__name__} has none. "
                "Wrap it with `AutoDecoForCausalLM.from_base`, or use a `StaticSetting`."
            )
    if not isinstance(model, AutoDecoForCausalLM):
        raise ConfigError("A `HeadsSetting` without heads: use `StaticSetting()`.")
    try:
        model.config.enable_temperature_head, model.config.enable_top_p_head = wanted
        yield
    finally:
        model.config.enable_temperature_head, model.config.enable_top_p_head = before


def active_heads(model: PreTrainedModel) -> tuple[bool, bool]:
    """Whether a model chooses its temperature, and its top-p."""
    if not isinstance(model, AutoDecoForCausalLM):
        return False, False
    return bool(model.config.enable_temperature_head), bool(model.config.enable_top_p_head)


def _batches(prompts: list[list[int]], n: int, batch_size: int) -> Iterator[list[tuple[int, int]]]:
    """(problem, sample) of the rows of each batch, by the length of the prompt: little padding."""
    order = sorted(range(len(prompts)), key=lambda problem: len(prompts[problem]))
    rows = [(problem, i) for problem in order for i in range(n)]
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size]


def _decode(
    model: Any,
    prompts: list[list[int]],
    rows: list[tuple[int, int]],
    max_new_tokens: int,
    setting: Setting,
    seed: int,
    end_tokens: list[int],
) -> list[DrawnCompletion]:
    """Complete the rows of one batch."""
    device = model.device
    problems = sorted({problem for problem, _ in rows})
    prompt_R = torch.tensor([problems.index(problem) for problem, _ in rows], device=device)
    uniform_RT = torch.from_numpy(
        np.stack([np.random.default_rng([seed, *row]).random(max_new_tokens) for row in rows])
    ).to(device)
    ends = torch.tensor(end_tokens, dtype=torch.long, device=device)
    token_RT = torch.zeros(uniform_RT.shape, dtype=torch.long, device=device)
    nucleus_RT = torch.zeros_like(token_RT)
    temperature_RT = torch.zeros(uniform_RT.shape, device=device)
    top_p_RT = torch.zeros_like(temperature_RT)
    length_R = torch.full((len(rows),), max_new_tokens, device=device)
    stopped_R = torch.zeros(len(rows), dtype=torch.bool, device=device)

    live_R = torch.arange(len(rows), device=device)  # rows that are still decoded
    longest = max(len(prompts[problem]) for problem in problems)
    padding = [longest - len(prompts[problem]) for problem in problems]
    # On the left, with a token that every vocabulary has: the mask hides it.
    ids_RS = torch.tensor(
        [[0] * pad + prompts[problem] for pad, problem in zip(padding, problems, strict=True)],
        device=device,
    )
    at_S = torch.arange(longest, device=device)
    mask_RS = (at_S >= torch.tensor(padding, device=device).unsqueeze(-1)).long()
    cache: Any = None
    for t in range(max_new_tokens):
        logits_RV, temperature_R, top_p_R, cache = _next(model, ids_RS, mask_RS, cache, setting)
        if t == 0:  # from one row a prompt to one a sample
            logits_RV, ids_RS, mask_RS = logits_RV[prompt_R], ids_RS[prompt_R], mask_RS[prompt_R]
            temperature_R, top_p_R = temperature_R[prompt_R], top_p_R[prompt_R]
            if cache is not None:
                cache.reorder_cache(prompt_R)
        drawn = draw(logits_RV, temperature_R, top_p_R, uniform_RT[live_R, t])
        token_R, keep_RV = drawn.token_B, drawn.keep_BV
        token_RT[live_R, t] = token_R
        nucleus_RT[live_R, t] = logits_RV.shape[-1] if keep_RV is None else keep_RV.sum(-1)
        temperature_RT[live_R, t], top_p_RT[live_R, t] = temperature_R, top_p_R
        ids_RS = torch.cat([ids_RS, token_R.unsqueeze(-1)], dim=1)
        mask_RS = torch.cat([mask_RS, mask_RS.new_ones(len(mask_RS), 1)], dim=1)
        ended_R = torch.isin(token_R, ends)
        if ended_R.any():
            length_R[live_R[ended_R]], stopped_R[live_R[ended_R]] = t + 1, True
            [going_R] = (~ended_R).nonzero(as_tuple=True)
            if len(going_R) == 0:
                break
            live_R, ids_RS, mask_RS = live_R[going_R], ids_RS[going_R], mask_RS[going_R]
            if cache is not None:
                cache.reorder_cache(going_R)
    columns = [x.cpu() for x in (token_RT, temperature_RT, top_p_RT, nucleus_RT)]
    completions = []
    for i, (length, stopped) in enumerate(zip(length_R.tolist(), stopped_R.tolist(), strict=True)):
        # Copies: a view would keep the whole batch, to its longest row.
        token_T, *chosen = (column[i, :length].numpy().copy() for column in columns)
        completions.append(DrawnCompletion(token_T.tolist(), stopped, *chosen))
    return completions


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """End tokens of the model, and that of its tokenizer."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    of_tokenizer = getattr(tokenizer, "eos_token_id", None)
    return ends if of_tokenizer is None or of_tokenizer in ends else [*ends, of_tokenizer]


def _next(
    model: Any, ids_RS: Tensor, mask_RS: Tensor, cache: Any, setting: Setting
) -> tuple[Tensor, Tensor, Tensor, Any]:
    """Logits of the next token, [R, V], its temperature and top-p, [R], and the cache after."""
    inputs: dict[str, Any] = {"use_cache": True}
    new = slice(None) if cache is None else slice(-1, None)
    inputs["input_ids"] = ids_RS[:, new]
    if cache is not None:
        inputs[CACHE_NAME] = cache
    if not mask_RS.all():
        inputs["attention_mask"] = mask_RS
        base = model.llm if isinstance(model, AutoDecoForCausalLM) else model
        if "position_ids" in signature(base.forward).parameters:
            inputs["position_ids"] = (mask_RS.cumsum(-1) - 1).clamp_min(0)[:, new]
    if isinstance(model, AutoDecoForCausalLM):
        hidden_RTH, logits_RTV, outputs = model.features(**inputs, logits_to_keep=1)
    else:
        if "logits_to_keep" in signature(model.forward).parameters:
            inputs["logits_to_keep"] = 1
        outputs = model(**inputs)
        logits_RTV = outputs.logits
    logits_RV = logits_RTV[:, -1]
    if isinstance(setting, HeadsSetting):
        temperature_R, top_p_R = model.choose(hidden_RTH[:, -1], logits_RV)
    else:
        temperature_R = torch.full(logits_RV.shape[:1], setting.temperature, device=ids_RS.device)
        top_p_R = torch.full_like(temperature_R, setting.top_p)
    return logits_RV, temperature_R, top_p_R, getattr(outputs, CACHE_NAME, None)
