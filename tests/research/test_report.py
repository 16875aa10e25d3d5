"""The report of a run: what it shows, and that nothing in a document can act in it."""

import base64
import hashlib
import http.server
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import html

from hanol.research import AnswerSentence, RunView, write_report
from hanol.research.report._answer import (
    answer_html,
)  # private: hostile answers as HTML, without a run
from hanol.research.report._report import (
    _inert,
    to_html,
    to_markdown,
)  # private: hostile runs as HTML, without files
from hanol.retrieval import Index, Source, SourceList, check_citations
from hanol.runs import (
    ModelAnswered,
    ReportUpdated,
    RunEnded,
    RunFolder,
    RunStarted,
    ToolReturned,
    TurnRejected,
)

EVIL = (
    "<script>document.title='pwned'</script><img src='{web}/x.png' onerror=\"document.title='x'\">"
    "</mark></div><style>body{{display:none}}</style><a href='javascript:alert(1)'>go</a>"
)
ANSWER = """Kimi Linear **cuts the KV cache by up to 75 %** with 48B parameters [1].

- It was trained on 99 T tokens [1].
- Kernels were ported to consumer hardware in 2019.
- Training cost 4.1 million dollars [9].

| Model | Score |
|---|---|
| MLA | 81.3 [2] |

서울 인구는 약 940만 명이다 [3].

<script>document.title='pwned'</script> ![x]({web}/y.png) [a link](javascript:alert(1))
[elsewhere]({web}/z)
"""


def source(number: int, title: str, text: str, **more: Any) -> Source:
    values = {"address": f"doc://1a2b3c4d/{title}#p{number}", "page": number, "sha256": "ab" * 32}
    return Source(number=number, title=title, text=text, **{**values, **more})


def sample(web: str = "http://evil.example") -> list[Any]:
    """A run with everything in it that a report shows, hostile texts in every place."""
    evil, answer = EVIL.format(web=web), ANSWER.format(web=web)
    sources = [
        source(1, "kimi.pdf", "Kimi Linear has 48B parameters and cuts the KV cache by 75 %."),
        source(2, "table.xlsx", "RULER: MLA 81.3"),
        source(3, "서울특별시.md" + evil, f"서울특별시의 인구는 약 940만 명이며 {evil}", page=None),
        source(4, "essay", "read, not cited", address=f'{web}/essay?a=1&b="2"'),
    ]
    source_list = SourceList()
    for entry in sources:
        source_list.add(entry)
    events: list[Any] = []

    def add(kind: type, **fields: Any) -> None:
        number = len(events)
        events.append(kind(number=number, time=1763720000.0 + number, **fields))

    def model(step: int, text: str) -> None:
        spent = {"prompt_tokens": 1000, "completion_tokens": 50, "seconds": 2.0}
        fixed = {"purpose": "turn", "request_sha256": "0" * 64, "finish_reason": "stop"}
        add(ModelAnswered, step=step, text=text, **spent, **fixed)

    def tool(step: int, name: str, arguments: dict[str, Any], text: str, **more: Any) -> None:
        values = {"call": 0, "sources": [], "failed": False, "seconds": 0.5} | more
        add(ToolReturned, step=step, name=name, arguments=arguments, text=text, **values)

    add(
        RunStarted,
        run_id="7f3a9c1e5b",
        question=f"How much does Kimi Linear save? {evil}",
        mode="markov",
        model="http://localhost:8000/v1#model" + evil,
        settings={"seed": 0, "note": evil},
        system_prompt="You are a research assistant.\n<tools>{}</tools>" + evil,
        tools=["search", "PythonInterpreter"],
        index=None,
        index_version=None,
        versions={"hanol": "0.1.0"},
    )
    model(
        1,
        f'<think>First the savings. {evil}</think>\n<tool_call>{{"name": "search", '
        '"arguments": {"query": ["KV cache"]}}</tool_call>',
    )
    tool(1, "search", {"query": ["KV cache", evil]}, "[1] kimi.pdf " + evil, sources=sources)
    add(ReportUpdated, step=1, report=f"75 % saved [1] {evil}", kept=False)
    code = 'print(f"{1 - 1 / 4:.0%} saved")'
    call = f'<tool_call>{{"name": "PythonInterpreter", "arguments": {{}}}}\n<code>\n{code}\n</code>'
    model(2, f"<think>Compute.</think>{call}</tool_call>")
    tool(2, "PythonInterpreter", {"code": f"{code}  # {evil}"}, "75% saved", failed=True)
    model(3, f"no action {evil}")
    add(TurnRejected, step=3, error="no_action", text="Call a tool, or answer." + evil)
    model(4, f"<answer>{answer}</answer>")
    add(
        RunEnded,
        step=4,
        termination="answer",
        answer=answer.strip(),
        citations=check_citations(answer.strip(), source_list).to_dict(),
        model_calls=4,
        tool_calls=2,
        prompt_tokens=4000,
        completion_tokens=200,
        seconds=83.0,
        money=0.0,
    )
    return events


def keep(events: list[Any], folder: Path) -> Path:
    with RunFolder(folder) as run:
        run.append(events)
    return folder


def page_of(events: list[Any]) -> Any:
    return html.document_fromstring(to_html(RunView.of(events), {}))


def test_nothing_of_a_document_becomes_an_element_or_an_address() -> None:
    page = page_of(sample())
    tags = {node.tag for node in page.iter() if isinstance(node.tag, str)}
    assert tags.isdisjoint({"script", "img", "iframe", "object", "link", "form", "svg", "base"})
    assert len(page.findall(".//style")) == 1
    for node in page.iter():
        assert not [name for name in node.attrib if name.startswith("on") or name == "style"]
        assert not {"src", "srcset", "action", "formaction"} & set(node.attrib)
    addresses = {node.get("href") for node in page.iter("a")}
    assert {a for a in addresses if not a.startswith("#")} == {
        'http://evil.example/essay?a=1&b="2"'
    }
    assert "document.title='pwned'" in page.text_content()


def test_the_policy_allows_its_own_style_and_nothing_else() -> None:
    text = to_html(RunView.of(sample()), {})
    style = re.search("<style>(.*?)</style>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = html.document_fromstring(text).find(".//meta[@http-equiv]").get("content")
    assert policy.split("; ")[:2] == ["default-src 'none'", f"style-src 'sha256-{digest}'"]
    assert "url(" not in style
    assert "@import" not in style


def test_a_citation_leads_to_its_passage_and_an_invented_one_nowhere() -> None:
    page = page_of(sample())
    answer = page.get_element_by_id("answer")
    links = answer.find_class("prose")[0].findall(".//a[@class='cite']")
    assert [link.get("href") for link in links] == [f"#source-{n}" for n in (1, 1, 2, 3)]
    for link in links:
        assert page.get_element_by_id(link.get("href")[1:]).get("class") == "hit"
        passage = page.get_element_by_id(link.get("href")[1:].replace("source", "passage"))
        closing = passage.find_class("close")[0].get("href")
        assert page.get_element_by_id(closing[1:]).get("href") == link.get("href")
    assert "48B parameters and cuts" in page.get_element_by_id("source-1").text_content()
    invented = answer.find_class("cite invented")
    assert [node.text for node in invented] == ["9"]
    ids = [node.get("id") for node in page.iter() if node.get("id")]
    assert len(ids) == len(set(ids))
    inner = {node.get("href")[1:] for node in page.iter("a") if node.get("href")[0] == "#"}
    assert inner <= set(ids)


def test_doubtful_sentences_are_marked_with_colour_symbol_and_reason() -> None:
    page = page_of(sample())
    prose = page.find_class("prose")[0]
    marked: dict[str, str] = {}
    for mark in prose.iter("mark"):
        marked[mark.get("class")] = marked.get(mark.get("class"), "") + mark.text_content()
    assert "It was trained on 99 T tokens" in marked["unsupported"]
    assert "ported to consumer hardware in 2019" in marked["uncited"]
    assert "4.1 million dollars" in marked["invented"]
    assert "75 %" not in "".join(marked.values())
    for flag in prose.find_class("flag"):
        check = page.get_element_by_id(flag.get("href")[1:])
        assert check.find_class("flag")[0].text == flag.text
        assert flag.get("title")
    reasons = page.find_class("checks")[0].text_content()
    assert "“99”" in reasons
    assert "no source 9" in reasons
    assert "1 invented" in page.find_class("legend")[0].text_content()


def test_every_step_can_be_unfolded() -> None:
    page = page_of(sample())
    steps = [page.get_element_by_id(f"step-{n}") for n in (1, 2, 3, 4)]
    assert [step.tag for step in steps] == ["details"] * 4
    first, second, third, _ = (step.text_content() for step in steps)
    assert "First the savings." in first
    assert '"KV cache"' in first
    assert "75 % saved [1]" in first
    assert 'print(f"{1 - 1 / 4:.0%} saved")' in second
    assert "failed" in second
    assert "no_action" in third
    assert "83" not in page.find_class("summary")[0].text_content()
    assert "1 min 23 s" in page.find_class("summary")[0].text_content()


def test_a_run_that_has_not_ended_has_a_page_too(tmp_path: Path) -> None:
    folder = keep(sample()[:4], tmp_path / "run")
    page = html.document_fromstring(write_report(folder).read_text("utf-8"))
    assert "The run is not finished." in page.get_element_by_id("answer").text_content()
    assert "1 model call " in page.find_class("summary")[0].text_content()
    assert "not finished" in (folder / "report.md").read_text("utf-8")


def test_markdown_shows_the_same_and_no_text_ends_its_block() -> None:
    events = sample()
    trap = "```\n# not a heading\n<script>\n`````\n"
    events[2] = events[2].model_copy(update={"text": trap})
    text = to_markdown(RunView.of(events))
    assert f"``````\n{trap}\n``````" in text
    outside = re.sub(r"^(`{3,})\w*\n.*?\n\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert "<" not in re.sub("`[^`]*`", "", outside)
    assert "# not a heading" not in outside
    assert "**[1]** kimi.pdf, page 1" in text
    assert '- ✗ **invented**: "Training cost 4.1 million dollars' in text


WORDS = st.text(alphabet="ab *_`#>|-[]()<&!~\n0123456789⁅⁆\\\"'한", max_size=80)


@given(WORDS, st.data())
def test_any_answer_stays_within_the_tags_of_prose(answer: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=6)))
    sentences = [
        AnswerSentence(answer[a:b], a, b, "uncited", 'No "source" <b>')
        for a, b in zip(cuts[::2], cuts[1::2], strict=False)
    ]
    rendered = answer_html(answer, sentences, {1, 2}, {"https://known.example/"})
    tags = set(re.findall(r"</?([a-z0-9]+)", rendered))
    prose = "p br em strong code pre ul ol li h1 h2 h3 h4 h5 h6 hr blockquote table thead tbody tr"
    assert tags <= {*prose.split(), "th", "td", "mark", "a", "span"}
    root = html.fragment_fromstring(rendered, create_parent="div")
    assert {a.get("href")[0] for a in root.iter("a")} <= {"#"}
    kept = re.sub(r"\W", "", answer)
    for character in set(re.findall("[ab한]", kept)):  # nothing that was written is lost
        assert root.text_content().count(character) >= kept.count(character)


def test_emphasis_across_two_sentences_keeps_its_elements_whole() -> None:
    answer = "**First part. Second part** ends [1]."
    sentences = [
        AnswerSentence("", 0, 13, "uncited", ""),
        AnswerSentence("", 14, 37, "unsupported", ""),
    ]
    root = html.fragment_fromstring(answer_html(answer, sentences, {1}, ()), create_parent="div")
    assert root.find(".//strong").text_content() == "First part.○ Second part"
    texts = ["".join(m.itertext()) for m in root.iter("mark")]
    assert texts == ["First part.", "Second part", " ends 1."]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    folder = tmp_path / "notes"
    folder.mkdir()
    sentences = [f"Sentence {n} speaks of bridge number {n} in the town." for n in range(200)]
    (folder / "bridges.md").write_text("# Bridges\n\n" + " ".join(sentences), "utf-8")
    with Index.open(folder) as index:
        index.add()
        yield index


def cited_run(index: Index, folder: Path) -> tuple[Path, Source]:
    source_list = SourceList()
    passage = next(p for p in index.search("bridge number 100", k=20) if "number 100" in p.text)
    source = source_list.cite_passage(passage)
    events = sample()
    events[0] = events[0].model_copy(update={"index": str(index.folder)})
    events[2] = events[2].model_copy(update={"sources": [source]})
    return keep(events, folder), source


def test_a_passage_stands_in_the_text_around_it(index: Index, tmp_path: Path) -> None:
    folder, source = cited_run(index, tmp_path / "run")
    page = html.document_fromstring(write_report(folder).read_text("utf-8"))
    passage = page.get_element_by_id("passage-1")
    before, after = (node.text for node in passage.find_class("around"))
    whole = (index.folder / "bridges.md").read_text("utf-8")
    assert before + source.text + after in whole
    assert min(len(before), len(after)) > 300


def test_lines_of_a_pdf_flow_and_its_short_ones_stay() -> None:
    events = sample()
    text = (
        "A line that is as wide as the column of the page was,\nand its long-\nterm end.\n"
        "In a column that is as wide as this one here, a well-\nknown word.\nk  v\n1  2"
    )
    events[2] = events[2].model_copy(update={"sources": [source(1, "kimi.pdf", text)]})
    assert page_of(events).get_element_by_id("source-1").text_content() == (
        "A line that is as wide as the column of the page was, and its long-\nterm end.\n"
        "In a column that is as wide as this one here, a well-known word.\nk  v\n1  2"
    )


def test_a_document_that_has_changed_shows_only_what_was_read(index: Index, tmp_path: Path) -> None:
    folder, source = cited_run(index, tmp_path / "run")
    (index.folder / "bridges.md").write_text("Other text.", "utf-8")
    index.add()
    page = html.document_fromstring(write_report(folder).read_text("utf-8"))
    assert page.get_element_by_id("passage-1").find_class("around") == []
    assert source.text in page.get_element_by_id("source-1").text_content()
    shutil.rmtree(index.folder)
    assert write_report(folder).exists()


def test_rollouts_of_a_heavy_run_have_pages_that_are_linked(tmp_path: Path) -> None:
    events = sample()
    rollout = {"name": "rollout", "arguments": {"rollout": 1, "answer": "75 %", "spent": {}}}
    events[2] = events[2].model_copy(update=rollout)
    keep(events, tmp_path / "run")
    keep(sample(), tmp_path / "run" / "rollouts" / "01")
    page = html.document_fromstring(write_report(tmp_path / "run").read_text("utf-8"))
    links = [a.get("href") for a in page.get_element_by_id("step-1").iter("a")]
    assert "rollouts/01/report.html" in links
    assert (tmp_path / "run" / "rollouts" / "01" / "report.html").exists()


# In a real browser.

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="NO CHROMIUM: the page was not looked at")


@contextmanager
def listener() -> Iterator[tuple[str, list[str]]]:
    """An address that notes every request to it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def chromium(profile: Path, *arguments: str) -> tuple[str, str]:
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={profile}",
        "--disable-background-networking",
        "--no-first-run",
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
        "--virtual-time-budget=3000",
        "--force-prefers-reduced-motion",
        # Otherwise a screenshot now and then lacks a tile that is not drawn yet.
        "--run-all-compositor-stages-before-draw",
        "--virtual-time-budget=2000",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@in_browser
def test_in_a_browser_nothing_runs_and_nothing_is_fetched(tmp_path: Path) -> None:
    with listener() as (web, asked):
        page = write_report(keep(sample(web), tmp_path / "run"))
        # The listener does hear of what a page without our escaping and policy would do.
        trap = tmp_path / "trap.html"
        trap.write_text(f"<title>trap</title>{EVIL.format(web=web)}", "utf-8")
        _, log = chromium(tmp_path / "p1", "--dump-dom", trap.as_uri())
        assert asked == ["/x.png"]
        asked.clear()
        dom, log = chromium(tmp_path / "p2", "--dump-dom", page.as_uri())
        assert asked == []
    assert "CONSOLE" not in log
    title = html.document_fromstring(dom).find(".//title").text
    assert title.startswith("How much does Kimi Linear save?")


@in_browser
def test_in_a_browser_a_citation_opens_its_passage(tmp_path: Path) -> None:
    from PIL import Image

    page = write_report(keep(sample(), tmp_path / "run"))
    shots = {}
    for name, fragment, size in (
        ("plain", "", "1280,900"),
        ("open", "#source-1", "1280,900"),
        ("other", "#source-3", "1280,900"),
        ("phone", "", "500,900"),
        ("phone-open", "#source-1", "500,900"),
    ):
        png = tmp_path / f"{name}.png"
        place = f"{page.as_uri()}{fragment}"
        chromium(tmp_path / name, f"--window-size={size}", f"--screenshot={png}", place)
        with Image.open(png) as image:
            shots[name] = image.convert("RGB")
    highlight = (255, 241, 184)

    def share(name: str) -> float:
        colours = shots[name].getcolors(1 << 24)
        width, height = shots[name].size
        return sum(n for n, colour in colours if colour == highlight) / (width * height)

    # The highlight of a passage is to be seen exactly where one is open.
    assert share("plain") == share("phone") == 0
    assert min(share("open"), share("phone-open"), share("other")) > 0.002
    # The answer stays where it was, and the passage beside it hides nothing of it.
    answer = (0, 0, 780, 900)
    assert shots["plain"].crop(answer).tobytes() == shots["open"].crop(answer).tobytes()
    assert len(shots["plain"].crop((700, 200, 780, 900)).getcolors(1 << 24)) > 20  # its text


@in_browser
def test_on_paper_everything_is_unfolded(tmp_path: Path) -> None:
    from pypdf import PdfReader

    page = write_report(keep(sample(), tmp_path / "run"))
    pdf = tmp_path / "report.pdf"
    chromium(tmp_path / "p", f"--print-to-pdf={pdf}", "--no-pdf-header-footer", page.as_uri())
    pages = PdfReader(pdf).pages
    text = " ".join(" ".join(page.extract_text() for page in pages).split())
    for part in ("First the savings.", "75% saved", "no_action", "cuts the KV cache by 75 %"):
        assert part in text
    assert "http://evil.example/essay" in text


@pytest.mark.parametrize("text", ["!" * 300_000, "\n" * 300_000, "> " * 200_000, "- \n" * 100_000])
def test_long_runs_of_one_character_take_no_time(text: str) -> None:
    began = time.process_time()
    _inert(text)
    assert time.process_time() - began < 5
