"""An answer as HTML: its Markdown rendered, its citations linked, its doubtful sentences marked.

The text is the model's, so it is untrusted: HTML in it is shown as text, images are not loaded,
and a link stays a link only where its address was retrieved in the run.
"""

import html
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from hanol.research.report._view import SYMBOLS, AnswerSentence
from hanol.retrieval import citation_numbers
from hanol.scoring import CITATION

# Markdown moves text about, so sentences are marked in it before it is rendered. Punctuation that
# nobody writes: Markdown's rule for emphasis treats it as it treats a bracket.
_OPEN, _CLOSE = "⁅", "⁆"
_MARK = re.compile(f"{_OPEN}(\\d*){_CLOSE}")
# Where a line of Markdown begins to be text: after list bullets, headings, quotes, table cells.
_FENCE = re.compile(r"\s*(?:```|~~~)[^\n]*\n")
_LEAD = re.compile(r"(?:\s|[-*+]\s|\d{1,9}[.)]\s|#{1,6}\s|>|\|)*")


@dataclass
class _RenderState:
    """What the rules of the renderer know while one answer is rendered."""

    sentences: Sequence[AnswerSentence]
    known: Collection[int]
    open: int | None = None
    cited: int = 0


def answer_html(
    answer: str, sentences: list[AnswerSentence], known: Collection[int], addresses: Collection[str]
) -> str:
    """An answer, untrusted Markdown, as HTML that is safe to put into a page.

    Citations link to "#source-N" and have the ids "cite-1", "cite-2" and so on, in order; those
    that are not `known` are shown as invented. Only `addresses` become links.
    """
    md = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable("table")
    md.disable(["image", "reference", "html_block", "html_inline", "code"])
    web = {address for address in addresses if address.startswith(("http://", "https://"))}
    md.validateLink = lambda url: url in web  # type: ignore[method-assign]
    for kind, render in _RULES.items():
        md.add_render_rule(kind, _rule(render))
    return md.render(_marked(answer, sentences), {"state": _RenderState(sentences, known)})


def _marked(answer: str, sentences: Sequence[AnswerSentence]) -> str:
    """Put marks around the sentences that a reader should look at."""
    # Own marks in the answer would end a sentence; same length, so that spans still fit.
    answer = answer.replace(_OPEN, "[").replace(_CLOSE, "]")
    parts, last = [], 0
    for number, sentence in enumerate(sentences):
        text = answer[sentence.start : sentence.end]
        start, end = sentence.start, sentence.start + len(text.rstrip(" \n\t|"))
        if fence := _FENCE.match(text):
            start += fence.end()
        elif lead := _LEAD.match(text):
            start += lead.end()
        if sentence.verdict in SYMBOLS and start < end:
            parts += [answer[last:start], f"{_OPEN}{number}{_CLOSE}"]
            # A fence has to end as it did; its symbol is put behind it.
            parts += [answer[start:end], "" if fence else f"{_OPEN}{_CLOSE}"]
            last = end
    return "".join([*parts, answer[last:]])


def _text(token: Token, state: _RenderState) -> str:
    parts = []
    for i, piece in enumerate(_MARK.split(token.content)):
        if i % 2 == 0:
            parts.append(_in_sentence(_cited(piece, state), state))
        elif piece:
            state.open = int(piece) if int(piece) < len(state.sentences) else None
        elif state.open is not None:
            parts.append(_symbol(state.sentences[state.open], state.open))
            state.open = None
    return "".join(parts)


def _in_sentence(text: str, state: _RenderState) -> str:
    if state.open is None or not text:
        return text
    sentence = state.sentences[state.open]
    note = html.escape(sentence.note)
    return f'<mark class="{sentence.verdict}" title="{note}">{text}</mark>'


def _symbol(sentence: AnswerSentence, number: int) -> str:
    note = html.escape(f"{sentence.verdict}: {sentence.note}")
    return (
        f'<a class="flag {sentence.verdict}" href="#check-{number}" title="{note}" '
        f'aria-label="{note}">{SYMBOLS[sentence.verdict]}</a>'
    )


def _cited(text: str, state: _RenderState) -> str:
    """Escape a text, its numbers in brackets linked."""
    parts = []
    for i, piece in enumerate(CITATION.split(text)):
        if i % 2 == 0:
            parts.append(html.escape(piece))
            continue
        for number in citation_numbers(piece):
            parts.append(_cite(number, state))
    return "".join(parts)


def _cite(number: int, state: _RenderState) -> str:
    if number not in state.known:
        note = f"Source {number} does not exist in this run"
        return (
            f'<span class="cite invented" title="{note}">{number}'
            f'<span aria-hidden="true">{SYMBOLS["invented"]}</span>'
            f'<span class="hidden"> ({note})</span></span>'
        )
    state.cited += 1
    return (
        f'<a class="cite" id="cite-{state.cited}" href="#source-{number}" '
        f'aria-label="Source {number}">{number}</a>'
    )


def _code(token: Token, state: _RenderState) -> str:
    code = f"<code>{html.escape(_MARK.sub('', token.content))}</code>"
    if token.type != "fence":
        return code
    mark = _MARK.match(token.content)
    number = int(mark[1] or -1) if mark else -1
    known = 0 <= number < len(state.sentences)
    return f"<pre>{code}</pre>" + (_symbol(state.sentences[number], number) if known else "")


def _link(token: Token, state: _RenderState) -> str:
    href = html.escape(str(token.attrGet("href")))
    return f'<a class="web" href="{href}" title="{href}" rel="noreferrer noopener">'


def _rule(render: Callable[[Token, _RenderState], str]) -> Callable[..., str]:
    """A rule with the signature that the renderer calls."""

    def rule(
        self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: dict[str, Any]
    ) -> str:
        return render(tokens[index], env["state"])

    return rule


_RULES = {"text": _text, "code_inline": _code, "fence": _code, "link_open": _link}
