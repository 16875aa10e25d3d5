"""Questions that a model writes about a statement, and those that people wrote."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hanol.errors import DataError
from hanol.rows import read_rows
from hanol.synthesis._replies import Replies
from hanol.synthesis.reading._rows import ReadingDocuments
from hanol.synthesis.reading._rules import Draft
from hanol.synthesis.reading._statements import Statement, plain
from hanol.synthesis.reading._wording import content

_TOKENS = 32
_OVERLAP = 0.7  # most content words of a question that may stand in the sentence
_PROMPT = """\
Write a short question that each text answers. Use other words than the text.

Text: The cache is emptied whenever the server is restarted.
Question: When do saved pages get lost?

Text: Lisbon: In 1755 an earthquake destroyed most of the city and killed up to 50,000 people.
Question: How many died in the disaster of Lisbon?

Text: random forests: Each tree is grown on a bootstrap sample, which reduces the variance.
Question: Why do the trees of a forest see different data?

Text: {text}
Question:"""


async def asked_by_model(
    statements: Sequence[tuple[Statement, str]], model: Replies
) -> list[Draft | None]:
    """A model's question about each statement and its topic; None where it is of no use.

    Raises:
        EngineError: The model did not answer; earlier answers are stored.
    """
    texts = [_shown(statement, topic) for statement, topic in statements]
    replies = await model.ask([_PROMPT.format(text=text) for text in texts], max_tokens=_TOKENS)
    lines = [(reply.strip().splitlines() or [""])[0] for reply in replies]
    questions = [plain(line.removeprefix("Question:")) for line in lines]
    return [
        Draft(asked, "model", one, one.answer, asked) if _is_usable(asked, text) else None
        for (one, _), text, asked in zip(statements, texts, questions, strict=True)
    ]


def _is_usable(question: str, text: str) -> bool:
    """Whether a model's question asks about a text without repeating it."""
    words, stated = content(question), set(content(text))
    shared = sum(word in stated for word in words)
    return (
        question.endswith("?")
        and question.count("?") == 1
        and 4 <= len(question.split()) <= 24
        and len(words) >= 2
        and 0 < shared <= max(1, _OVERLAP * len(words))
        and not re.search(r"\b(?:[Tt]ext|[Pp]assage|[Ss]entence|[Ss]tatement)\b", question)
    )


def _shown(statement: Statement, topic: str) -> str:
    about = statement.item or topic or statement.heading
    return statement.text if not about or about in statement.text else f"{about}: {statement.text}"


def written_questions(
    path: Path, corpora: Sequence[ReadingDocuments]
) -> Iterator[tuple[Draft, ReadingDocuments]]:
    """Questions that people wrote, as drafts.

    Args:
        path: JSON lines with "question", "document", the path of a document in one of the
            folders, and "answer", a sentence as it stands in the document.
        corpora: The folders.

    Raises:
        DataError: A line has other keys; questions whose answer is in no passage are left out.
    """
    for number, row in read_rows(path):
        try:
            question, document, answer = row["question"], row["document"], plain(row["answer"])
        except (KeyError, TypeError) as err:
            raise DataError(
                f"{str(path)!r}, line {number} lacks {err}: every line needs question, document "
                "and answer."
            ) from err
        for corpus in corpora:
            passages = corpus.passages.get(document, ())
            passage = next((each for each in passages if answer in plain(each.text)), None)
            if passage is not None:
                stated = Statement(answer, answer, passage)
                yield Draft(question, "written", stated, answer, question), corpus
