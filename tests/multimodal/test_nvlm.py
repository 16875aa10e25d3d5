"""NVLM-D, -X and -H: what sees what, and that caches, batches and files change nothing."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.multimodal.conftest import SIZE, language, picture, tower
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    DynamicCache,
    GPT2Config,
    GPT2LMHeadModel,
    ResNetConfig,
    ResNetModel,
)

from hanol.attention import CACHE_NAME
from hanol.errors import ConfigError, DataError, ShapeError
from hanol.multimodal import GatedCrossAttention, NvlmForConditionalGeneration, NvlmProcessor

KINDS = ["d", "x", "h"]
WIDE = picture(48, 16)  # three tiles and a thumbnail
SQUARE = picture(16, 16, seed=1)
TALL = picture(16, 32, seed=2)
TEXTS = [
    "no image at all",
    "<image>\nWhat is it?",
    "first <image> second <image> third <image> the answer",
]
IMAGES = [[], [WIDE], [SQUARE, WIDE, TALL]]


@pytest.mark.parametrize("kind", KINDS)
def test_sequence_lengths_are_those_of_the_cost_model(joined: Callable, kind: str) -> None:
    model, processor = joined(kind)
    text = processor("<Image></Image>\nWhat is it?").input_ids.shape[1]
    inputs = processor("<image>\nWhat is it?", [WIDE])
    slots = int((inputs.input_ids == model.config.image_token_id).sum()) if kind != "x" else 0
    assert slots == {"d": 4 * 4, "x": 0, "h": 4}[kind]
    assert inputs.pixel_values.shape == (4, 3, SIZE, SIZE)
    if kind == "h":
        assert abs(inputs.input_ids.shape[1] - (text + 4)) <= 2  # tokens merge at the borders
    vision = model.encode_images(inputs.pixel_values, inputs.tiles_per_image)
    assert vision.tiles == {"d": (0,), "x": (4,), "h": (3,)}[kind]
    tag = len(processor.tokenizer("<tile_1>", add_special_tokens=False).input_ids)
    assert vision.tokens == {"d": 4, "x": 4, "h": 4 + tag}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_gives_what_single_rows_give(joined: Callable, kind: str) -> None:
    model, processor = joined(kind)
    inputs = processor(TEXTS, IMAGES)
    with torch.no_grad():
        together = model(**inputs).logits
        for row, (text, images) in enumerate(zip(TEXTS, IMAGES, strict=True)):
            alone = model(**processor(text, images)).logits
            assert torch.allclose(together[row, -alone.shape[1] :], alone[0], atol=1e-4)


def prompt(model: NvlmForConditionalGeneration, inputs: dict) -> tuple[Tensor, object]:
    """Embeddings of a prompt, and what further tokens need of its images."""
    counts = inputs.get("tiles_per_image"), inputs.get("images_per_row")
    vision = model.encode_images(inputs["pixel_values"], *counts)
    return model.embed(inputs["input_ids"], vision), vision.seen()


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
@pytest.mark.parametrize("kind", KINDS)
def test_chunks_and_kept_prefixes_give_the_same_logits(
    joined: Callable, kind: str, chunk: int
) -> None:
    model, processor = joined(kind)
    inputs = processor(TEXTS[2], IMAGES[2])
    with torch.no_grad():
        whole = model(**inputs).logits
        embeds, vision = prompt(model, inputs)
        cache, parts = DynamicCache(), []
        for at in range(0, embeds.shape[1], chunk):
            spans = inputs.get("tile_spans")
            spans = None if spans is None else spans[:, at : at + chunk]
            part = {"inputs_embeds": embeds[:, at : at + chunk], "vision": vision}
            parts.append(model(**part, tile_spans=spans, **{CACHE_NAME: cache}).logits)
    assert torch.allclose(torch.cat(parts, dim=1), whole, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_generation_equals_the_full_forward(
    joined: Callable, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = joined(kind)
    inputs = processor(TEXTS, IMAGES)
    calls, real = [], model.vision_model.forward

    def counted(*args: object, **kwargs: object) -> object:
        calls.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(model.vision_model, "forward", counted)
    made = model.generate(
        **inputs, max_new_tokens=6, do_sample=False, output_logits=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    assert len(calls) == 1  # each image once, whatever is written
    length = inputs.input_ids.shape[1]
    assert torch.equal(made.sequences[:, :length], inputs.input_ids)
    spans = inputs.get("tile_spans")
    vision = model.encode_images(inputs.pixel_values, inputs.tiles_per_image, inputs.images_per_row)
    if spans is not None:
        later = torch.tensor([[0, n] for n in vision.tiles]).unsqueeze(1).expand(-1, 6, -1)
        spans = torch.cat([spans, later], dim=1)
    mask = torch.cat([inputs.attention_mask, torch.ones(3, 6, dtype=torch.long)], dim=1)
    with torch.no_grad():
        full = model(
            input_ids=made.sequences, vision=vision, tile_spans=spans, attention_mask=mask
        ).logits
    for step, logits in enumerate(made.logits):
        assert torch.allclose(full[:, length - 1 + step], logits, atol=1e-4)
    # Without a cache everything is computed anew each time; beams have rows of their own.
    bare = model.generate(**inputs, max_new_tokens=6, do_sample=False, use_cache=False)
    assert torch.equal(bare, made.sequences)
    beams = model.generate(**inputs, max_new_tokens=3, do_sample=False, num_beams=2)
    assert beams.shape == (3, length + 3)


@pytest.mark.parametrize("kind", ["x", "h"])
def test_gates_at_zero_give_the_language_model_exactly(joined: Callable, kind: str) -> None:
    model, processor = joined(kind, open_gates=False)
    inputs = processor(TEXTS[1:], IMAGES[1:])
    with torch.no_grad():
        seeing = model(**inputs).logits
        if kind == "x":
            plain = model.language_model(
                input_ids=inputs.input_ids, attention_mask=inputs.attention_mask,
                position_ids=(inputs.attention_mask.cumsum(-1) - 1).clamp(min=0),
            ).logits  # fmt: skip
        else:  # the thumbnail is in the sequence, the tiles change nothing
            vision = model.encode_images(
                inputs.pixel_values, inputs.tiles_per_image, inputs.images_per_row
            )
            plain = model.language_model(
                inputs_embeds=model.embed(inputs.input_ids, vision),
                attention_mask=inputs.attention_mask,
                position_ids=(inputs.attention_mask.cumsum(-1) - 1).clamp(min=0),
            ).logits
    assert torch.equal(seeing, plain)


def first_layer(model: NvlmForConditionalGeneration, inputs: dict) -> Tensor:
    """What the first gated layer makes of the tokens."""
    seen: list[Tensor] = []
    hook = model.cross_layers[0].register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        model(**inputs)
    hook.remove()
    return seen[0]


def test_a_tag_sees_its_own_tile_alone(joined: Callable) -> None:
    model, processor = joined("x")
    inputs = processor("Read <image> now", [WIDE])
    spans = inputs.tile_spans[0].tolist()
    before = first_layer(model, inputs)
    for tile in range(4):
        other = copy.deepcopy(inputs)
        other["pixel_values"][tile] += 1.0
        changed = (first_layer(model, other) != before).any(-1)[0].tolist()
        assert changed == [start <= tile < stop for start, stop in spans]
    assert {(tile, tile + 1) for tile in range(4)} <= set(map(tuple, spans))
    assert spans[0] == [0, 0]
    assert spans[-1] == [0, 4]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_before_an_image_or_in_other_rows_knows_of_it(joined: Callable, kind: str) -> None:
    model, processor = joined(kind)
    inputs = processor(TEXTS[1:], IMAGES[1:])
    with torch.no_grad():
        before = model(**inputs).logits
        other = copy.deepcopy(inputs)
        other["pixel_values"][-3:] += 1.0  # the last image of the last row: two tiles, thumbnail
        after = model(**other).logits
    assert torch.equal(before[0], after[0])
    at = [i for i, (a, b) in enumerate(zip(before[1], after[1], strict=True)) if not a.equal(b)]
    ids = inputs.input_ids[1].tolist()
    text = processor.tokenizer.decode(ids[: at[0]])
    assert text.count("<Image>") == 3  # bit for bit the same up to the third image
    assert at == list(range(at[0], len(ids)))


def test_a_batch_without_images_skips_the_gated_layers(joined: Callable) -> None:
    model, processor = joined("x")
    calls: list[int] = []
    model.cross_layers[0].register_forward_hook(lambda *_: calls.append(1))
    inputs = processor(["one", "two words"])
    with torch.no_grad():
        seeing = model(**inputs).logits
        plain = model.language_model(
            **inputs, position_ids=(inputs.attention_mask.cumsum(-1) - 1).clamp(min=0)
        ).logits
    assert calls == []
    assert torch.equal(seeing, plain)
    # Of an image in one tile NVLM-H has the thumbnail alone.
    hybrid, of = joined("h")
    hybrid.cross_layers[0].register_forward_hook(lambda *_: calls.append(1))
    hybrid(**of("<image> here", [SQUARE]))
    assert calls == []


@pytest.mark.parametrize("kind", KINDS)
def test_files_give_the_model_and_its_processor_back(
    joined: Callable, kind: str, tmp_path: Path
) -> None:
    model, processor = joined(kind, cross_ffn=False)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = NvlmForConditionalGeneration.from_pretrained(tmp_path)
    by_auto = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert type(by_auto) is type(again) is NvlmForConditionalGeneration
    of = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(of, NvlmProcessor)
    inputs, others = processor(TEXTS, IMAGES), of(TEXTS, IMAGES)
    assert all(torch.equal(inputs[name], others[name]) for name in inputs)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, again(**others).logits)
        assert torch.equal(model(**inputs).logits, by_auto(**others).logits)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for layer in copied.cross_layers:
            layer.cross_attn_attn_gate.zero_()  # of the copy alone
        assert torch.equal(model(**inputs).logits, again(**inputs).logits)
        if kind == "x":
            assert not torch.equal(copied(**inputs).logits, again(**inputs).logits)


def test_any_language_model_and_any_tower(joined: Callable) -> None:
    torch.manual_seed(0)
    gpt = GPT2LMHeadModel(GPT2Config(vocab_size=4000, n_embd=16, n_layer=2, n_head=2)).eval()
    convolutional = ResNetModel(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic")
    ).eval()
    for kind in KINDS:
        with pytest.raises(ConfigError, match="pass `tile_size`"):
            NvlmForConditionalGeneration.from_parts(gpt, convolutional, kind=kind)
        model = NvlmForConditionalGeneration.from_parts(
            gpt, convolutional, kind=kind, tile_size=64, cross_placement="after"
        )
        assert (model.config.vision_tokens, model.config.vision_prefix) == (64, 0)
        tile = torch.zeros(1, 3, 64, 64)
        vision = model.encode_images(tile, [1])
        slots = [] if kind == "x" else [3999] * 16
        model.config.image_token_id = 3999
        logits = model(input_ids=torch.tensor([[1, *slots, 2]]), vision=vision).logits
        assert logits.shape == (1, 2 + len(slots), 4000)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["frozen", "lora", "full"])
def test_what_is_trained_learns_and_what_is_frozen_stays(
    joined: Callable, kind: str, how: str, tmp_path: Path
) -> None:
    model, processor = joined(kind)
    inputs = processor(TEXTS, IMAGES)
    labels = inputs.input_ids.masked_fill(inputs.attention_mask == 0, -100)
    model.set_trainable(how, rank=2).train()
    before = {name: x.detach().clone() for name, x in model.named_parameters()}
    optimizer = torch.optim.AdamW((x for x in model.parameters() if x.requires_grad), lr=0.01)
    losses = []
    for _ in range(3):
        loss = model(**inputs, labels=labels).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < losses[0]
    moved = {name for name, x in model.named_parameters() if not x.equal(before[name])}
    assert not any(name.startswith("vision_model") for name in moved)
    assert any(name.startswith("mlp1") for name in moved)
    own = {name for name in moved if name.startswith("language_model")}
    if how == "frozen":
        assert not own
    elif how == "lora":
        assert own
        assert all("lora_" in name for name in own)
        with pytest.raises(ConfigError, match="merge_adapters"):
            model.save_pretrained(tmp_path)
        model.eval()
        with torch.no_grad():
            adapted = model(**inputs).logits
            merged = model.merge_adapters()(**inputs).logits
        assert torch.allclose(adapted, merged, atol=1e-4)
        model.save_pretrained(tmp_path)
        again = NvlmForConditionalGeneration.from_pretrained(tmp_path)
        assert torch.equal(again(**inputs).logits, merged)


@pytest.mark.parametrize("kind", ["x", "h"])
def test_checkpointed_activations_give_the_same_gradients(joined: Callable, kind: str) -> None:
    grads = []
    for checkpointed in (False, True):
        model, processor = joined(kind)
        model.set_trainable("full").train()
        if checkpointed:
            model.activation_checkpointing_enable()
        inputs = processor(TEXTS, IMAGES)
        model(**inputs, labels=inputs.input_ids).loss.backward()
        grads.append(model.cross_layers[0].cross_attn["q_proj"].weight.grad)
    assert torch.allclose(*grads, atol=1e-6)
    assert grads[0].abs().max() > 0


def test_inputs_that_do_not_fit(joined: Callable) -> None:
    model, processor = joined("d")
    with pytest.raises(DataError, match="1 markers <image>, but there are 2 images"):
        processor("<image>", [WIDE, WIDE])
    with pytest.raises(DataError, match=r"Row 1 needs \d+ tokens, but 30 are allowed.*4 tiles"):
        processor(["short", "<image> long"], [[], [WIDE]], max_length=30)
    assert processor("<image>", [WIDE], max_tiles=1).pixel_values.shape[0] == 1
    inputs = processor("<image> here", [WIDE])
    with pytest.raises(ShapeError, match="has 4 tiles, but `tiles_per_image`"):
        model.encode_images(inputs.pixel_values, [3])
    with pytest.raises(ShapeError, match="Row 0 has 16 slots.*give 4"):
        model(input_ids=inputs.input_ids, pixel_values=inputs.pixel_values[:1], tiles_per_image=[1])
    with pytest.raises(ConfigError, match='"frozen", "lora" or "full"'):
        model.set_trainable("half")
    with pytest.raises(ConfigError, match="must be one of d, x, h"):
        NvlmForConditionalGeneration.from_parts(language(100), tower(), kind="y")
    with pytest.raises(ConfigError, match="layers are 0 to 3"):
        NvlmForConditionalGeneration.from_parts(language(100), tower(), kind="x", cross_hosts=[4])


def test_tags_of_unequal_length_are_refused_and_can_be_added(joined: Callable) -> None:
    model, processor = joined("x")
    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer.add_tokens(["<tile_1>"])
    with pytest.raises(ConfigError, match="different numbers of tokens"):
        NvlmProcessor.for_model(model, tokenizer)
    added = NvlmProcessor.for_model(model, tokenizer, add_tags=True)
    assert len(added.tokenizer("<tile_1><tile_6>", add_special_tokens=False).input_ids) == 2
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    assert model(**added("<image>", [WIDE])).logits.shape[-1] == len(tokenizer)


def test_the_gated_layer_is_that_of_llama_vision_but_for_unseen_rows() -> None:
    from transformers import MllamaTextConfig
    from transformers.models.mllama.modeling_mllama import MllamaCrossAttentionDecoderLayer

    torch.manual_seed(0)
    config = MllamaTextConfig(
        hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2,
        rms_norm_eps=1e-5, vocab_size=10, pad_token_id=0, attn_implementation="eager",
    )  # fmt: skip
    theirs = MllamaCrossAttentionDecoderLayer(config, 0).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours = GatedCrossAttention(32, 4, 2, 8, intermediate_size=48, eps=1e-5)
    ours.load_state_dict(theirs.state_dict())
    x, states = torch.randn(2, 5, 32), torch.randn(2, 6, 32)
    visible = torch.ones(2, 5, 6, dtype=torch.bool)
    visible[:, 1, 3:] = visible[0, 0] = False
    sees = visible.any(-1)
    mask = torch.zeros(2, 1, 5, 6).masked_fill(~visible.unsqueeze(1), torch.finfo().min)
    mask = mask * sees[:, None, :, None]
    with torch.no_grad():
        expected = theirs(
            x, cross_attention_states=states, cross_attention_mask=mask, attention_mask=None,
            full_text_row_masked_out_mask=sees[:, None, :, None].float(),
        )  # fmt: skip
        made = ours(x, ours.project(states), visible)
    assert torch.allclose(made[sees], expected[sees], atol=1e-5)
    assert torch.equal(made[~sees], x[~sees])
    assert not torch.equal(expected[~sees], x[~sees])  # transformers #39379
