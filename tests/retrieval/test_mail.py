"""Mails: versions of one text, attached mails, other types of text, and broken ones."""

import base64
import textwrap

import pytest

from hanol.retrieval import Document, parse_document


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
            "> one line\n>> other \n> end",
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
