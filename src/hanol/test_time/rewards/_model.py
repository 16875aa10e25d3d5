"""Process reward models: how likely each step of a solution leads to the right answer."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file

from hanol import models
from hanol.errors import CheckpointError, ConfigError, DataError
from hanol.files import read_json
from hanol.test_time.rewards._formats import FORMATS, StepFormat, StepInputs

CONFIG = "prm_config.json"
_MAKERS = {"shepherd": "math-shepherd", "rlhflow": "conversation", "skywork": "skywork"}
_CLASSES = {"Qwen2ForProcessRewardModel": "qwen-math", "Qwen2ForPrmModel": "skywork"}


class ProcessRewardModel:
    """Scores steps of solutions, in one of six formats.

    A score is from 0 to 1: with a model that was trained on soft Monte-Carlo labels, the
    probability that the policy which made the labels ends with the right answer from there.

    Args:
        model: The model, in evaluation mode.
        tokenizer: Its tokenizer.
        format: Name of its format; see `from_pretrained`.
        separator: What follows each step; None is the format's own.
        aggregation: How the makers turn the scores of steps into one of a solution, for
            `hanol.scoring.step_score`: "last", "min", "prod" or "mean".
        batch_tokens: Tokens that go through the model together, padding included.

    Attributes:
        tokens_scored: Tokens that went through the model so far.
        parameters: Weights that a token meets.

    Raises:
        CheckpointError: The tokenizer lacks the separator of the format.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        format: str = "native",
        separator: str | None = None,
        aggregation: str = "last",
        batch_tokens: int = 8_192,
    ) -> None:
        if format not in FORMATS:
            raise ConfigError(
                f"No format of process reward models is named {format!r}: give one of "
                f"{', '.join(FORMATS)}."
            )
        self.model, self.tokenizer, self.aggregation = model, tokenizer, aggregation
        self.format: StepFormat = FORMATS[format](tokenizer, separator)
        self.batch_tokens, self.tokens_scored = batch_tokens, 0
        self.parameters = model.num_parameters(exclude_embeddings=True)

    @classmethod
    def from_pretrained(
        cls,
        spec: str | Path,
        *,
        format: str | None = None,
        dtype: torch.dtype | None = None,
        device: str = "cpu",
        revision: str | None = None,
    ) -> Self:
        """Load a process reward model.

        Args:
            spec: Folder, hub id, or name of a pulled model.
            format: "native" (`*ForTokenClassification` with one label, what `hanol train` makes),
                "token-classification" (two labels, as HuggingFaceH4's), "math-shepherd",
                "conversation" (RLHFlow's), "skywork" or "qwen-math"; None reads it from
                `prm_config.json`, the configuration or the name.
            dtype: Type of the parameters; None is float32 on CPU, else what the checkpoint has.
            device: Where the model goes.
            revision: Commit or branch of a hub id.

        Raises:
            CheckpointError: It cannot be loaded, is in none of these formats, or its tokenizer
                lacks what the format needs.

        Example:
            >>> prm = ProcessRewardModel.from_pretrained("runs/prm/final")  # doctest: +SKIP
            >>> prm.score("3 + 4 * 2 = ?", ["4 * 2 = 8", "3 + 8 = 12"])  # doctest: +SKIP
            [0.97, 0.04]
        """
        stored = _stored(spec, revision)
        config = models.load_config(spec, revision=revision)
        tokenizer = models.load_tokenizer(spec, revision=revision)
        format = format or stored.get("format") or _format_of(spec, config, tokenizer)
        if format not in FORMATS:
            raise CheckpointError(
                f"The {CONFIG} of {str(spec)!r} names the format {format!r}, but known are "
                f"{', '.join(FORMATS)}."
            )
        kind = FORMATS[format]
        mapping = {} if kind.key_mapping is None else {"key_mapping": kind.key_mapping}
        model = models.load_model(
            spec, dtype=dtype, device=device, revision=revision, model_class=kind.model_class,
            **mapping,
        )  # fmt: skip
        return cls(
            model,
            tokenizer,
            format=format,
            separator=stored.get("separator"),
            aggregation=stored.get("aggregation", "last"),
        )

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write a checkpoint in the same format, with `prm_config.json`."""
        with models.checkpoint_folder(folder) as part, models.no_progress_bars():
            self.model.save_pretrained(part)
            self.tokenizer.save_pretrained(part)
            (part / CONFIG).write_text(json.dumps(self.config(), indent=2) + "\n", "utf-8")
        return Path(folder)

    def config(self) -> dict[str, str]:
        """The content of `prm_config.json`."""
        return {
            "format": self.format.name,
            "separator": self.format.separator,
            "aggregation": self.aggregation,
        }

    def score(self, problem: str, steps: Sequence[str]) -> list[float]:
        """How likely each step leads to the right answer, in [0, 1].

        Args:
            problem: The problem, without a chat template.
            steps: Steps of one solution in order, without separators; each is judged by what
                stands before it.

        Raises:
            DataError: They do not fit into the model's context, or a score is not a number.
        """
        (scores,) = self.score_batch([(problem, steps)])
        return scores

    def score_batch(self, pairs: Sequence[tuple[str, Sequence[str]]]) -> list[list[float]]:
        """`score` of many problems with their steps, computed together."""
        inputs = [self.encode(problem, steps) for problem, steps in pairs]
        scores: list[list[float]] = [[] for _ in inputs]
        for batch in self._batches([one.input_ids for one in inputs]):
            rows = [inputs[i] for i in batch]
            with torch.inference_mode():
                found = self.step_logits(rows).sigmoid().tolist()
            for i, row in zip(batch, rows, strict=True):
                scores[i], found = found[: len(row.ends)], found[len(row.ends) :]
                if any(map(math.isnan, scores[i])):
                    raise DataError(
                        "A score of the process reward model is nan: its weights are damaged, or "
                        "overflow in this data type. Load it in float32."
                    )
        return scores

    def encode(self, problem: str, steps: Sequence[str]) -> StepInputs:
        """What the model reads: tokens, and where the value of each step stands.

        Raises:
            DataError: They do not fit into the model's context.
        """
        made = self.format.encode(problem, steps)
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and len(made.input_ids) > limit:
            raise DataError(
                f"A problem with {len(steps)} steps has {len(made.input_ids)} tokens, but the "
                f"process reward model reads {limit}. Shorten the steps, or score fewer."
            )
        return made

    def step_logits(self, rows: Sequence[StepInputs]) -> Tensor:
        """logit_N: the logits whose sigmoids are the scores, of all steps of all rows in order."""
        longest = max(len(row.input_ids) for row in rows)
        # Nothing before the padding sees it, so any token will do, and there is no mask.
        ids_BT = torch.zeros(len(rows), longest, dtype=torch.long)
        for ids_T, row in zip(ids_BT, rows, strict=True):
            ids_T[: len(row.input_ids)] = torch.tensor(row.input_ids)
        self.tokens_scored += sum(len(row.input_ids) for row in rows)
        at = [(b, end) for b, row in enumerate(rows) for end in row.ends]
        at_N2 = torch.tensor(at, dtype=torch.long).view(-1, 2)
        return step_logits(self.model, self.format, ids_BT.to(self.model.device), at_N2)

    def _batches(self, inputs: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Inputs of similar length together."""
        order = sorted((i for i, ids in enumerate(inputs) if ids), key=lambda i: len(inputs[i]))
        batch: list[int] = []
        for i in order:
            if batch and (len(batch) + 1) * len(inputs[i]) > self.batch_tokens:
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch


def step_logits(model: Any, format: StepFormat, ids_BT: Tensor, at_N2: Tensor) -> Tensor:
    """logit_N of steps, of which nothing but their ends goes through the model's head.

    Args:
        model: The model, as it may be wrapped for several processes.
        format: Its format.
        ids_BT: Rows padded at their ends.
        at_N2: Row and position of the value of each step.
    """
    places = at_N2.to(ids_BT.device)
    bare = getattr(model, "module", model)
    hook = format.head(bare).register_forward_pre_hook(
        lambda _, args: (args[0][places[:, 0], places[:, 1]],)
    )
    try:
        outputs: Any = model(input_ids=ids_BT, use_cache=False)
    finally:
        hook.remove()
    return format.logits(outputs.logits)


def _stored(spec: str | Path, revision: str | None) -> Mapping[str, Any]:
    """The content of `prm_config.json`; empty without one."""
    place = models.resolve(spec)
    path: Any = Path(place) / CONFIG
    if not Path(place).exists():
        quiet: Any = {
            "_raise_exceptions_for_missing_entries": False,
            "_raise_exceptions_for_connection_errors": False,
        }
        path = cached_file(place, CONFIG, revision=revision, **quiet)
    if path is None or not Path(path).exists():
        return {}
    try:
        found = read_json(Path(path))
    except (OSError, ValueError) as err:
        raise CheckpointError(f"The {CONFIG} of {str(spec)!r} cannot be read: {err}") from err
    keys = ("format", "separator", "aggregation")
    if not isinstance(found, dict) or not all(
        isinstance(found.get(key), str | None) for key in keys
    ):
        raise CheckpointError(
            f"The {CONFIG} of {str(spec)!r} is no object with texts under {', '.join(keys)}."
        )
    return {key: found[key] for key in keys if found.get(key) is not None}


def _format_of(spec: str | Path, config: Any, tokenizer: Any) -> str:
    """The format of a checkpoint without `prm_config.json`."""
    name = f"{spec} {getattr(config, '_name_or_path', '')}".casefold()
    architectures = [str(one) for one in getattr(config, "architectures", None) or ()]
    for architecture in architectures:
        if architecture in _CLASSES:
            return _CLASSES[architecture]
        if architecture.endswith("ForTokenClassification"):
            return "native" if config.num_labels == 1 else "token-classification"
    for maker, format in _MAKERS.items():
        if maker in name:
            return format
    place = Path(models.resolve(spec))
    if place.is_dir() and any("v_head.summary" in x for x in models.stored_tensors(place)):
        return "skywork"
    if any(one.endswith("ForCausalLM") for one in architectures):
        return "math-shepherd" if tokenizer.chat_template is None else "conversation"
    raise CheckpointError(
        f"{str(spec)!r} is no process reward model in a known format (architectures: "
        f"{', '.join(architectures) or 'none'}). Name it by `format`: {', '.join(FORMATS)}."
    )
