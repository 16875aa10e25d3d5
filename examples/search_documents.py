"""Index a folder and search it: no model, no torch, Korean included."""

import tempfile
from pathlib import Path

from hanol.retrieval import Index

folder = Path(tempfile.mkdtemp())
(folder / "seoul.md").write_text("# Seoul\n\nSeoul has 9,386,000 inhabitants.\n", "utf-8")
(folder / "busan.md").write_text("# 부산\n\n부산은 남쪽의 항구 도시이다.\n", "utf-8")
with Index.open(folder) as index:
    index.add()
    for query in ("how many people live in Seoul", "항구"):
        [passage, *_] = index.search(query, k=1)
        print(f"{query!r}: {passage.title} ({passage.address})")
