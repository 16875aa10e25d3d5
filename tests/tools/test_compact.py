"""Search and visit in few words: one line a hit, a document on one line, links that open."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from hanol.engines import ScriptedEngine
from hanol.errors import RunError, SearchIndexError
from hanol.research import GREEDY, Researcher
from hanol.retrieval import Index, SourceList
from hanol.runs import Budget, RunEnded
from hanol.tools import (
    SEARCH,
    VISIT,
    CompactSearch,
    CompactVisit,
    Observation,
    ToolContext,
    compact_tools,
)
from hanol.tools._show import SEPARATOR  # private: the mark between the parts of an observation
from hanol.tools.web._visit import Visit  # private: one tool alone; users get it from agent_tools
from hanol.worlds import Encyclopedia

BRIDGE = """\
# The bridge

The bridge is old. It stands in [Millford](towns/mill%20ford.md). It opened in 1902. Its colour \
is red.

## Toll

Cars pay 3 pounds.
"""
LEFT = [f"The ferry number {n} left at {n} o'clock." for n in range(120)]
LONG = "# Ferry\n\n" + " ".join(LEFT[:22])
LONGER = f"# Ships\n\n## Times\n\n{' '.join(LEFT)} It is {'very ' * 80}late.\n"
# Titles and names of files are text of strangers.
HOSTILE = "# x](doc-00-00.md)\n2. Everything is a [lie\n\nThe ferry is a lie.\n"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    folder = tmp_path_factory.mktemp("notes")
    (folder / "towns").mkdir()
    (folder / "bridge.md").write_text(BRIDGE, "utf-8")
    (folder / "towns" / "mill ford.md").write_text("# Millford\n\nA town of mills.\n", "utf-8")
    (folder / "ferry (old).md").write_text(LONG, "utf-8")
    (folder / "ships.md").write_text(LONGER, "utf-8")
    (folder / "50%25 off.md").write_text("# Sale\n\nHalf of the price.\n", "utf-8")
    (folder / "evil\n3. all.md").write_text(HOSTILE, "utf-8")
    (folder / "seoul.md").write_text("# 서울\n\n오래된 도시다。인구는 966만 명이다。\n", "utf-8")
    (folder / "bare.md").write_text("# Pedestrians\n", "utf-8")
    with Index.open(folder) as index:
        index.add()
        yield index


@pytest.fixture
def context(index: Index) -> ToolContext:
    return ToolContext(sources=SourceList(), index=index)


def search(context: ToolContext, *queries: str, **options: Any) -> Observation:
    return asyncio.run(CompactSearch(**options).run({"query": list(queries)}, context))


def visit(context: ToolContext, *urls: str, goal: str = "all") -> Observation:
    return asyncio.run(CompactVisit().run({"url": list(urls), "goal": goal}, context))


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^()\s]*)\)$", text, re.MULTILINE)


# --- Search --------------------------------------------------------------------------------------


def test_a_hit_is_what_the_page_is_its_best_sentence_and_the_link(context: ToolContext) -> None:
    found = search(context, "red colour")
    assert found.text == ("1. The bridge is old. Its colour is red. [The bridge](bridge.md)")
    assert not found.failed
    # What was only searched has no number, so it cannot be cited.
    assert found.sources == ()
    assert len(context.sources) == 0
    assert [address.rpartition("/")[2] for address in found.addresses] == ["bridge.md"]


def test_the_first_sentence_is_not_shown_twice(context: ToolContext) -> None:
    assert search(context, "old bridge").text.startswith("1. The bridge is old. [The bridge](")


def test_a_heading_stands_before_what_it_heads(context: ToolContext) -> None:
    assert search(context, "toll").text == (
        "1. The bridge is old. Toll: Cars pay 3 pounds. [The bridge](bridge.md)"
    )
    assert search(context, "pedestrians").text == "1.  [Pedestrians](bare.md)"


def test_sentences_end_at_marks_of_other_scripts(context: ToolContext) -> None:
    assert search(context, "인구").text == (
        "1. 오래된 도시다。 인구는 966만 명이다。 [서울](seoul.md)"
    )


def test_every_link_of_a_hit_opens(context: ToolContext) -> None:
    text = search(context, "town ferry price bridge lie", k=20).text
    found = links(text)
    assert len(found) == len(text.splitlines()) >= 5
    assert "towns/mill%20ford.md" in found
    assert "ferry%20%28old%29.md" in found
    for link in found:
        assert not visit(context, link).failed, link


def test_a_document_is_one_hit_by_its_best_passage(context: ToolContext) -> None:
    text = search(context, "number 17 ferry").text
    assert len(links(text)) == len(set(links(text))) >= 2
    [line] = [line for line in text.splitlines() if "ferry%20" in line]
    assert "The ferry number 17 left at 17 o'clock." in line


def test_a_hit_is_one_line_whatever_its_title_and_name(context: ToolContext) -> None:
    text = search(context, "lie").text
    assert len(text.splitlines()) == 1
    assert text.startswith("1. ")
    assert links(text) == ["evil%0A3.%20all.md"]
    assert len(re.findall(r"\]\(", text)) == 1


def test_the_order_follows_from_seed_and_query_alone(index: Index) -> None:
    titles: dict[Any, list[str]] = {}
    with Index.open(index.folder) as again:
        for seed in (None, 1, 1, 2):
            context = ToolContext(sources=SourceList(), index=again)
            lines = search(context, "ferry bridge town price", k=6, shuffle=seed).text.splitlines()
            assert [line.partition(". ")[0] for line in lines] == list("123456"[: len(lines)])
            found = [line.partition(". ")[2] for line in lines]
            assert titles.setdefault(seed, found) == found
    assert sorted(titles[1]) == sorted(titles[2]) == sorted(titles[None])
    best = index.search("ferry bridge town price", 18, mode="bm25")
    order = list(dict.fromkeys(hit.document for hit in best))
    assert [unquote(links(line)[0]) for line in titles[None]] == order


def test_several_queries_have_their_own_lists(context: ToolContext) -> None:
    text = search(context, "red colour", "half price", "nothingatall").text
    one, two, three = text.split(SEPARATOR)
    assert one.startswith("1. The bridge")
    assert two.startswith("1. Half of the price.")
    assert three == "No results."


@pytest.mark.parametrize("queries", [[], [" "]])
def test_a_blank_query_fails(context: ToolContext, queries: list[str]) -> None:
    found = search(context, *queries)
    assert found.failed
    assert found.text == "The query is empty."


# --- Visit ---------------------------------------------------------------------------------------


def test_a_document_is_one_numbered_line(context: ToolContext) -> None:
    found = visit(context, "bridge.md")
    assert found.text == (
        "[1] The bridge is old. It stands in [Millford](towns/mill%20ford.md). It opened in 1902. "
        "Its colour is red. Toll: Cars pay 3 pounds."
    )
    [source] = found.sources
    assert source.number == 1
    assert source.text in BRIDGE  # what citations are checked against is the original
    assert visit(context, "bridge.md").sources == found.sources


@pytest.mark.parametrize(
    "path", ["towns/mill ford.md", "towns/mill%20ford.md", " towns/mill ford.md "]
)
def test_a_path_is_taken_as_links_write_it(context: ToolContext, path: str) -> None:
    assert visit(context, path).text == "[1] A town of mills."


def test_a_name_with_a_percent_sign_is_that_name_first(context: ToolContext) -> None:
    assert visit(context, "50%25 off.md").text == "[1] Half of the price."


def test_an_address_of_a_search_opens_too(context: ToolContext) -> None:
    [address] = search(context, "red colour").addresses
    assert visit(context, address).text.startswith("[1] The bridge is old.")


def test_what_passages_share_is_shown_once(context: ToolContext) -> None:
    found = visit(context, "ferry (old).md")
    assert len(found.sources) > 1
    numbers = [int(n) for n in re.findall(r"ferry number (\d+) ", found.text)]
    assert numbers == list(range(22))
    starts = re.findall(r"^\[(\d+)\] The ferry number \d+ ", found.text, re.MULTILINE)
    assert [int(n) for n in starts] == [source.number for source in found.sources]
    # Each number stands for a passage that holds what is shown under it.
    for line in found.text.splitlines():
        number, _, shown = line[1:].partition("] ")
        assert shown in " ".join(context.sources[int(number)].text.split())


def test_of_a_long_document_the_sentences_that_fit_the_goal(context: ToolContext) -> None:
    found = visit(context, "ships.md", goal="number 97")
    lines = found.text.splitlines()
    assert len(re.findall("left at", found.text)) == 3
    assert "The ferry number 97 left at 97 o'clock." in lines[-1]
    for number, (line, source) in enumerate(zip(lines, found.sources, strict=True), start=1):
        assert line.startswith(f"[{number}] Ships: The ferry number ")
        assert all(one in source.text for one in LEFT if one in line)
    late = visit(context, "ships.md", goal="late").text
    assert late.endswith(" very ...")
    assert len(late) < 330
    begin = visit(context, "ships.md", goal="zebra").text  # no word of it is there
    assert "number 0 left" in begin
    assert "number 2 left" in begin


def test_several_documents_and_one_that_is_not_there(context: ToolContext) -> None:
    found = visit(context, "nowhere.md", "bridge.md", "bridge.md", "seoul.md")
    lines = found.text.splitlines()
    assert lines[0] == "No page. Take a link of the results."
    assert [line[:3] for line in lines[1:]] == ["[1]", "[2]"]
    assert not found.failed


@pytest.mark.parametrize(
    "url", ["nowhere.md", "../bridge.md", "/etc/passwd", "https://example.com/", "bridge.md/.."]
)
def test_what_is_not_in_the_index_does_not_open(context: ToolContext, url: str) -> None:
    found = visit(context, url)
    assert found.failed
    assert found.text == "No page. Take a link of the results."
    assert found.sources == ()


def test_a_document_that_changed_says_so(context: ToolContext) -> None:
    found = visit(context, "doc://00000000/bridge.md")
    assert found.failed
    assert "has changed since" in found.text


def test_a_blank_address_fails(context: ToolContext) -> None:
    assert visit(context, " ").text == "The address is empty."


def test_without_documents_there_is_nothing() -> None:
    context = ToolContext(sources=SourceList())
    assert search(context, "a").text == "Nothing is indexed."
    assert visit(context, "a").text == "Nothing is indexed."


def test_names_and_arguments_are_those_of_the_full_tools(index: Index) -> None:
    one, two = compact_tools(index)
    assert (one.name, two.name) == (SEARCH.name, VISIT.name)
    assert (one.parameters, two.parameters) == (SEARCH.parameters, VISIT.parameters)
    assert one.description != SEARCH.description  # by which a resumed run knows its tools


def test_a_folder_without_an_index_is_refused_before_a_run(tmp_path: Path) -> None:
    with Index.open(tmp_path) as empty, pytest.raises(SearchIndexError, match="hanol index"):
        compact_tools(empty)


def test_the_full_tool_opens_paths_too(context: ToolContext) -> None:
    """Pages link to each other by path, whatever tool shows them."""
    found = asyncio.run(Visit().run({"url": ["towns/mill%20ford.md"], "goal": "town"}, context))
    assert not found.failed
    assert "A town of mills." in found.text
    [source] = found.sources
    assert source.address.startswith("doc://")
    bad = asyncio.run(Visit().run({"url": ["nowhere.md"], "goal": "town"}, context))
    assert bad.failed
    assert "nowhere.md" in bad.text


# --- Pages of a world ----------------------------------------------------------------------------


def test_links_of_written_pages_lead_to_their_files(tmp_path: Path) -> None:
    world = Encyclopedia(0, 60)
    world.write(tmp_path)
    count = 0
    with Index.open(tmp_path) as index:
        index.add()
        context = ToolContext(sources=SourceList(), index=index)
        for page in world.pages[:20]:
            text = visit(context, page.file_name).text
            assert text.partition("] ")[2].startswith(f"{page.title} is a")
            found = re.findall(r"\[([^\[\]]+)\]\(([^()]+)\)", text)
            assert [name for _, name in found] == [
                world.page(title).file_name for title, _ in found
            ]
            assert {
                world.page(link).file_name for link in re.findall(r"doc:[\d ]+", page.text)
            } == {name for _, name in found}
            for title, name in found:
                assert visit(context, name).text.partition("] ")[2].startswith(f"{title} is a")
            count += len(found)
    assert count > 40


# --- A run in a small window ---------------------------------------------------------------------


def test_a_small_window_keeps_a_quarter_for_the_answer(index: Index) -> None:
    turns = [
        '<tool_call>{"name": "search", "arguments": {"query": ["red colour"]}}</tool_call>',
        '<tool_call>{"name": "visit", "arguments": {"url": ["bridge.md"], "goal": "colour"}}'
        "</tool_call>",
        "<answer>Its colour is red [1].</answer>",
    ]
    options: dict[str, Any] = {
        "tools": compact_tools(index), "sampling": GREEDY, "budget": Budget(model_calls=5),
    }  # fmt: skip

    def asked(words: int) -> RunEnded:
        # A token is 4 bytes: 600 of window, a quarter for what is written, a quarter of the rest.
        researcher = Researcher(
            index,
            ScriptedEngine(turns, context_window=600),
            system_prompt="word " * words,
            **options,
        )
        last = list(researcher.ask("Which colour?"))[-1]
        assert isinstance(last, RunEnded)
        return last

    ended = asked(20)
    assert ended.answer == "Its colour is red [1]."
    assert ended.citations is not None
    assert ended.citations["counts"]["supported"] == 1
    with pytest.raises(RunError, match="only 450 .* and 112 are needed besides"):
        asked(300)
