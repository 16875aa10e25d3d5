"""Process reward models of six makers: scores are those of the makers' own code on tiny models."""

import json
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, normalizers
from tokenizers import models as token_models
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForTokenClassification,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForTokenClassification,
    Qwen2Model,
)

from hanol.errors import CheckpointError, ConfigError, DataError
from hanol.test_time import ProcessRewardModel
from hanol.test_time.rewards._rows import step_row  # private: a row without a file

CHAT = Path(__file__).parents[2] / "training" / "chat_model.py"
chat = SimpleNamespace(**runpy.run_path(str(CHAT)))

PROBLEM = "What is 3 + 4 * 2?"
STEPS = ["Step 1: 4 * 2 = 8", "Step 2: so [3 + 8]", "답은 11 이다", "The answer is 11.\n"]
# Ends at which a separator may merge with what stands before it.
ENDS = ["7", "42", ")", "]", "}", "다", "한글", "\n", "\n\n", ".", ":", " ", "+", "-", "é"]
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


def make_tokenizer(*tokens: str, special: bool = False) -> Any:
    tokenizer = chat.make_tokenizer()
    tokenizer.add_tokens(list(tokens), special_tokens=special)
    return tokenizer


def make_config(kind: Any, tokenizer: Any, **options: Any) -> Any:
    return kind(
        vocab_size=len(tokenizer) + 8, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024,
        initializer_range=0.2, bos_token_id=0, **options,
    )  # fmt: skip


def spread(model: nn.Module) -> Any:
    """Random weights and biases, so that no head answers 0.5."""
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "score" in name or "v_head" in name or "lm_head" in name:
            nn.init.normal_(weight, std=0.1)
    return model.eval()


def saved(tokenizer: Any, folder: Path) -> Any:
    """The tokenizer as it is loaded: transformers adds a token to those of Qwen2."""
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


# Each family: writes a checkpoint, and scores steps as the makers' own code does. It reads joined
# text: with a tokenizer of bytes that is the same, but for the line breaks that merge (STEPS[:3]).


def native(folder: Path) -> Callable[[Sequence[str]], Tensor]:
    tokenizer = make_tokenizer()
    model = spread(LlamaForTokenClassification(make_config(LlamaConfig, tokenizer, num_labels=1)))
    model.save_pretrained(folder)
    tokenizer = saved(tokenizer, folder)
    (folder / "prm_config.json").write_text('{"separator": "\\n\\n", "aggregation": "last"}')

    def score(steps: Sequence[str]) -> Tensor:
        ids, ends = ids_of(tokenizer, f"{PROBLEM}\n\n"), []
        for step in steps:
            ids += ids_of(tokenizer, f"{step}\n\n")
            ends.append(len(ids) - 1)
        return model(torch.tensor([ids])).logits[0, ends, 0].sigmoid()

    return score


def token_classification(folder: Path) -> Callable[[Sequence[str]], Tensor]:
    tokenizer = make_tokenizer()
    model = spread(Qwen2ForTokenClassification(make_config(Qwen2Config, tokenizer)))
    model.save_pretrained(folder)
    tokenizer = saved(tokenizer, folder)

    def score(steps: Sequence[str]) -> Tensor:
        found = []
        for count in range(1, len(steps) + 1):
            text = "\n\n".join((PROBLEM, *steps[:count])) + "\n\n"
            logits = model(torch.tensor([ids_of(tokenizer, text)])).logits
            found.append(logits[0, -1].softmax(-1)[1])
        return torch.stack(found)

    return score


def shepherd(folder: Path) -> Callable[[Sequence[str]], Tensor]:
    tokenizer = make_tokenizer("ки")
    tokenizer.chat_template = None
    model = spread(LlamaForCausalLM(make_config(LlamaConfig, tokenizer)))
    model.save_pretrained(folder)
    tokenizer = saved(tokenizer, folder)
    good, bad, tag = (ids_of(tokenizer, text)[-1] for text in ("+", "-", "ки"))

    def score(steps: Sequence[str]) -> Tensor:
        text = f"{PROBLEM} " + "\n".join(f"{step} ки" for step in steps)
        ids = torch.tensor([ids_of(tokenizer, text)])
        scores = model(ids).logits[:, :, [good, bad]].softmax(-1)[:, :, 0]
        return scores[ids == tag]

    return score


def conversation(folder: Path) -> Callable[[Sequence[str]], Tensor]:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}<|head|>{{ m.role }}\n\n"
        "{{ m.content | trim }}<|eot|>{% endfor %}"
        "{% if add_generation_prompt %}<|head|>assistant\n\n{% endif %}"
    )
    model = spread(LlamaForCausalLM(make_config(LlamaConfig, tokenizer)))
    model.save_pretrained(folder)
    tokenizer = saved(tokenizer, folder)
    candidates = [ids_of(tokenizer, text)[-1] for text in ("+", "-")]

    def score(steps: Sequence[str]) -> Tensor:
        turns: list[dict[str, str]] = []
        found = []
        for number, step in enumerate(steps):
            content = f"{PROBLEM} {step}" if number == 0 else step
            turns += [{"role": "user", "content": content}, {"role": "assistant", "content": "+"}]
            ids = ids_of(tokenizer, tokenizer.apply_chat_template(turns, tokenize=False))
            found.append(model(torch.tensor([ids])).logits[0, -3, candidates].softmax(-1)[0])
        return torch.stack(found)

    return score


def skywork(folder: Path) -> Callable[[Sequence[str]], Tensor]:
    tokenizer = make_tokenizer()
    config = make_config(Qwen2Config, tokenizer)
    model = spread(Qwen2ForCausalLM(config))
    model.save_pretrained(folder)
    tokenizer = saved(tokenizer, folder)
    head = spread(nn.ModuleDict({"v_head": nn.Linear(32, 1)}))["v_head"]
    state = load_file(folder / "model.safetensors")
    state |= {f"v_head.summary.{name}": x.detach() for name, x in head.named_parameters()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    def score(steps: Sequence[str]) -> Tensor:
        ids, flags = ids_of(tokenizer, f"{tokenizer.bos_token}{PROBLEM}\n"), []
        for step in steps:
            ids += ids_of(tokenizer, step) + ids_of(tokenizer, "\n")[-1:]
            flags.append(len(ids) - 1)
        hidden = model.model(torch.tensor([ids])).last_hidden_state
        return head(hidden)[0, flags, 0].sigmoid()

    return score


def qwen_math(folder: Path) -> Callable[[Sequence[str]], Tensor]:
    tokenizer = make_tokenizer("<extra_0>", special=True)
    config = make_config(Qwen2Config, tokenizer)
    torch.manual_seed(0)
    body = Qwen2Model(config).eval()
    head = spread(
        nn.ModuleDict({"score": nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))})
    )["score"]
    config.architectures = ["Qwen2ForProcessRewardModel"]
    config.save_pretrained(folder)
    tokenizer = saved(tokenizer, folder)
    state = {f"model.{name}": x.detach() for name, x in body.state_dict().items()}
    state |= {f"score.{name}": x.detach() for name, x in head.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    def score(steps: Sequence[str]) -> Tensor:
        turns = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": PROBLEM},
            {"role": "assistant", "content": "".join(f"{step}<extra_0>" for step in steps)},
        ]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        ids = torch.tensor([ids_of(tokenizer, text)])
        scores = head(body(ids).last_hidden_state).softmax(-1)[:, :, 1]
        return scores[ids == tokenizer.convert_tokens_to_ids("<extra_0>")]

    return score


FAMILIES = {
    "native": native,
    "token-classification": token_classification,
    "math-shepherd": shepherd,
    "conversation": conversation,
    "skywork": skywork,
    "qwen-math": qwen_math,
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    score = FAMILIES[request.param](folder)
    prm = ProcessRewardModel.from_pretrained(folder)
    return SimpleNamespace(name=request.param, folder=folder, score=score, prm=prm)


def test_scores_are_those_of_the_makers_code(family: Any) -> None:
    assert family.prm.format.name == family.name, "the format is told from the files"
    with torch.no_grad():
        expected = family.score(STEPS[:3]).tolist()
    found = family.prm.score(PROBLEM, STEPS[:3])
    assert found == pytest.approx(expected, abs=1e-5)
    assert len({round(x, 3) for x in found}) == 3, "scores that say something"


def test_a_batch_scores_as_each_alone(family: Any) -> None:
    pairs = [(PROBLEM, STEPS[:n]) for n in (1, 3, 2)]
    pairs += [("2 + 2?", STEPS), ("2 + 2?", []), ("가나다라" * 9, STEPS[:2])]
    alone = [family.prm.score(*pair) for pair in pairs]
    family.prm.batch_tokens = 300
    for found, expected in zip(family.prm.score_batch(pairs), alone, strict=True):
        assert found == pytest.approx(expected, abs=1e-5)
    assert alone[4] == []


def test_a_step_is_judged_by_what_stands_before_it(family: Any) -> None:
    whole = family.prm.score(PROBLEM, STEPS)
    for count in range(1, len(STEPS)):
        assert family.prm.score(PROBLEM, STEPS[:count]) == pytest.approx(whole[:count], abs=1e-5)


def test_no_end_of_a_step_merges_with_the_separator(family: Any) -> None:
    """Tokens of a step are the same whatever follows: those of training and those of scoring."""
    prm = family.prm
    separator = tuple(prm.format.separator_ids)
    rng = torch.Generator().manual_seed(0)
    assert len(ENDS) >= 12
    for number in range(200):
        length = int(torch.randint(1, 5, (), generator=rng))
        steps = [f"Step {i}: {number + i}{ENDS[(number + i) % len(ENDS)]}" for i in range(length)]
        made = prm.encode(PROBLEM, steps)
        assert len(made.ends) == length
        for count in range(1, length + 1):
            shorter = prm.encode(PROBLEM, steps[:count])
            assert made.ends[:count] == shorter.ends
            assert (
                made.input_ids[: shorter.ends[-1] + 1] == shorter.input_ids[: shorter.ends[-1] + 1]
            )
        if family.name != "conversation":
            for end in made.ends:
                assert made.input_ids[end + 1 - len(separator) : end + 1] == separator


def test_tokens_of_training_are_those_of_scoring(family: Any) -> None:
    for number in range(len(ENDS)):
        steps = [f"Step {i}{ENDS[(number + i) % len(ENDS)]}" for i in range(3)]
        row = {"prompt": PROBLEM, "completions": steps, "labels": [1, 0.5, True]}
        learned = step_row(row, family.prm.format, max_length=900)
        assert learned.inputs == family.prm.encode(PROBLEM, steps)
        longest = len(learned.inputs.input_ids) - 1
        shorter = step_row(row, family.prm.format, max_length=longest)
        assert shorter.inputs == family.prm.encode(PROBLEM, steps[:2])
        assert len(shorter.labels) == len(shorter.inputs.ends) == 2


def test_control_tokens_in_a_step_are_text(family: Any) -> None:
    special = family.prm.tokenizer.all_special_ids
    count = [sum(i in special for i in family.prm.encode(PROBLEM, [step]).input_ids)
             for step in ("so 8", "so 8<|im_end|><|eot|><extra_0></s>")]  # fmt: skip
    assert count[0] == count[1]


def test_a_checkpoint_is_written_and_read_back(family: Any, tmp_path: Path) -> None:
    saved = ProcessRewardModel.from_pretrained(family.prm.save_pretrained(tmp_path / "prm"))
    assert saved.config() == family.prm.config()
    found = saved.score(PROBLEM, STEPS)
    assert found == pytest.approx(family.prm.score(PROBLEM, STEPS), abs=1e-6)


def test_a_tokenizer_that_puts_a_space_before_every_text(tmp_path: Path) -> None:
    """As Mistral's: a step is not a new text."""
    alphabet = sorted(set("▁What is3+4*2?Step1:=8soTheanwr.ки-<s>[]/\n"))
    vocabulary = {token: number for number, token in enumerate(["<unk>", "<s>", *alphabet])}
    backend = Tokenizer(token_models.BPE(vocabulary, [], unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Replace("▁", " ")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>"
    )
    spread(LlamaForCausalLM(make_config(LlamaConfig, tokenizer))).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    prm = ProcessRewardModel.from_pretrained(tmp_path, format="math-shepherd")
    steps = ["Step 1: 4 * 2 = 8", "so 3 + 8"]
    text = f"{PROBLEM} {steps[0]} ки\n{steps[1]} ки"
    assert list(prm.encode(PROBLEM, steps).input_ids) == ids_of(tokenizer, text)


def test_what_is_no_process_reward_model_is_refused(tmp_path: Path) -> None:
    qwen_math(tmp_path)
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="no token for '<extra_0>'"):
        ProcessRewardModel.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="'prm'.*'native'|prm.*native"):
        ProcessRewardModel(object(), tokenizer, format="prm")  # type: ignore[arg-type]
    native(tmp_path / "a")
    (tmp_path / "a" / "prm_config.json").write_text(json.dumps({"format": "prm"}))
    with pytest.raises(CheckpointError, match="names the format 'prm'"):
        ProcessRewardModel.from_pretrained(tmp_path / "a")
    (tmp_path / "a" / "prm_config.json").write_text(json.dumps({"separator": ""}))
    with pytest.raises(CheckpointError, match="no token for ''"):
        ProcessRewardModel.from_pretrained(tmp_path / "a")


def test_scores_that_are_no_numbers_and_steps_that_do_not_fit(tmp_path: Path) -> None:
    native(tmp_path)
    prm = ProcessRewardModel.from_pretrained(tmp_path)
    with pytest.raises(DataError, match="reads 1024"):
        prm.score(PROBLEM, ["x" * 1000] * 2)
    with torch.no_grad():
        prm.model.score.bias.fill_(torch.nan)
    with pytest.raises(DataError, match="nan"):
        prm.score(PROBLEM, ["x"])
