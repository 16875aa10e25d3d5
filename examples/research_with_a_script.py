"""Run the research agent over a folder; the model is a script, everything else is real."""

import tempfile
from pathlib import Path

from hanol.engines import ScriptedEngine
from hanol.research import Researcher
from hanol.retrieval import Index

TURNS = [
    '<think>I search.</think>\n<tool_call>\n{"name": "search", "arguments": '
    '{"query": ["inhabitants of Seoul"]}}\n</tool_call>',
    "<think>Found.</think>\n<answer>Seoul had 9,386,000 inhabitants in 2023 [1].</answer>",
]
folder = Path(tempfile.mkdtemp())
(folder / "seoul.md").write_text("# Seoul\n\nSeoul had 9,386,000 inhabitants in 2023.\n", "utf-8")
with Index.open(folder) as index:
    index.add()
    for event in Researcher(index, ScriptedEngine(TURNS)).ask("How many people live in Seoul?"):
        print(event.type)
print(event.answer, event.citations["counts"])
