"""`report.md` and `report.html` of a run, computed from its log.

The page needs no script and loads nothing: a citation is a link to its passage, which CSS shows
while it is the target of the address; a strict policy forbids everything else. Documents, model
text and file names are untrusted and escaped everywhere.
"""

import base64
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from hanol.errors import HanolError
from hanol.files import refuse_links, replace_text, without_codes
from hanol.research.report._answer import answer_html
from hanol.research.report._view import (
    MEANINGS,
    PURPOSES,
    SYMBOLS,
    RunView,
    cited_numbers,
    counted,
    duration,
    surroundings,
)
from hanol.retrieval import Index, Source
from hanol.runs import ReportUpdated, RunFolder
from hanol.tools import parse_turn

_HANGUL = re.compile(r"[\uac00-\ud7a3]")


def write_report(run_folder: str | os.PathLike[str], *, index: Index | None = None) -> Path:
    """Write `report.md` and `report.html` beside the log of a run, finished or not.

    The rollouts of a heavy run get pages of their own, which its page links.

    Args:
        index: For the text around the passages; None opens the folder that the run names. Where
            that is gone or has changed, the page shows the passages alone.

    Returns:
        Path of the HTML page.

    Raises:
        RunError: There is no run in this folder, or its log is damaged.
        WriteError: The disk is full, or there is a link in the folder.
    """
    folder = Path(run_folder)
    refuse_links(folder)
    run = RunView.of(RunFolder(folder).events())
    with ExitStack() as stack:
        if index is None and run.started.index is not None:
            with suppress(HanolError):  # it is gone: the log has the passages
                index = stack.enter_context(Index.open(run.started.index))
        around = {} if index is None else surroundings(run.sources.values(), index)
        for log in sorted(folder.glob("rollouts/*/events.jsonl")):
            write_report(log.parent, index=index)
    replace_text(folder / "report.md", to_markdown(run))
    page = folder / "report.html"
    replace_text(page, to_html(run, around))
    return page


def to_html(run: RunView, around: Mapping[int, tuple[str, str]]) -> str:
    """The page; `around` is the text before and after passages, see `surroundings`."""
    from jinja2 import Environment, StrictUndefined  # 50 ms that other commands need not wait for
    from markupsafe import Markup

    here = files("hanol.research.report")
    style = (here / "report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((here / "report.html.jinja").read_text("utf-8"))
    web = {source.address for source in run.sources.values()}
    answer = answer_html(run.answer, run.sentences, run.sources, web) if run.answer else None
    verdicts = Counter(sentence.verdict for sentence in run.sentences)
    links = [number for number in cited_numbers(run.answer or "") if number in run.sources]
    return template.render(
        run=run,
        lang="ko" if _HANGUL.search(run.started.question) else "en",
        day=_day(run),
        style=Markup(style),  # noqa: S704 - our own file
        style_hash=f"sha256-{digest}",
        answer=None if answer is None else Markup(answer),  # noqa: S704 - escaped by its renderer
        verdicts=[(name, verdicts[name]) for name in MEANINGS if verdicts[name]],
        doubts=[(i, s) for i, s in enumerate(run.sentences) if s.symbol],
        symbols=SYMBOLS,
        meanings=MEANINGS,
        cited=run.cited,
        uncited=[source for source in run.sources.values() if source not in run.cited],
        # Where a passage's closing link leads: to the first citation of it.
        back={number: f"cite-{links.index(number) + 1}" for number in set(links)},
        around=around,
        parse_turn=parse_turn,
        purposes=PURPOSES,
        counted=counted,
        duration=duration,
        pretty=_pretty,
        flowing=_flowing,
        without_code=_without_code,
    )


def to_markdown(run: RunView) -> str:
    """The same as plain Markdown: answer, checks, sources, then every step."""
    parts = [f"# {_inline(run.started.question)}"]
    missing = "No answer was found." if run.ended else "The run is not finished."
    parts.append(_inert(run.answer) if run.answer else f"*{missing}*")
    parts.append(f"*{_inline(run.summary)}*")
    doubts = [sentence for sentence in run.sentences if sentence.symbol]
    if doubts:
        lines = (
            f'- {s.symbol} **{s.verdict}**: "{_inline(s.text)}" {_inline(s.note)}' for s in doubts
        )
        parts += ["## Sentences to check", "\n".join(lines)]
    if run.sources:
        parts.append("## Sources")
        parts += [_source_markdown(source) for source in run.cited]
        rest = len(run.sources) - len(run.cited)
        parts += [f"{counted(rest, 'more passage')} read, not cited."] * (rest > 0)
    parts.append("## Steps")
    for step in run.steps:
        parts.append(f"### {step.number}. {_inline(step.title)}")
        parts += [block for event in step.events for block in _event_markdown(event)]
    parts.append(f"Run {run.started.run_id}, model {_inline(run.started.model)}, {_day(run)}.")
    return "\n\n".join(parts) + "\n"


def _event_markdown(event: Any) -> list[str]:
    if event.type == "model_answered":
        turn = parse_turn(event.text)
        if event.purpose != "turn":
            return [f"**{PURPOSES[event.purpose].capitalize()}**", _fenced(event.text)]
        thought = [_quoted(_inert(turn.think))] if turn.think else []
        thought += ["*Repaired: the turn was read leniently.*"] * (
            turn.repaired or event.native_calls
        )
        return thought + ([_fenced(event.text)] if turn.error else [])
    if event.type == "tool_returned":
        code = event.arguments.get("code")
        rest = _without_code(event.arguments)
        blocks = [f"**Call {_code(event.name)}**" + (" (failed)" if event.failed else "")]
        blocks += [_fenced(_pretty(rest), "json")] if rest or code is None else []
        blocks += [_fenced(str(code), "python")] if code is not None else []
        return [*blocks, _fenced(event.text)]
    if event.type == "turn_rejected":
        return [f"**Format error: {_inline(event.error)}.** {_inline(event.text)}"]
    if isinstance(event, ReportUpdated):
        return [] if event.kept else ["**Report**", _quoted(_inert(event.report))]
    return ["**The conversation starts again from this summary**", _quoted(_inert(event.summary))]


def _source_markdown(source: Source) -> str:
    page = f", page {source.page}" if source.page else ""
    head = f"**[{source.number}]** {_inline(source.title)}{page}, {_code(source.address)}"
    return f"{head}\n\n{_quoted(_inert(source.text))}"


def _day(run: RunView) -> str:
    return datetime.fromtimestamp(run.started.time, UTC).strftime("%Y-%m-%d")


def _flowing(text: str, source: Source) -> str:
    """Text of a PDF without the line ends of its layout; short lines, as of tables, stay."""
    is_pdf = ".pdf" in source.address.lower()
    return re.sub(r"(?<=[^\n]{50})-?\n(?=\S)", _line_end, text) if is_pdf else text


def _line_end(found: re.Match[str]) -> str:
    return "-" if found[0][0] == "-" else " "  # "long-" and "context" are one word


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _without_code(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if key != "code"}


def _inert(text: str) -> str:
    """Markdown that loads nothing: no HTML, images are links, no fence is drawn as a diagram."""
    # Each from the start of its run, and within a line: else long runs take the square of time.
    text = re.sub(r"(?<!!)!+(?=\[)", "", without_codes(text).replace("<", "&lt;"))
    return re.sub(r"^([ \t>*+-]*(?:`{3,}|~{3,}))[ \t]*[^`\s][^`\n]*$", r"\1text", text, flags=re.M)


def _inline(text: str) -> str:
    """The text on one line, with Markdown's characters escaped."""
    return re.sub(r"([\\`*_\[\]#|])", r"\\\1", _inert(" ".join(text.split())))


def _code(text: str) -> str:
    """The text in a code span that nothing in it ends."""
    inner = " ".join(without_codes(text).replace("`", "'").split())
    return f"`{inner}`"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def _fenced(text: str, language: str = "") -> str:
    """A code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{without_codes(text)}\n{fence}"
