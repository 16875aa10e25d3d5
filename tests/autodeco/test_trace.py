"""What a trace says about each token, and that it can be looked at whatever the text is."""

import io
import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread
from rich.cells import cell_len
from rich.console import Console
from tests.autodeco.conftest import build, wrap
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from hanol.autodeco import DecodingTrace, TracedToken, trace
from hanol.errors import ConfigError

HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "}</style><script>", "&amp;",
    "[bold red]no[/bold red]", "\x1b[31mred\x1b[0m", "\u202eevil", "\u2066x", "$\\frac{", "${x}$",
    "\r\n", "\x00", "\ud7ff", "\u200d", "한올", "漢字", "\U0001f469\u200d\U0001f4bb", "\t", "    ",
    " a", "\n\n", "", "e\u0301",
]  # fmt: skip


def written(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompt: str,
    *,
    max_new_tokens: int = 12,
    seed: int = 0,
    greedy: bool = False,
) -> DecodingTrace:
    """The trace of a completion that the heads drew."""
    ids = torch.tensor([tokenizer(prompt).input_ids or [tokenizer.bos_token_id]])
    torch.manual_seed(seed)
    out = model.generate(ids, max_new_tokens=max_new_tokens, do_sample=not greedy, top_k=0)
    new = out[0, ids.shape[1] :].tolist()
    ends = model.generation_config.eos_token_id
    stopped = new[-1] == ends
    return trace(model, tokenizer, prompt, new, finish_reason="stop" if stopped else "length")


def token(text: str, temperature: float = 0.8, top_p: float = 0.7, **more: Any) -> TracedToken:
    values = {"id": 7, "nucleus_size": 3, "base_logprob": -1.0, "logprob": -0.5, **more}
    return TracedToken(text=text, temperature=temperature, top_p=top_p, **values)


def made_of(texts: list[str], prompt: str = "", **values: Any) -> DecodingTrace:
    return DecodingTrace(
        prompt=prompt, text="".join(texts), finish_reason="length",
        tokens=[token(text, **values) for text in texts],
    )  # fmt: skip


def printed(shown: DecodingTrace, width: int = 40, *, colour: bool = True) -> str:
    console = Console(
        file=io.StringIO(), width=width, color_system="truecolor" if colour else None,
        legacy_windows=False,
    )  # fmt: skip
    console.print(shown)
    return console.file.getvalue()


# -- the values


def test_values_are_those_of_each_step(
    base: PreTrainedModel, byte_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Against passes over each prefix on its own, without a cache."""
    model = wrap(base, tmp_path)
    seen = written(model, byte_tokenizer, "def f(x):", max_new_tokens=12, seed=3)
    ids = byte_tokenizer("def f(x):").input_ids
    assert len(seen.tokens) == 12 or seen.finish_reason == "stop"
    for step in seen.tokens:
        with torch.no_grad():
            out = model(torch.tensor([ids]), output_base_logits=True)
        probs = out.logits[0, -1].softmax(-1)
        assert step.temperature == pytest.approx(out.temperature[0, -1].item(), abs=1e-5)
        assert step.top_p == pytest.approx(out.top_p[0, -1].item(), abs=1e-5)
        assert step.nucleus_size == (probs > 0).sum()
        assert step.logprob == pytest.approx(probs[step.id].log().item(), abs=1e-4)
        base_logprob = out.base_logits[0, -1].float().log_softmax(-1)[step.id].item()
        assert step.base_logprob == pytest.approx(base_logprob, abs=1e-4)
        assert step.logprob > -100  # a token of the nucleus
        ids = [*ids, step.id]


def test_text_and_pieces(byte_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = wrap(build("llama"), tmp_path)
    seen = written(model, byte_tokenizer, "한올", max_new_tokens=60, seed=5)
    assert seen.text == "".join(piece.text for piece in seen.tokens)
    assert seen.text == byte_tokenizer.decode(
        [piece.id for piece in seen.tokens], skip_special_tokens=True
    )
    assert any(piece.text == "" for piece in seen.tokens)  # bytes of a character
    assert written(model, byte_tokenizer, "한올", max_new_tokens=60, seed=5) == seen
    assert written(model, byte_tokenizer, "한올", max_new_tokens=60, seed=6) != seen


def test_greedy_is_the_bases(byte_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    base = build("llama")
    seen = written(wrap(base, tmp_path), byte_tokenizer, "ab", max_new_tokens=8, greedy=True)
    ids = torch.tensor([byte_tokenizer("ab").input_ids])
    plain = base.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    assert [step.id for step in seen.tokens] == plain.tolist()


def test_empty_prompt_and_long_text(
    byte_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    seen = written(wrap(build("llama"), tmp_path), byte_tokenizer, "", max_new_tokens=100, seed=1)
    assert len(seen.tokens) > 64  # more than are scored at a time
    assert len({step.temperature for step in seen.tokens}) > 10


def test_model_without_a_top_p_head_keeps_everything(
    byte_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = wrap(build("llama"), tmp_path)
    model.config.enable_top_p_head = False
    seen = written(model, byte_tokenizer, "ab", max_new_tokens=4)
    assert {(step.top_p, step.nucleus_size) for step in seen.tokens} == {(1.0, 260)}


def test_model_without_heads_is_refused(byte_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(ConfigError, match="LlamaForCausalLM without heads.*from_base"):
        trace(build("llama"), byte_tokenizer, "ab", [1, 2])


def test_json_round_trip(byte_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    seen = written(
        wrap(build("llama"), tmp_path), byte_tokenizer, "한올", max_new_tokens=30, seed=4
    )
    assert DecodingTrace.model_validate_json(seen.model_dump_json()) == seen
    plain = json.loads(seen.model_dump_json())
    assert plain["tokens"][0].keys() == {
        "id", "text", "temperature", "top_p", "nucleus_size", "base_logprob", "logprob",
    }  # fmt: skip


# -- in a terminal


def test_background_is_the_temperature() -> None:
    shown = DecodingTrace(
        prompt="", text="abc", finish_reason="length",
        tokens=[token("a", 0.0), token("b", 1.0), token("c", 2.0)],
    )  # fmt: skip
    out = printed(shown, width=200)
    blue, white, red = (
        out.index(f"48;2;{c}") for c in ("96;165;250", "243;244;246", "248;113;113")
    )
    assert blue < white < red
    assert "temperature" in out.splitlines()[-3]  # the legend


def test_bars_of_top_p_stand_under_their_tokens() -> None:
    shown = DecodingTrace(
        prompt="x=", text="ab\ncdef", finish_reason="length",
        tokens=[token("ab", top_p=0.0), token("\n", top_p=1.0), token("cdef", top_p=0.5)],
    )  # fmt: skip
    lines = printed(shown, colour=False).splitlines()
    assert lines[:4] == ["x=ab↵", "  ▁▁█", "cdef", "▅▅▅▅"]


def test_what_cannot_be_seen_is_marked() -> None:
    lines = printed(made_of(["\t", "    ", "", " a", "\n  "]), colour=False).splitlines()
    assert lines[0] == "⇥····◌ a↵"
    assert lines[2] == "··"


@given(
    texts=st.lists(st.sampled_from(HOSTILE) | st.text(max_size=12), max_size=12),
    width=st.integers(min_value=4, max_value=50),
)
def test_lines_fit_and_nothing_controls_the_terminal(texts: list[str], width: int) -> None:
    out = printed(made_of(texts), width, colour=False)
    assert all(cell_len(line) <= width for line in out.split("\n"))
    assert not set(out) & {"\x1b", "\r", "\x00", "\u202e", "\u2066", "\x07"}


def test_markup_of_rich_is_text() -> None:
    assert "[bold red]no[/bold red]" in printed(made_of(["[bold red]no[/bold red]"]), colour=False)


# -- as a page


class Page(HTMLParser):
    """The elements of a page and the text in its `pre`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self._inside = self._inside or tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "pre"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.text += data


@given(
    texts=st.lists(st.sampled_from(HOSTILE) | st.text(max_size=12), max_size=8),
    prompt=st.sampled_from(HOSTILE) | st.text(max_size=12),
)
def test_page_has_no_element_that_is_not_ours(texts: list[str], prompt: str) -> None:
    page = made_of(texts, prompt).to_html()
    read, ours = Page(page), Page(made_of(["x"] * len(texts), "y").to_html())
    assert read.names == ours.names
    assert read.attributes == ours.attributes
    assert "script" not in read.names
    assert not set(page) & {"\x1b", "\r", "\x00", "\u202e", "\u2066"}


def test_page_shows_text_values_and_both_curves() -> None:
    page = DecodingTrace(
        prompt="if a<b:", text="\n    x", finish_reason="stop",
        tokens=[token("\n", 0.25, 0.5), token("    ", 1.0), token("x", 2.0), token("")],
    ).to_html()  # fmt: skip
    read = Page(page)
    assert read.text == "if a<b:↵\n····x◌"
    assert "temperature 0.25, top-p 0.50, 3 tokens in the nucleus" in page
    assert "log-probability -0.50 (base -1.00)" in page
    assert read.names.count("svg") == read.names.count("polyline") == 2
    assert "rgb(248,113,113)" in page
    assert "http" not in page  # nothing is loaded from elsewhere


def test_page_of_nothing() -> None:
    assert "no tokens" in made_of([]).to_html()


# -- as an image


@pytest.mark.parametrize(
    "texts", [[], ["a"], HOSTILE, ["word "] * 2000], ids=["none", "one", "hostile", "long"]
)
def test_image_of_any_text(texts: list[str], tmp_path: Path) -> None:
    shown = made_of(texts, prompt="$x$ <b>\n")
    path = shown.to_png(tmp_path / "a trace.png")
    image = imread(path)
    assert image.shape[1] == 1430
    assert 400 < image.shape[0] < 4000
    if texts:  # the blue of the bars
        blue = torch.tensor(image[..., :3]).sub(torch.tensor([30, 64, 175]) / 255).abs().amax(-1)
        assert (blue < 0.01).sum() > 20


def test_image_shows_the_temperatures(tmp_path: Path) -> None:
    made = DecodingTrace(
        prompt="", text="ab", finish_reason="stop", tokens=[token("aaaa", 0.0), token("bbbb", 2.0)]
    )
    image = torch.tensor(imread(made.to_png(tmp_path / "t.png"))[..., :3])
    rows = image.shape[0]
    for colour, side in (((96, 165, 250), 0), ((248, 113, 113), 1)):
        near = (image - torch.tensor(colour) / 255).abs().amax(-1) < 0.01
        found = near[: rows // 3].nonzero()
        assert len(found) > 100, side
    assert math.isclose(image.max().item(), 1.0)
