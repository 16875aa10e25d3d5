"""Ask your documents without a model: the sentences that answer, each with its place.

With an engine, `ask(folder, question, open_engine("smollm2"))`, a model reads the passages and
every sentence that it writes is checked against them.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from hanol.research import ask

TEXTS = {
    "fees.md": "# Fees\n\nA reader's card costs 30 euros a year. Students pay 12 euros.\n",
    "rooms.md": "# Rooms\n\nThe reading room has 64 seats. It closes at midnight.\n",
    "도서관.md": "# 도서관\n\n책은 4주 동안 빌릴 수 있다. 연체료는 하루에 20센트이다.\n",
}
QUESTIONS = [
    "What do students pay for a card?",
    "When does the reading room close?",
    "연체료는 하루에 얼마인가?",
    "Who painted the Night Watch?",
]


def main() -> None:
    with TemporaryDirectory() as folder:
        for name, text in TEXTS.items():
            (Path(folder) / name).write_text(text, "utf-8")
        for question in QUESTIONS:
            answer = ask(folder, question)
            print(f"{question}\n  {answer.text}")
            for number, source in enumerate(answer.sources, start=1):
                print(f"  [{number}] {source.document}")


if __name__ == "__main__":
    main()
