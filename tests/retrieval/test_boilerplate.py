"""Web pages: what stands beside an article is kept, menus and footers are not."""

import pytest

from hanol.retrieval import parse_document

LONG = "This paragraph of the article is long enough, with several commas, clauses, and words."
BODY = f"<p>{LONG} First.</p><p>{LONG} Second.</p><p>{LONG} Third.</p>"
MENU = "<ul><li><a href=1>Home page</a></li><li><a href=2>About the firm</a></li><li><a href=3>Jobs"
MENU += "</a></li></ul>"
HEAD = f"<header><nav>{MENU}</nav></header>"
FOOT = f"<footer><p>© 2024 The firm</p>{MENU}</footer>"
ARTICLE = f"<article><h1>Head</h1>{BODY}</article>"


def test_a_layout_table_has_no_bars() -> None:
    page = f"<table><tr><td><a href=1>Home</a></td><td><h1>Head</h1>{BODY}</td></tr></table>"
    assert read(page).splitlines()[-4] == "# Head"
    assert "|" not in read(page)


def read(page: str) -> str:
    return parse_document("x.html", page.encode()).pages[0].text


@pytest.mark.parametrize(
    "page",
    [
        f"{HEAD}<div class='teaser'><p>WANTED may break solar panels in winter.</p></div>{ARTICLE}",
        f"{HEAD}<div class='standfirst'>WANTED</div>{ARTICLE}{FOOT}",
        f"<h2 class='subtitle'>WANTED</h2>{ARTICLE}{FOOT}",
        f"<main><div class='abstract'><p>WANTED</p></div>{ARTICLE}</main>{FOOT}",
        f"{HEAD}<section id='abstract'><h2>Abstract</h2><p>WANTED</p></section>{ARTICLE}",
        f"<main><article>{BODY}<aside><p>WANTED</p></aside>{BODY}</article></main>",
        f"<article>{BODY}<div class='warning'>WANTED</div>{BODY}</article>{FOOT}",
        f"<div class='content'>{BODY}<div role='note'>WANTED</div></div>{FOOT}",
        f"{HEAD}<aside class='box'><p>WANTED, no sentence</p></aside>{ARTICLE}",
        f"{ARTICLE}<div class='alert alert-danger'>WANTED</div>{FOOT}",
        f"{ARTICLE}<aside class='factbox'><h4>Facts</h4><ul><li>WANTED are facts, which one "
        "should know about it.</li></ul></aside>",
        f"<article>{BODY}<table><tr><td>Name</td><td>WANTED</td></tr></table><table><tr><td>Item"
        "</td><td>Pen</td></tr></table></article>",
        f"<article>{BODY}<dl><dt>Term</dt><dd>WANTED</dd></dl></article>",
        f"<article>{BODY}<details><summary>More</summary><p>WANTED</p></details></article>",
        f"<main>{BODY}<h2><button>WANTED</button></h2><p>Yes.</p></main>",
        f"<main>{BODY}<button aria-expanded=false>Is it WANTED by you?</button><p>Yes.</p></main>",
        f"<article>{BODY}<figure><img src=x><figcaption>WANTED</figcaption></figure></article>",
        f"<article>{BODY}<section id='cookies'><h2>Cookies</h2><p>WANTED</p></section></article>",
        f"<div id=navigation-guide><h1>Navigation guide</h1>{BODY}<p>WANTED</p></div>{FOOT}",
        f"<form id=aspnetForm>{HEAD}<div>{BODY}<p>WANTED</p></div>{FOOT}</form>",
        f"<table><tr><td>{MENU}</td><td>{BODY}<b>WANTED</b></td></tr></table>",
        f"<header><h1>Title</h1><p class=lead>WANTED</p></header><main>{BODY}</main>",
        f"<article>{BODY}<h2>See also</h2><ul><li><a href=x>WANTED</a></li></ul></article>",
        f"<article>{BODY}"
        + 3 * "<div class=top><a href=a>WANTED</a>: <a href=b>Type of it</a></div>"
        + "</article>",
        f"{ARTICLE}<div><pre>// <a href=x>WANTED</a></pre></div>",
        f"<div>{ARTICLE}<p>More on the ways to do so <a href=x>WANTED. “How many?”</a>.</p></div>",
        f"<div>© 2001 Kim. Written by WANTED, with an introduction by Lee.</div>{ARTICLE}",
        f"<div><h3>WANTED</h3><a href='mailto:kim@example.org'>kim@example.org</a></div>{ARTICLE}",
        f"<h2>Who</h2><div class='center-top'><h4>Programs</h4><p>WANTED, Lee</p></div>{ARTICLE}",
    ],
)
def test_what_belongs_to_the_text_is_kept(page) -> None:
    text = read(f"<!DOCTYPE html><html><head><title>T</title></head><body>{page}</body></html>")
    assert "WANTED" in text
    assert "Third." in text
    assert "About the firm" not in text


@pytest.mark.parametrize(
    "page",
    [
        f"<div class='cookie-banner'><p>UNWANTED</p><button>Yes</button></div>{ARTICLE}",
        f"<div role=navigation><a href=1>UNWANTED</a></div>{ARTICLE}",
        f"<div class='navheader'><table><tr><td><a href=1>UNWANTED</a></table></div>{BODY}",
        f"{ARTICLE}<div class='related-articles'><h3>UNWANTED</h3>{MENU}</div>",
        f"<main>{ARTICLE}<div class='share-buttons'><a href=1>UNWANTED</a></div></main>",
        f"<div class='breadcrumb'><a href=1>UNWANTED</a> &gt; <a href=2>Page</a></div>{ARTICLE}",
        "<table class='bar'><tr><td>[<a href=1>UNWANTED</a>][<a href=2>Types</a>][<a href=3>Index"
        f"</a>]</td></tr></table><h1>Head</h1>{BODY}",
        f"<ul class='gnb'><li><a href=1>UNWANTED</a></li></ul>{ARTICLE}",
        f"{ARTICLE}<div id='footer'>UNWANTED, a firm of the town, since 1900.</div>",
        f"{ARTICLE}<div class='newsletter-signup'><form>UNWANTED<input></form></div>",
        f"<table><tr><td><a href=1>UNWANTED</a><br><a href=2>Page</a></td><td>{BODY}</table>",
        f"{ARTICLE}<p>Copyright UNWANTED</p>",
        f"{ARTICLE}<select><option>UNWANTED</option></select><button>Go</button>",
    ],
)
def test_what_does_not_belong_to_the_text_is_left_out(page) -> None:
    text = read(f"<!DOCTYPE html><html><body>{page}</body></html>")
    assert "UNWANTED" not in text
    assert "Third." in text


def test_links_over_a_heading_may_be_the_page() -> None:
    page = f"<div>{MENU.replace('Home', 'WANTED')}</div><h1>Short</h1><p>Few words.</p>"
    assert "WANTED" in read(page)


@pytest.mark.parametrize(
    "foot",
    [
        f"<footer><p>UNWANTED. {LONG} {LONG}</p></footer>",
        f"<div role=contentinfo><p>UNWANTED. {LONG} {LONG}</p></div>",
        f"<table><tr><td><div>Copyright 2001 UNWANTED. {LONG} {LONG}</div></td></tr></table>",
        f"<div>© 2001 UNWANTED. {LONG} {LONG}</div>",
        f"<div class=navigation>{12 * MENU.replace('Home', 'UNWANTED')}</div>",
    ],
)
def test_a_page_of_few_words_is_no_footer(foot) -> None:
    for head, line in (
        ("fstat", "Nothing in this package uses it."),
        ("구성", "이 절에서는 목록을 다루는 방법을 설명합니다."),
    ):
        page = f"<div><h1>{head}</h1><p>{line}</p></div>{foot}"
        text = read(f"<html><head><title>T</title></head><body>{page}</body></html>")
        assert "UNWANTED" not in text
        assert text.startswith("# ")


def test_lines_of_a_page_are_those_that_a_reader_sees() -> None:
    text = read(
        "<p>one sentence\n  over two lines</p><pre>if x:\n    y()\n</pre>"
        "<table><tr><th><p>Name</p></th><td>Kim<br>Lee</td></tr><tr><td>a</td><td></td></tr></table>"
    )
    lines = text.splitlines()
    assert lines[:3] == ["one sentence over two lines", "if x:", "    y()"]
    assert "Kim Lee" in text


def test_links_as_in_markdown() -> None:
    page = f"<body>{HEAD}<article>{BODY}<p>See <a href='b.html'>the <b>other</b> page</a>.</p>"
    document = parse_document("x.html", page.encode(), links=True)
    assert "See [the other page](b.html)." in document.pages[0].text
    assert "[About" not in document.pages[0].text


def test_rows_of_tables_stand_alone() -> None:
    rows = "<tr><td rowspan=2>Seoul</td><td>Kim</td><td>5</td></tr><tr><td>Lee</td><td>7</td></tr>"
    head = "<tr><th>City</th><th>Name</th><th>Points</th></tr>"
    text = read(f"<article>{BODY}<table><caption>Teams</caption>{head}{rows}</table></article>")
    assert "Teams\nCity: Seoul; Name: Kim; Points: 5\nCity: Seoul; Name: Lee; Points: 7" in text
    wide = "<tr><td>Rent</td><td colspan=2>see note</td><td>500</td></tr>"
    months = "<tr><th>Item</th><th>Jan</th><th>Feb</th><th>Mar</th></tr>"
    text = read(f"<article>{BODY}<table><thead>{months}</thead>{wide}</table></article>")
    assert "Mar: 500" in text
    form = "".join(
        f"<tr><th>{a}</th><td>{b}</td></tr>" for a, b in (("성명", "홍길동"), ("부서", "총무팀"))
    )
    text = read(f"<article>{BODY}<table>{form}</table></article>")
    assert "성명: 홍길동" in text
    assert "부서: 총무팀" in text


def test_spans_without_end() -> None:
    cells = "<td colspan=99999 rowspan=99999>x</td><td colspan=-1 rowspan='a'>y</td>" * 300
    assert "y" in read(f"<table><tr>{cells}</tr>{'<tr><td>z</td></tr>' * 20_000}</table>")
