"""Images through the engine of a checkpoint: ours, and image-text models of transformers."""

import asyncio
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.multimodal.test_official import CONFIG, LANGUAGE, official, parts, projector, write
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    MllamaConfig,
    MllamaForConditionalGeneration,
    MllamaImageProcessorPil,
    MllamaProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    ViTConfig,
    ViTModel,
)

from hanol.engines import (
    CheckpointEngine,
    Completion,
    Conversation,
    ImagePart,
    Message,
    Request,
    Sampling,
    TextPart,
    open_engine,
)
from hanol.engines.checkpoint._seeing import (
    _without_videos as without_videos,  # private: what loads a processor in transformers' way
)
from hanol.errors import CapabilityError, ConfigError, DataError, EngineError
from hanol.models import load_tokenizer
from hanol.multimodal import NvlmForConditionalGeneration, NvlmProcessor
from hanol.runs import synchronous

TEMPLATE = (
    "{% for m in messages %}<|bos|>{{ m.role }} {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|bos|>assistant {% endif %}"
)
PARTS = (
    "{% for m in messages %}<|bos|>{{ m.role }} {% for p in m.content %}{% if p.type == 'image' %}"
    "<image>\n{% else %}{{ p.text }}{% endif %}{% endfor %}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|bos|>assistant {% endif %}"
)
TEXT = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 400, "initializer_range": 0.3,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
KINDS = ["d", "x", "h", "llava", "qwen", "mllama"]
KEPT = ["d", "x", "h", "llava", "qwen"]  # whose caches can be cut up


def png(width: int, height: int, seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    out = BytesIO()
    Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


WIDE, SQUARE, TALL = png(48, 16), png(16, 16, 1), png(16, 32, 2)


def nvlm(folder: Path, kind: str) -> None:
    tokenizer = load_tokenizer("tiny")
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    language = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **TEXT))
    tower = ViTModel(
        ViTConfig(
            image_size=16, patch_size=4, hidden_size=24, num_hidden_layers=2,
            num_attention_heads=2, intermediate_size=32, initializer_range=0.3,
        ),
        add_pooling_layer=False,
    )  # fmt: skip
    model = NvlmForConditionalGeneration.from_parts(language, tower, kind=kind)
    processor = NvlmProcessor.for_model(model, tokenizer)
    with torch.no_grad():
        for part in (model.mlp1, model.cross_layers):
            for name, parameter in part.named_parameters():
                if parameter.ndim > 1:
                    parameter.mul_(10)
                elif "gate" in name:
                    parameter.fill_(0.7)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def llava(folder: Path) -> None:
    tokenizer = load_tokenizer("tiny")
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    token = tokenizer.convert_tokens_to_ids("<image>")
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        image_size=16, patch_size=4, hidden_size=24, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    text = LlamaConfig(vocab_size=len(tokenizer), **TEXT)
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=vision, text_config=text, image_token_index=token)
    )
    with torch.no_grad():
        for parameter in model.model.multi_modal_projector.parameters():
            parameter.mul_(30)
    size = {"height": 16, "width": 16}
    processor = LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=size), tokenizer,
        patch_size=4, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=PARTS,
    )  # fmt: skip
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def qwen(folder: Path) -> None:
    """Positions of three kinds; its processor also reads videos, which would need torchvision."""
    tokenizer = load_tokenizer("tiny")
    names = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer.add_tokens(names, special_tokens=True)
    start, end, image, video = tokenizer.convert_tokens_to_ids(names)
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config={**TEXT, "vocab_size": len(tokenizer), "rope_parameters": rope},
        vision_config={
            "depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2,
            "out_hidden_size": 32, "patch_size": 4, "spatial_merge_size": 2, "window_size": 16,
            "fullatt_block_indexes": [1],
        },
        image_token_id=image, video_token_id=video, vision_start_token_id=start,
        vision_end_token_id=end,
    )  # fmt: skip
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, min_pixels=64, max_pixels=4096
    ).save_pretrained(folder)
    marker = "<|vision_start|><|image_pad|><|vision_end|>"
    tokenizer.chat_template = PARTS.replace("<image>", marker)
    tokenizer.save_pretrained(folder)
    (folder / "processor_config.json").write_text('{"processor_class": "Qwen2_5_VLProcessor"}')


def mllama(folder: Path) -> None:
    tokenizer = load_tokenizer("tiny")
    tokenizer.add_tokens(["<|image|>", "<|python_tag|>"], special_tokens=True)
    text = {k: v for k, v in TEXT.items() if k not in ("bos_token_id", "eos_token_id")}
    grids = [[1, 1], [1, 2], [2, 1], [1, 3], [3, 1], [2, 2], [1, 4], [4, 1]]
    torch.manual_seed(0)
    config = MllamaConfig(
        text_config={
            **text, "vocab_size": len(tokenizer), "cross_attention_layers": [1, 3],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
        vision_config={
            "hidden_size": 16, "num_hidden_layers": 2, "num_global_layers": 1,
            "attention_heads": 2, "intermediate_size": 32, "vision_output_dim": 32,
            "image_size": 16, "patch_size": 4, "max_num_tiles": 4,
            "intermediate_layers_indices": [0], "supported_aspect_ratios": grids,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
    )  # fmt: skip
    model = MllamaForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "attn_gate" in name or "mlp_gate" in name:
                parameter.fill_(0.7)
            elif "multi_modal_projector" in name:
                parameter.mul_(30)
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    MllamaProcessor(
        MllamaImageProcessorPil(size={"height": 16, "width": 16}, max_image_tiles=4), tokenizer,
        chat_template=PARTS.replace("<image>\n", "<|image|>"),
    ).save_pretrained(folder)  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    for kind in "dxh":
        nvlm(made[kind], kind)
    llava(made["llava"])
    qwen(made["qwen"])
    mllama(made["mllama"])
    return made


@pytest.fixture(scope="module")
def engines(folders: dict[str, Path]) -> Iterator[Callable[[str], CheckpointEngine]]:
    opened: dict[str, CheckpointEngine] = {}

    def of(kind: str) -> CheckpointEngine:
        if kind not in opened:
            opened[kind] = CheckpointEngine.load(str(folders[kind]))
        return opened[kind]

    yield of
    for engine in opened.values():
        synchronous(engine.aclose)()


def user(text: str, *images: bytes) -> Message:
    return Message("user", (*map(ImagePart, images), TextPart(text)))


def asked(*messages: Message, **more: Any) -> Request:
    sampling = Sampling(temperature=0.0, max_tokens=6)
    return Request(messages, sampling, **{"top_logprobs": 0, **more})


def done(engine: CheckpointEngine, *requests: Request) -> list[Completion]:
    async def run() -> list[Completion]:
        return list(await asyncio.gather(*map(engine.complete, requests)))

    return asyncio.run(run())


def by_generate(folder: Path, text: str, images: list[bytes]) -> list[int]:
    """What transformers writes for a rendered text."""
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    with without_videos():
        processor = AutoProcessor.from_pretrained(folder)
    pictures = [Image.open(BytesIO(data)) for data in images]
    if isinstance(processor, NvlmProcessor):
        inputs = processor(text, pictures, add_special_tokens=False)
    else:
        inputs = processor(
            text=text, images=pictures, return_tensors="pt", add_special_tokens=False
        )
    model.generation_config.suppress_tokens = None
    made = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    return made[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_generate(
    engines: Callable[[str], CheckpointEngine], folders: dict[str, Path], kind: str
) -> None:
    engine = engines(kind)
    assert "images" in engine.capabilities
    request = asked(user("What is it?", WIDE, SQUARE))
    marker = {"qwen": "<|vision_start|><|image_pad|><|vision_end|>\n", "mllama": "<|image|>"}
    image = marker.get(kind, "<image>\n")
    text = f"<|bos|>user {image}{image}What is it?\n<|bos|>assistant "
    answer = done(engine, request)[0]
    assert list(answer.ids or ()) == by_generate(folders[kind], text, [WIDE, SQUARE])
    assert answer.usage.prompt_tokens == engine.count_tokens(request.messages)
    others = done(engine, asked(user("What is it?", TALL, SQUARE)))[0]
    assert others.logprobs != answer.logprobs  # the same text, another picture


@pytest.mark.parametrize("kind", KINDS)
def test_requests_at_once_get_the_answers_that_they_get_alone(
    engines: Callable[[str], CheckpointEngine], kind: str
) -> None:
    engine = engines(kind)
    requests = [
        asked(Message("user", "no image")),
        asked(user("What is it?", WIDE)),
        asked(user("What is it?", TALL)),
        asked(user("And these three, which are longer to ask about?", SQUARE, WIDE, TALL)),
        asked(user("What is it?", WIDE), n=2),
    ]
    engine.forget()
    alone = [done(engine, request)[0] for request in requests]
    engine.forget()
    together = done(engine, *requests)
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one.choices, other.choices, strict=True):
            assert a.ids == b.ids
            assert np.allclose(a.logprobs, b.logprobs, atol=1e-4)


@pytest.mark.parametrize("kind", KEPT)
def test_a_later_turn_computes_no_image_again(
    engines: Callable[[str], CheckpointEngine], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engines(kind)
    first = asked(user("What is it?", WIDE))
    answer = done(engine, first)[0]
    turn = (Message("assistant", answer.text), Message("user", "Are you sure of that?"))
    looks: list[int] = []
    look = engine._sight.look  # private: counts passes of the vision tower

    def counted(pictured: Any) -> Any:
        looks.append(1)
        return look(pictured)

    monkeypatch.setattr(engine._sight, "look", counted)
    second = asked(*first.messages, *turn)
    kept = done(engine, second)[0]
    assert looks == []
    assert kept.usage.cached_tokens > 0
    engine.forget()
    anew = done(engine, second)[0]
    assert looks == [1]
    assert kept.ids == anew.ids
    assert np.allclose(kept.logprobs, anew.logprobs, atol=1e-4)
    # Another picture under the same words takes nothing of it.
    other = done(engine, asked(user("What is it?", TALL), *turn))[0]
    assert other.usage.cached_tokens == 0


@pytest.mark.parametrize("kind", ["x", "llava"])
def test_continuations_of_an_image_are_scored(
    engines: Callable[[str], CheckpointEngine], kind: str
) -> None:
    engine = engines(kind)
    request = asked(user("What is it?", WIDE))
    answer = done(engine, request)[0]
    scored = asyncio.run(engine.score(request, [answer.ids or (), "a cat"]))
    assert np.allclose(scored[0].logprobs, answer.logprobs, atol=1e-4)
    assert len(scored[1].ids) == len(scored[1].logprobs)


def test_several_turns_with_images_in_a_conversation(
    engines: Callable[[str], CheckpointEngine],
) -> None:
    talk = Conversation(engines("h"))
    ask, sampling = synchronous(talk.ask), Sampling(temperature=0.0, max_tokens=4)
    list(ask("What is it?", sampling, images=[ImagePart(WIDE)]))
    list(ask("And this?", sampling, images=[ImagePart(TALL)]))
    list(ask("Which is larger?", sampling))
    assert len(talk.messages) == 6
    with pytest.raises(DataError, match="no format that Pillow reads"):
        list(ask("And that?", sampling, images=[ImagePart(b"%PDF")]))
    assert len(talk.messages) == 6


def test_what_cannot_be_asked(
    engines: Callable[[str], CheckpointEngine], folders: dict[str, Path]
) -> None:
    engine = engines("d")
    with pytest.raises(EngineError, match=r"row 0\) needs \d{3} .*8 images.*399 are .*--tiles"):
        done(engine, asked(user("What is it?", *[WIDE] * 8)))
    few = CheckpointEngine.load(str(folders["d"]), max_tiles=1)
    assert few.count_tokens(asked(user("?", WIDE)).messages) < 60
    with pytest.raises(DataError, match="damaged"):
        done(engine, asked(user("What is it?", WIDE[:200])))
    with pytest.raises(DataError, match="2 markers <image>, but there are 1 images"):
        done(engine, asked(user("What is <image>?", WIDE)))
    with pytest.raises(EngineError, match="refuses a prompt with 1 images"):
        done(engines("llava"), asked(user("What is <image>?", WIDE)))
    with pytest.raises(EngineError, match="holds no images"):
        engine.encode(asked(user("What is it?", WIDE)).messages)
    with pytest.raises(ConfigError, match="for models of text alone"):
        CheckpointEngine.load(str(folders["d"]), dtype="int8")
    text_only = open_engine("chatml:tiny")
    with pytest.raises(CapabilityError, match="cannot read images; an endpoint whose model takes"):
        done(text_only, asked(user("What is it?", WIDE)))
    talk = Conversation(text_only)
    with pytest.raises(CapabilityError, match="cannot read images"):
        list(synchronous(talk.ask)("What is it?", images=[ImagePart(WIDE)]))
    assert talk.messages == []
    with pytest.raises(ConfigError, match="`max_tiles` has no meaning"):
        open_engine("chatml:tiny", max_tiles=2)
    for opened in (few, text_only):
        synchronous(opened.aclose)()


def test_the_layout_of_nvlm_d_answers(tmp_path: Path) -> None:
    tokenizer = load_tokenizer("tiny")
    tokenizer.chat_template = TEMPLATE
    tokenizer.add_tokens(["<|vision_pad|>"], special_tokens=True)
    vision, language = parts(len(tokenizer))
    tensors = official(vision, 0.0, 1) | projector()
    tensors |= {f"language_model.{name}": x for name, x in language.state_dict().items()}
    stored = {**LANGUAGE, "vocab_size": len(tokenizer), "max_position_embeddings": 400}
    folder = write(tmp_path / "nvlm", tensors, {**CONFIG, "llm_config": stored})
    tokenizer.save_pretrained(folder)
    engine = CheckpointEngine.load(str(folder))
    first, second = done(engine, asked(user("What is it?", WIDE)), asked(user("What is it?", TALL)))
    assert first.logprobs != second.logprobs
    # Three tiles and a thumbnail of four slots each, and their tags.
    assert first.usage.prompt_tokens > engine.count_tokens((Message("user", "What is it?"),)) + 16
    synchronous(engine.aclose)()


def test_text_before_an_image_is_free_of_it_unless_transformers_masks_are_wanted(
    folders: dict[str, Path],
) -> None:
    """Llama-3.2-Vision: what stands before the image, and what comes of changing the image."""
    for mask_fix, depends in (("on", False), ("transformers", True)):
        engine = CheckpointEngine.load(str(folders["mllama"]), mask_fix=mask_fix)
        model, logits = engine._model, []  # private: hidden states of a prompt are seen nowhere
        for image in (SQUARE, png(16, 16, 7)):
            message = Message("user", (TextPart("some words before it "), ImagePart(image)))
            pictured = engine._sight.prompt([message, Message("user", "What is it?")])
            with torch.no_grad():
                logits.append(model(**pictured.inputs).logits[0])
        at = pictured.ids.index(model.config.image_token_index)
        assert at > 5
        assert torch.equal(logits[0][:at], logits[1][:at]) is not depends
        assert not torch.equal(logits[0][at:], logits[1][at:])
        synchronous(engine.aclose)()
