"""Search trees as one page of HTML that loads nothing: several strategies side by side.

Texts are those of a model, and are escaped.
"""

from collections import defaultdict
from collections.abc import Sequence
from html import escape

from hanol.test_time._thought import Thought
from hanol.test_time.searches import TreeNode

_STYLE = """
:root{color-scheme:light dark}
body{font:14px/1.45 system-ui,sans-serif;margin:1.5rem}
main{display:grid;grid-auto-flow:column;grid-auto-columns:minmax(22rem,1fr);gap:1.5rem;
overflow-x:auto}
section{min-width:0}
h2{margin:0 0 .3rem}
pre,q{white-space:pre-wrap;overflow-wrap:anywhere;margin:.2rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
td{padding:0 .8rem 0 0}
ul{list-style:none;margin:0;padding-left:.9rem;border-left:1px solid #8886}
li{margin:.25rem 0}
.text{opacity:.55}
.kept>.text{opacity:1}
.chosen>.text{background:#3a73;border-radius:3px}
.rollout,.forced{font-style:italic}
.score{display:inline-block;min-width:2.6rem;padding:0 .3rem;border-radius:3px;color:#000;
text-align:right;font-variant-numeric:tabular-nums}
.answer{font-weight:600;margin-left:.4rem}
.note{opacity:.75}
"""


def render_page(thoughts: Sequence[Thought]) -> str:
    """A page that shows how each of several searches went, for the same problem or others.

    Faded steps were dropped, those of the chosen solution are marked; the number before a step is
    the score of the solution up to there.
    """
    problems = list(dict.fromkeys(thought.problem for thought in thoughts))
    asked = "".join(f"<pre>{escape(problem)}</pre>" for problem in problems)
    columns = "".join(map(_column, thoughts))
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>hanol think</title>"
        f"<style>{_STYLE}</style></head><body><h1>hanol think</h1>{asked}"
        f"<main>{columns}</main></body></html>\n"
    )


def _column(thought: Thought) -> str:
    spent = thought.ledger
    limit = "" if thought.limit is None else f" of {thought.limit:,}"
    rows = [
        ("answer", escape(_said(thought.answer))),
        ("generated tokens", f"{spent.generated_tokens:,}{limit}"),
        ("prompt tokens", f"{spent.prompt_tokens:,}, {spent.cached_tokens:,} from the cache"),
        ("verifier tokens", f"{spent.verifier_tokens:,}"),
        ("FLOPs", f"{spent.flops:.3g}"),
        ("seconds", f"{spent.seconds:.2f}"),
    ]
    rows += [(f"votes for {escape(_said(a))}", f"{w:.3g}") for a, w in thought.votes.items()]
    table = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in rows)
    children: dict[int, list[TreeNode]] = defaultdict(list)
    for node in thought.nodes[1:]:
        children[node.parent].append(node)
    chosen = set()
    at = thought.chosen
    while at:
        chosen.add(at)
        at = thought.nodes[at].parent
    is_scored = any(map(any, (node.scores for node in thought.nodes)))  # votes have zeros alone
    note = f"<p class='note'>{escape(thought.note)}</p>" if thought.note else ""
    return (
        f"<section><h2>{escape(thought.strategy)}, budget {thought.options['budget']}</h2>{note}"
        f"<table>{table}</table>{_branch(0, children, chosen, is_scored)}</section>"
    )


def _branch(
    start: int, children: dict[int, list[TreeNode]], chosen: set[int], is_scored: bool
) -> str:
    """The nodes below one, written without recursion: a path may be long."""
    parts: list[str] = []
    stack: list[TreeNode | str] = ["</ul>", *reversed(children[start]), "<ul>"]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            parts.append(node)
            continue
        kinds = [node.purpose, *(["kept"] if node.kept else []),
                 *(["chosen"] if node.id in chosen else [])]  # fmt: skip
        score = ""
        if is_scored and node.scores:
            hue = 120 * min(1.0, max(0.0, node.score))
            score = (
                f"<span class='score' style='background:hsl({hue:.0f} 60% 75%)' "
                f"title='{escape(', '.join(f'{s:.3f}' for s in node.scores))}'>"
                f"{node.score:.3f}</span> "
            )
        answer = f"<span class='answer'>{escape(_said(node.answer))}</span>" if node.ends else ""
        parts.append(
            f"<li class='{' '.join(kinds)}'>{score}<q class='text'>{escape(node.text.strip())}"
            f"</q>{answer}"
        )
        stack.append("</li>")
        if children[node.id]:
            stack += ["</ul>", *reversed(children[node.id]), "<ul>"]
    return "".join(parts)


def _said(answer: object) -> str:
    return "no answer" if answer is None else str(answer)
