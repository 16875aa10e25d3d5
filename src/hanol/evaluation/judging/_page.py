"""Judgements as one page of HTML that loads nothing: the table, then every debate.

Texts are those of models and strangers, and are escaped.
"""

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from hanol.evaluation.judging._ranking import JudgeReport
from hanol.evaluation.judging._record import Judgement, Utterance
from hanol.files import without_codes

_MOST_OPEN = 100  # debates that are unfolded from the start; of more, the reader opens those wanted
_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881}
body{font:15px/1.5 system-ui,sans-serif;margin:0 auto;padding:1.5rem;max-width:70rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}
.title{opacity:.75;margin:.2rem 0 1rem;overflow-wrap:anywhere}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.2rem .9rem .2rem 0;text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}tr+tr td{border-top:1px solid var(--line)}
.wide{overflow-x:auto}
.bar{display:inline-block;height:.6rem;background:#4a8;border-radius:2px;vertical-align:middle}
details{border:1px solid var(--line);border-radius:.5rem;margin:.6rem 0;padding:.5rem .9rem}
summary{cursor:pointer;display:flex;gap:.6rem;align-items:baseline;flex-wrap:wrap}
summary b{margin-right:auto;overflow-wrap:anywhere}
.chip{border-radius:1rem;padding:0 .55rem;background:var(--soft);font-size:.85rem;
white-space:nowrap}
.unscored{background:#c443}.repaired{background:#da35}.total{font-weight:600}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:.2rem 1rem;margin:.6rem 0}
dt{opacity:.7}dd{margin:0}
dd,.said{white-space:pre-wrap;overflow-wrap:anywhere}
ol{list-style:none;padding:0;margin:.4rem 0}
li{margin:.4rem 0;padding:.35rem .7rem;border-left:3px solid #8888;background:var(--soft)}
li.B{border-color:#47c;margin-left:2rem}li.A{border-color:#4a8}
li.judge{border-color:#a5a;margin-left:1rem;margin-right:1rem}
li.invalid{border-style:dashed;opacity:.75}
.who{font-weight:600;margin-right:.6rem}
.round{opacity:.6;font-size:.85rem;margin:.6rem 0 0}
@media(max-width:40rem){li.B,li.judge{margin-left:0;margin-right:0}}
"""


def render_judgements(judgements: Sequence[Judgement], report: JudgeReport) -> str:
    """The page of judgements."""
    opened = " open" if len(judgements) <= _MOST_OPEN else ""
    debates = "".join(f"<details{opened}>{''.join(_item(one))}</details>" for one in judgements)
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<title>hanol eval judge</title><style>{_STYLE}</style></head><body>"
        f"<h1>Judgements</h1><p class='title'>{_text(report.title)}</p>"
        f"{''.join(_table(report))}<h2>Items</h2>{debates}</body></html>\n"
    )


def _table(report: JudgeReport) -> Iterator[str]:
    names = list(dict.fromkeys(name for one in report.systems for name in one.by_criterion))
    tasks = list(dict.fromkeys(name for one in report.systems for name in one.by_task))
    tasks = tasks if len(tasks) > 1 else []
    most = f" of {report.most:g}" if report.most else ""
    heads = ["system", f"total{most}", "95 % interval", "", *tasks, *names, "scored"]
    yield "<div class='wide'><table><tr>"
    yield "".join(f"<th>{_text(head)}</th>" for head in heads)
    yield "</tr>"
    for one in report.systems:
        cells = [_text(one.system or "all"), "-", "", ""]
        if one.total is not None:
            width = 8 * one.total.value / report.most if report.most else 0
            interval = f"{one.total.low:.2f} to {one.total.high:.2f}"
            bar = f"<span class='bar' style='width:{max(0.0, width):.2f}rem'></span>"
            cells[1:] = [f"{one.total.value:.2f}", interval, bar]
        cells += [f"{one.by_task[task]:.2f}" if task in one.by_task else "-" for task in tasks]
        cells += [f"{one.by_criterion[n]:.2f}" if n in one.by_criterion else "-" for n in names]
        cells.append(f"{one.scored} of {one.items}")
        yield f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    yield "</table></div><p>"
    yield ". ".join(map(_text, report.facts())) + ".</p>"


def _item(one: Judgement) -> Iterator[str]:
    item = one.item
    name = " · ".join(part for part in (item.id, item.task, item.system) if part)
    yield f"<summary><b>{_text(name)}</b>"
    if one.repeat:
        yield f"<span class='chip'>repeat {one.repeat}</span>"
    if one.status != "ok":
        yield f"<span class='chip {one.status}'>{one.status}</span>"
    for flag in one.flags:
        yield f"<span class='chip'>{_text(flag.replace('_', ' '))}</span>"
    if one.scores is not None:
        for criterion, score in one.scores.items():
            was = one.scores.raw[criterion]
            shown = f"{score:g}" if was == score else f"{was:g} → {score:g}"
            yield f"<span class='chip'>{_text(criterion)} {shown}</span>"
        yield f"<span class='chip total'>{one.total:g}</span>"
    yield "</summary><dl>"
    texts = [("source", item.source), ("context", item.context), ("candidate", item.candidate),
             ("reference", item.reference), ("unscored", one.problem)]  # fmt: skip
    if item.source is None and item.source_ref is not None:
        texts[0] = ("source", f"(elsewhere) {item.source_ref}")
    yield "".join(f"<dt>{label}</dt><dd>{_text(text)}</dd>" for label, text in texts if text)
    yield "</dl>"
    yield from _debate(one.transcript)


def _debate(transcript: Iterable[Utterance]) -> Iterator[str]:
    number = 0
    transcript = list(transcript)
    is_long = any(said.round > 1 for said in transcript)
    yield "<ol>"
    for said in transcript:
        if is_long and said.round != number:
            number = said.round
            yield f"</ol><p class='round'>round {number}</p><ol>"
        kind = said.role if said.role in ("A", "B", "judge") else "scorer"
        invalid = " invalid" if said.status == "invalid" else ""
        yield f"<li class='{kind}{invalid}'><span class='who'>{_text(said.role)}</span>"
        if said.verdict is not None:
            yield f"<span class='chip'>{said.verdict}</span> "
        for criterion, score in (said.scores or {}).items():
            yield f"<span class='chip'>{_text(criterion)} {score:g}</span> "
        if said.status == "invalid":
            yield f"<span class='chip unscored'>{_text(said.problem or 'invalid')}</span> "
        shown = said.reason or (said.text if said.status != "ok" else "")
        yield f"<div class='said'>{_text(shown)}</div></li>"
    yield "</ol>"


def _text(text: str) -> str:
    return escape(without_codes(text))
