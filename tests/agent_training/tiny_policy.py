"""A random model whose single tokens are whole calls and answers: it learns in seconds.

As a program it trains in processes of its own, for the tests that kill them or run two at once:

    python tiny_policy.py killed ROOT
    python tiny_policy.py parallel FOLDER
"""

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import Lfm2Config, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

from hanol import models
from hanol.agent_training import ResearchEnvironment
from hanol.engines import CheckpointEngine
from hanol.rl import GrpoSettings, GrpoTrainer
from hanol.runs import Budget, Task
from hanol.sampling import Sampling
from hanol.tools import Observation, ToolContext

LOOK = '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>'
PIECES = [
    LOOK, "<answer>yes</answer>", "<answer>no</answer>", "<report>seen</report>",
    "<summary>seen</summary>",
]  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }} {{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant {% endif %}"
)


def make_tokenizer(pieces: Sequence[str] = PIECES) -> PreTrainedTokenizerFast:
    """Words that it does not know are one and the same token."""
    words = ["<unk>", "user", "assistant", "a", "b"]
    raw = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.add_tokens([AddedToken(piece, normalized=False) for piece in pieces])
    specials = [AddedToken(x, special=True, normalized=False) for x in ("<|end|>", "<|start|>")]
    raw.add_special_tokens(specials)
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", eos_token="<|end|>", pad_token="<|end|>"
    )
    made.chat_template = TEMPLATE
    return made


def make_model(seed: int = 0, kind: str = "llama") -> PreTrainedModel:
    """A random model: a Llama of one layer, or a hybrid."""
    tokenizer = make_tokenizer()
    common: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 24,
        "tie_word_embeddings": True, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    config: Any
    if kind == "kimi":
        config = models.kimi_config(
            **common, num_layers=2, num_heads=2, head_dim=16, kv_lora_rank=8,
            full_attention_every=2, model_max_length=4096,
        )  # fmt: skip
    else:
        common |= {"max_position_embeddings": 4096, "num_attention_heads": 2}
        common |= {"initializer_range": 0.2}
        config = LlamaConfig(**common, num_hidden_layers=1)
        if kind == "lfm2":
            config = Lfm2Config(
                **common, num_key_value_heads=2, layer_types=["conv", "full_attention"],
                num_hidden_layers=2, block_auto_adjust_ff_dim=False,
            )  # fmt: skip
    return models.build(config, seed=seed).eval()


# Of an agent over documents: a call of a tool that it has, right answers and wrong ones.
OVER_DOCUMENTS = [
    '<tool_call>\n{"name": "search", "arguments": {"query": ["amber"]}}\n</tool_call>',
    "<answer>amber</answer>", "<answer>birch</answer>", "<report>amber</report>",
]  # fmt: skip


def make_recipe(folder: Path, *stages: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe of such an agent; its model, documents and questions lie in the folder."""
    models.save(make_model(), folder / "model", make_tokenizer(OVER_DOCUMENTS))
    (folder / "notes").mkdir()
    for word in ("amber", "birch"):
        (folder / "notes" / f"{word}.txt").write_text(f"{word} is a word. " * 20)
    rows = [  # the last one is held out for the evaluation
        {"id": f"q{i}", "question": "b " * i + "?", "answer": ("amber", "birch")[i % 2]}
        for i in range(9)
    ]
    questions = folder / "questions.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "kind": "researcher", "name": "small", "model": {"checkpoint": str(folder / "model")},
        "documents": {"folder": str(folder / "notes"), "questions": str(questions)},
        "stages": list(stages), "eval": {"every": None, "questions": 1, "model_calls": 2},
        "threads": 1, "seed": 3,
    }  # fmt: skip


class Look:
    """A tool that always sees the same."""

    name, description = "look", "See."
    parameters: Mapping[str, Any] = {"type": "object", "properties": {}}

    def __init__(self, seen: str = "a b a b") -> None:
        self._seen = seen

    async def run(self, arguments: Mapping[str, Any], context: ToolContext) -> Observation:
        return Observation(self._seen)


def is_yes(task: Task, answer: str | None) -> float:
    return float(answer is not None and answer.startswith(str(task.answer)))


def make_environment(reward: Any = is_yes, **options: Any) -> ResearchEnvironment:
    defaults: dict[str, Any] = {
        "tools": [Look()],
        "budget": Budget(model_calls=3, observation_tokens=200),
        "sampling": Sampling(temperature=1.0, top_p=1.0, presence_penalty=0.0, max_tokens=4),
        "system_prompt": "a",
        "today": date(2025, 1, 1),
    }
    return ResearchEnvironment(None, reward, **(defaults | options))


def make_tasks(count: int = 4) -> list[Task]:
    return [Task(f"q{i}", "a " * i + "?", "yes") for i in range(count)]


def make_trainer(folder: Path, *, model: Any = None, **options: Any) -> GrpoTrainer:
    """A trainer; options are those of the settings, and `environment`, `tasks` and `engine`."""
    named = {name: options.pop(name, None) for name in ("environment", "tasks", "engine")}
    defaults: dict[str, Any] = {
        "steps": 2, "questions": 2, "rollouts": 4, "adamw_lr": 0.02, "save_every": 1, "keep": 3,
    }  # fmt: skip
    return GrpoTrainer(
        model if model is not None else make_model(),
        make_tokenizer(),
        named["environment"] or make_environment(),
        named["tasks"] or make_tasks(),
        folder,
        GrpoSettings(**(defaults | options)),
        engine=named["engine"],
    )


def exact_trainer(folder: Path, **options: Any) -> GrpoTrainer:
    """Requests are computed one by one and from their beginning: always the same to the last bit.

    Of five questions it uses three, so that curation has something to do.
    """
    torch.set_num_threads(1)
    model = make_model()
    engine = CheckpointEngine(model, make_tokenizer(), max_batch=1, cache_bytes=0)
    return make_trainer(
        folder, model=model, engine=engine, tasks=make_tasks(5), concurrency=1, steps=5,
        save_every=2, active_questions=3, refresh_every=1, **options,
    )  # fmt: skip


def kill_at(point: str, number: int) -> None:
    """Let this process die when it comes to a point for the n-th time."""
    from hanol import files
    from hanol.rl import _grpo_update  # private: the points at which the process dies

    seen = 0
    places: dict[str, tuple[Any, str]] = {
        "rollout": (ResearchEnvironment, "_reward_of"),
        "update": (_grpo_update.Updater, "_descend"),
        "metrics": (GrpoTrainer, "_note"),
        "weights": (torch, "save"),  # a checkpoint that has no optimizer yet
        "rename": (files, "replace_folder"),
    }
    owner, name = places[point]
    original = getattr(owner, name)

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == number:
            if point == "metrics":  # half a line
                with (args[0].folder / "metrics.jsonl").open("a") as file:
                    file.write('{"step": ')
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, deadly)


def killed(root: Path) -> None:
    """One run that is left alone, and one that dies at each of these points in turn."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from forked import in_child

    assert in_child(lambda: exact_trainer(root / "whole").train()) == 0

    def dying(point: str, number: int) -> None:
        kill_at(point, number)
        exact_trainer(root / "killed").train()

    points: Sequence[tuple[str, int]] = [
        ("rollout", 5), ("rename", 2), ("rollout", 30), ("update", 2), ("weights", 1),
        # A checkpoint is renamed twice: as a model, then with the rest.
        # These go on from the checkpoints of steps 0, 2, 2 and 4.
        ("rename", 4), ("rollout", 10), ("metrics", 3), ("rollout", 3),
    ]  # fmt: skip
    for point, number in points:
        status = in_child(lambda point=point, number=number: dying(point, number))
        assert status == -signal.SIGKILL, (point, number, status)
    assert in_child(lambda: exact_trainer(root / "killed").train()) == 0


def main(what: str, folder: Path) -> None:
    if what == "killed":
        return killed(folder)
    torch.set_num_threads(1)
    trainer = exact_trainer(folder)
    trainer.train()
    state = {n: p.tolist() for n, p in trainer.model.named_parameters()}
    rank = trainer.accelerator.process_index
    (folder / f"rank-{rank}.json").write_text(json.dumps(state))
    return None


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
