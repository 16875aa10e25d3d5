"""Check an answer against the passages that it cites, without a model."""

import tempfile
from pathlib import Path

from hanol.retrieval import Index, SourceList, check_citations

folder = Path(tempfile.mkdtemp())
(folder / "seoul.md").write_text("# Seoul\n\nSeoul had 9,386,000 inhabitants in 2023.\n", "utf-8")
sources = SourceList()
with Index.open(folder) as index:
    index.add()
    for passage in index.search("inhabitants of Seoul"):
        sources.cite_passage(passage)
answer = "Seoul had 9.386 million inhabitants in 2023 [1]. It had 10 million in 1990 [1]."
for sentence in check_citations(answer, sources).sentences:
    print(f"{sentence.status:12} {sentence.text}")
