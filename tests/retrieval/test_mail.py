"""Mails: versions of one text, attached mails, other types of text, and broken ones."""

import base64
import email.message
import textwrap
import time

import pytest

from hanol.research import ask
from hanol.retrieval import Document, Index, parse_document


def mail(body: str, kind: str, head: str = "") -> bytes:
    return (
        f"From: a@example.com\nTo: b@example.com\nSubject: Plan\nMIME-Version: 1.0\n{head}"
        f"Content-Type: {kind}\n\n{body}"
    ).encode()


def parts(kind: str, *several: tuple[str, str]) -> bytes:
    body = "".join(f"--XX\nContent-Type: {head}\n\n{text}\n" for head, text in several)
    return mail(f"{body}--XX--\n", f'{kind}; boundary="XX"')


def read(data: bytes) -> Document:
    return parse_document("x.eml", data)


def text_of(data: bytes) -> str:
    return "\n".join(page.text for page in read(data).pages)


MOVED = "<p>The meeting moves to <b>Friday</b>, the 12th, at nine.</p>"


def test_parts_that_say_different_things_are_all_read() -> None:
    for kind, plain in (
        ("multipart/mixed", "-- \nlist footer: unsubscribe here"),
        ("multipart/alternative", "Your mail program cannot show HTML."),
        ("multipart/related", "unsubscribe"),
        ("multipart/alternative", ""),
    ):
        for several in ([("text/plain", plain), ("text/html", MOVED)],) * 2:
            text = text_of(parts(kind, *several))
            assert "meeting moves to Friday" in text
            assert plain.splitlines()[-1:] == [] or plain.splitlines()[-1] in text


def test_versions_of_one_text_are_read_once() -> None:
    plain = "The meeting moves to *Friday*,\nthe 12th, at nine. <https://example.com/a?b=c>"
    longer = MOVED + "<p>Rooms 4, 5 and 6 are booked until noon, and lunch is in the hall.</p>"
    for html in (MOVED, longer):
        text = text_of(parts("multipart/alternative", ("text/plain", plain), ("text/html", html)))
        assert text.count("Friday") == 1
        assert ("lunch" in text) == ("lunch" in html)
    korean = ("회의는 금요일 아홉 시로\n옮깁니다.", "<p>회의는 금요일 아홉 시로 옮깁니다.</p>")
    kinds = ("text/plain; charset=utf-8", "text/html; charset=utf-8")
    both = parts("multipart/alternative", *zip(kinds, korean, strict=True))
    assert text_of(both).count("금요일") == 1


INNER = (
    "From: boss@example.com\nSubject: Budget frozen\nDate: Mon, 4 Mar 2024 10:00:00 +0900\n\nNo."
)


@pytest.mark.parametrize(
    "data",
    [
        parts("multipart/mixed", ("text/plain", "See below."), ("message/rfc822", INNER)),
        parts("multipart/digest", ("message/rfc822", INNER), ("message/rfc822", INNER)),
        parts("multipart/mixed", ('message/rfc822; name="fwd.eml"', INNER)),
        parts(
            "multipart/mixed",
            (
                "message/rfc822\nContent-Transfer-Encoding: base64",
                base64.b64encode(INNER.encode()).decode(),
            ),
        ),
        parts(
            "multipart/mixed",
            (
                'application/octet-stream; name="a.eml"\nContent-Transfer-Encoding: base64',
                base64.b64encode(INNER.encode()).decode(),
            ),
        ),
        parts("multipart/report", ("text/plain", "Failed."), ("text/rfc822-headers", INNER)),
        mail(INNER, "message/rfc822"),
        parts("multipart/mixed", ("message/rfc822", parts("multipart/mixed", (
            "message/rfc822", INNER)).decode().replace("XX", "YY"))),
    ],
)  # fmt: skip
def test_headers_of_attached_mails(data) -> None:
    text = text_of(data)
    for part in (
        "Subject: Plan",
        "boss@example.com",
        "Subject: Budget frozen",
        "4 Mar 2024",
        "No.",
    ):
        assert part in text


def test_reports_on_mails() -> None:
    status = "Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; c@example.com\nStatus: 5.1.1\n"
    text = text_of(parts("multipart/report", ("message/delivery-status", status)))
    assert "c@example.com" in text
    assert "5.1.1" in text
    note = "Final-Recipient: rfc822; d@example.com\nDisposition: displayed"
    assert "displayed" in text_of(parts("multipart/report", (
        "message/disposition-notification", note)))  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        (
            "text/calendar; method=REQUEST",
            "BEGIN:VEVENT\nSUMMARY:Board mee\n ting\\, late\nEND:VEVENT",
            "Board meeting, late",
        ),
        ("text/watch-html", "<b>Talk</b> about valves", "Talk about valves"),
        ("text/markdown", "# Agenda\nTalk about valves", "Talk about valves"),
        ("text/enriched", "<bold>Talk</bold> about <<valves>", "Talk about <valves>"),
        ("text/x-patch", "-old\n+new", "+new"),
        ("text/vcard", "BEGIN:VCARD\nFN:Kim Hanol\nEND:VCARD", "Kim Hanol"),
        ("text/unknown-kind", "some words", "some words"),
        ("application/xhtml+xml", "<html><body><p>some words</p></body></html>", "some words"),
        ("application/json", '{"some": "\\uc11c\\uc6b8"}', "서울"),
        ("application/xml", "<a>some <b>words</b></a>", "some words"),
        ("text/csv", "Item,Cost\nPen,3\nBook,9", "Item: Pen; Cost: 3"),
        ("application/ics", "BEGIN:VEVENT\nSUMMARY:Fire drill\nEND:VEVENT", "Fire drill"),
        (
            "text/plain; format=flowed",
            "> one \n> line\n>> other \n> end",
            "> [quoted mail] one line\n\n> [quoted mail] other\n\n> [quoted mail] end",
        ),
        (
            "text/plain; format=flowed",
            "one long \nparagraph\n-- \nKim",
            "one long paragraph\n-- \nKim",
        ),
        ("text/plain; format=flowed; delsp=yes", "long \nword", "longword"),
    ],
)
def test_other_types_of_text(kind, body, expected) -> None:
    assert expected in text_of(mail(body, kind))
    assert expected in text_of(parts("multipart/mixed", (kind, body)))


def test_what_is_not_read_is_named() -> None:
    document = read(
        parts("multipart/mixed", ('application/pdf; name="=?utf-8?B?6rOE7ZqN?=.pdf"', "x"))
    )
    assert "Attachment: 계획.pdf" in document.pages[0].text
    assert document.remarks[0].part == "계획.pdf"
    picture = read(parts("multipart/mixed", ("image/png; name=a.png", "x"), ("text/plain", "word")))
    assert not picture.remarks


@pytest.mark.parametrize(
    ("data", "remarked"),
    [
        (b"\xef\xbb\xbf\r\n\n" + mail("a word", "text/plain"), False),
        (b"HTTP/1.1 200 OK\r\n\r\n" + mail("a word", "text/plain"), False),
        (b"+OK 512 octets follow\n" + mail("a word", "text/plain"), True),
        (b"From someone\n" + mail("a word", "text/plain"), False),
        (mail("a word", "text/plain", head="no header here\n"), True),
        (mail("a word", "multipart/mixed"), True),
        (b"From: a@example.com\nSubject: Plan\nThis is a word\nand more\n", False),
        (mail("--ZZ\nContent-Type: text/html\n\n<p>a word\n--ZZ--", "multipart/mixed"), True),
        (
            mail("--Z\nContent-Type: text/html\n\n<p>a word\n--Z--", "multipart/mixed; boundary=Y"),
            True,
        ),
        (mail("--ZZ\n\na word, cut", "multipart/mixed; boundary=ZZ"), False),
        (mail("--ZZ\n\nx\n--ZZ--\na word of the list", "multipart/mixed; boundary=ZZ"), False),
        (mail("a word", "text/plain; charset=no-such"), False),
        (mail("a word", "nonsense"), False),
        (mail("a word", ""), False),
        (mail("a word", "text/plain").decode().encode("utf-16"), False),
    ],
)
def test_mails_that_break_the_rules(data, remarked) -> None:
    document = read(data)
    text = document.pages[0].text
    assert "a word" in text
    assert "Subject: Plan" in text
    assert "<p>" not in text
    assert bool(document.remarks) == remarked


def test_every_mail_of_a_mailbox_is_a_page() -> None:
    box = textwrap.dedent("""\
        From a@example.com Mon Mar  4 10:00:00 2024
        Subject: One

        >From here on
        From there on in 2024

        From b@example.com Tue Mar  5 10:00:00 2024 +0900
        Subject: Two

        second
        """).encode()
    for name, data in (("x.mbox", box), ("x.eml", box), ("x.mbox", box.replace(b"\n", b"\r\n"))):
        document = parse_document(name, data)
        assert document.title == "One"
        first, second = document.pages
        assert "\nFrom here on\nFrom there on" in first.text
        assert (second.number, "Subject: Two" in second.text) == (2, True)


# --- older mails in a mail -------------------------------------------------------

ENGLISH = """Hi Ana,

the meeting is on Friday at ten in the hall.

On Mon, Nov 3, 2025 at 10:00 AM Kim Minsu <kim@example.org>
wrote:

> The meeting is on Tuesday at nine. Bring the drawing
> of the bridge.
>
> On Sun, Nov 2, 2025, Lee wrote:
>> The ladder stands in room 12.
>
> Best, Kim

Bye, Ben
"""
OUTLOOK = """Agreed, but the budget is 55,000 euros.

-----Original Message-----
From: Kim Minsu <kim@example.org>
Sent: Monday, November 3, 2025 10:00 AM
To: Ben
Subject: RE: Budget

The drawing of the bridge costs 40,000 euros. Please confirm.

From: Lee <lee@example.org>
Sent: Sunday, November 2, 2025 9:00 AM
To: Kim
Subject: Budget

The ladder stands in room 12.
"""
KOREAN = """회의는 금요일입니다.

2025년 11월 3일 (월) 오전 10:00, 김민수 <kim@example.org>님이 작성:

> 다리 도면은 회의실에 있습니다. 열쇠는 12호에 있습니다.

감사합니다.
"""
KOREAN_OUTLOOK = """회의는 금요일입니다.

보낸 사람: 김민수 <kim@example.org>
보낸 날짜: 2025년 11월 3일 월요일 오전 10:00
받는 사람: 이서연
제목: 다리

다리 도면은 회의실에 있습니다. 열쇠는 12호에 있습니다.
"""
GMAIL = """<div>The meeting is on Friday.</div><div class="gmail_quote"><div>On Mon, Nov 3, 2025 at
10:00 AM Kim Minsu &lt;kim@example.org&gt; wrote:<br></div><blockquote>The drawing of the bridge is
in the hall.<br>Please bring it.</blockquote></div>"""


def letter(text: str, subtype: str = "plain") -> bytes:
    message = email.message.EmailMessage()
    message["From"], message["Subject"] = "Ben <ben@example.org>", "Bridge"
    message.set_content(text, subtype=subtype)
    return message.as_bytes()


@pytest.mark.parametrize(
    ("text", "subtype", "question", "words", "origin"),
    [
        (ENGLISH, "plain", "Who brings the drawing of the bridge?", "drawing", "Kim Minsu"),
        (ENGLISH, "plain", "Where is the ladder?", "room 12", "Nov 2, 2025, Lee wrote"),
        (OUTLOOK, "plain", "What does the drawing of the bridge cost?", "40,000", "Kim Minsu"),
        (OUTLOOK, "plain", "Where does the ladder stand?", "room 12", "From: Lee"),
        (KOREAN, "plain", "다리 도면은 어디에 있습니까?", "회의실", "김민수"),
        (KOREAN, "plain", "열쇠는 어디에 있습니까?", "12호", "2025년 11월 3일"),
        (KOREAN_OUTLOOK, "plain", "열쇠는 어디에 있습니까?", "12호", "보낸 사람: 김민수"),
        (GMAIL, "html", "Where is the drawing of the bridge?", "hall", "Nov 3, 2025"),
    ],
)
def test_a_cited_sentence_of_a_quoted_mail_says_whose_it_is(
    tmp_path, text, subtype, question, words, origin
) -> None:
    (tmp_path / "a.eml").write_bytes(letter(text, subtype))
    with Index.open(tmp_path) as index:
        index.add(isolated=False)
        first = ask(index, question).sentences[0]
        [hit] = index.search(question, 1)
    assert words in first.text
    assert origin in first.text
    assert origin in first.citations[0].text
    assert words in hit.text
    own = text_of(letter(text, subtype)).split("\n")
    assert any(line in own for line in ("회의는 금요일입니다.", "The meeting is on Friday.",
               "the meeting is on Friday at ten in the hall.",
               "Agreed, but the budget is 55,000 euros."))  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "The trip:\nFrom: Seoul\nTo: Busan\nDate: 3 May 2025\n\nPack a coat.",
        "On the other hand, as Kim wrote:\nnothing is lost.",
        "On 3 May 2025 we met.\n\nThen Kim wrote:\nfine.",
        "2025-11-03: the plan <plan@example.org> is done.",
    ],
)
def test_what_only_looks_like_a_quoted_mail_stays_as_it_is(text) -> None:
    assert text_of(letter(text)).split("\n\n", 1)[1] == text


def test_a_mail_of_quotations_without_end_is_read() -> None:
    body = "\n".join(
        [">" * 5000 + " deep", "----\n\n" * 3000, "From: x\n" * 3000, "On 2020 " * 9000]
    )
    began = time.monotonic()
    assert "deep" in text_of(letter(body))
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "head",
    [
        "Subject: " + "=?utf-8?b?QQ==?= " * 60_000,
        "Subject: a\nContent-Type: text/plain" + ";" * 1_000_000,
        'Subject: a\nContent-Type: text/plain; name="' + ";" * 1_000_000,
        "Subject: a\nContent-Disposition: attachment" + "; a=b" * 200_000,
    ],
    ids=["encoded words", "parameters", "open quotation", "disposition"],
)
def test_headers_without_end_are_read(head: str) -> None:
    began = time.monotonic()
    read = text_of(f"From: k@example.com\n{head}\n\nThe valve was late.\n".encode())
    assert "The valve was late." in read
    assert "Subject: A" in read.replace("Subject: a", "Subject: A")
    assert time.monotonic() - began < 5  # the square of each took minutes


def test_every_field_of_a_report_is_read_once() -> None:
    fields = "".join(f"X-Trace: hop {number}\n" for number in range(20_000))
    began = time.monotonic()
    text = text_of(parts("multipart/report", ("message/delivery-status", fields)))
    assert text.count("X-Trace: hop") == 20_000
    assert "hop 19999" in text
    assert time.monotonic() - began < 5


def test_answers_between_the_lines_are_the_authors() -> None:
    text = "On 03/05/25 10:00, Kim wrote:\n> Noon?\n\nYes.\n\n> Or one?\n\nNo.\n"
    lines = text_of(letter(text)).split("\n")
    said = "> [On 03/05/25 10:00, Kim wrote]"
    assert [line for line in lines if line][-4:] == [
        f"{said} Noon?", "Yes.", f"{said} Or one?", "No.",
    ]  # fmt: skip


def test_a_quotation_without_an_origin_is_marked() -> None:
    text = text_of(letter("> Is it done?\n> I hope so.\n\nYes."))
    assert "> [quoted mail] Is it done?\n> [quoted mail] I hope so.\n\nYes." in text
