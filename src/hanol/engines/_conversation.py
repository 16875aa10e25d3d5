"""A conversation with an engine: what was said, as much of it as the model's window holds."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from hanol.engines._engine import Engine
from hanol.engines._request import Content, ImagePart, Message, Piece, Request, TextPart
from hanol.errors import DataError
from hanol.sampling import Sampling

_ROLES = ("system", "user", "assistant")


class Conversation:
    """Questions to an engine and its answers.

    When question and answer no longer fit the engine's window, the oldest turns are left out of
    what the model reads, down to half of the window; the system message always stays. They remain
    in `messages`.

    Args:
        engine: Who answers; it stays open.
        system: Text of the system message; None leaves it to the chat template.

    Attributes:
        messages: Questions and answers, without the system message.
        start: The first of them that the model still reads.
        stopped: Which of them are answers that were not written to their end.
        answers: Texts of the last answer's choices.

    Example:
        >>> from hanol.engines import ScriptedEngine
        >>> from hanol.runs import synchronous
        >>> talk = Conversation(ScriptedEngine(["Hello!", "Fine."]))
        >>> [piece.text for question in ("Hi", "How are you?")
        ...  for piece in synchronous(talk.ask)(question)]
        ['Hello!', 'Fine.']
        >>> len(talk.messages)
        4
    """

    def __init__(self, engine: Engine, *, system: str | None = None) -> None:
        self.engine, self.system = engine, system
        self.messages: list[Message] = []
        self.start = 0
        self.stopped: set[int] = set()
        self.answers: list[str] = []

    @property
    def read(self) -> tuple[Message, ...]:
        """The messages that the model reads, the system message first."""
        system = () if self.system is None else (Message("system", self.system),)
        return (*system, *self.messages[self.start :])

    async def ask(
        self,
        question: str,
        sampling: Sampling | None = None,
        *,
        n: int = 1,
        images: Sequence[ImagePart] = (),
    ) -> AsyncIterator[Piece]:
        """Ask, and stream the answers; the first one stays in the conversation.

        Closing the iterator stops the answer: what came so far stays, and is noted in `stopped`.
        After an error, or when nothing came, the conversation is as it was before.

        Args:
            question: What the user says.
            sampling: How the answer is drawn; None takes the engine's `default_sampling`.
            n: Answers to draw.
            images: Pictures that the question is about.

        Raises:
            CapabilityError: The engine reads no images.
            EngineError: The engine failed, or the question alone is longer than its window.
        """
        at, before = len(self.messages), self.start
        content: Content = (*images, TextPart(question)) if images else question
        self.messages.append(Message("user", content))
        sampling = self.engine.default_sampling if sampling is None else sampling
        texts, ended = [""] * n, False
        try:
            if images:  # before anything counts their tokens
                self.engine.check(Request(self.read))
            self._fit(sampling.max_tokens)
            async for piece in self.engine.stream(Request(self.read, sampling, n=n)):
                texts[piece.choice] += piece.text
                if piece.completion is not None:
                    texts, ended = [choice.text for choice in piece.completion.choices], True
                    self._answered(texts)
                yield piece
        except Exception:
            texts = [""]
            raise
        finally:
            if not ended and texts[0]:
                self._answered(texts)
                self.stopped.add(len(self.messages) - 1)
            elif not ended:
                self._cut(at)
                self.start = before

    def keep(self, choice: int) -> None:
        """Put another of the last answers, counted from 0, in the place of the first.

        Raises:
            DataError: There is no such answer.
        """
        if not 0 <= choice < len(self.answers):
            raise DataError(
                f"There is no answer {choice + 1}: the last question has {len(self.answers)}."
            )
        self.messages[-1] = Message("assistant", self.answers[choice])

    def undo(self) -> str | None:
        """Take the last question back, with its answer; returns it, or None if there is none."""
        questions = [i for i, message in enumerate(self.messages) if message.role == "user"]
        if not questions:
            return None
        question = self.messages[questions[-1]].text
        self._cut(questions[-1])
        return question

    def to_dict(self) -> dict[str, Any]:
        """The whole conversation as a row that training reads.

        Stopped answers carry `"stopped": true` beside their content.
        """
        system = [] if self.system is None else [Message("system", self.system).to_dict()]
        said: list[dict[str, Any]] = [message.to_dict() for message in self.messages]
        for i in self.stopped:
            said[i]["stopped"] = True
        return {"messages": [*system, *said]}

    def restore(self, row: Mapping[str, Any]) -> None:
        """Replace the conversation by that of a row with `messages`, as `to_dict` gives it.

        Raises:
            DataError: The row is something else; the conversation is as it was before.
        """
        rows = row.get("messages")
        said = list(map(_message, rows)) if isinstance(rows, list) else []
        if not said or any(message.role == "system" for message in said[1:]):
            raise DataError(
                "The row holds no conversation: `messages` must be a list of objects with `role` "
                "and `content`, a system message only at its beginning."
            )
        has_system = said[0].role == "system"
        self.system = said[0].text if has_system else None
        self.messages = said[has_system:]
        stopped = [i for i, one in enumerate(rows or []) if one.get("stopped") is True]
        self.stopped = {i - has_system for i in stopped}
        self.start, self.answers = 0, []

    def _answered(self, texts: Iterable[str]) -> None:
        self.answers = list(texts)
        self.messages.append(Message("assistant", self.answers[0]))

    def _cut(self, length: int) -> None:
        del self.messages[length:]
        self.stopped = {i for i in self.stopped if i < length}
        self.start, self.answers = min(self.start, length), []

    def _fit(self, max_tokens: int | None) -> None:
        window = self.engine.context_window
        if window is None:
            return
        room = window - min(max_tokens or window, window // 4)
        tokens = self.engine.count_tokens(self.read)
        if tokens <= room:
            return
        # What stays is read anew, because it follows on other tokens: that should be rare.
        questions = [i for i, message in enumerate(self.messages) if message.role == "user"]
        for self.start in [i for i in questions if i > self.start]:
            if self.engine.count_tokens(self.read) <= window // 2:
                break


def _message(row: Any) -> Message:
    role, content = (row.get("role"), row.get("content")) if isinstance(row, dict) else (None, None)
    if role not in _ROLES or not isinstance(content, str):
        raise DataError(
            f"{row!r:.80} is not a message: it needs a `role` ({', '.join(_ROLES)}) and a text as "
            "`content`."
        )
    return Message(role, content)
