"""Prompts within a window: counts of tokens that grow with the conversation, and cutting."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from hanol.engines import Message, Role
from hanol.retrieval import split_sentences

Count = Callable[[str], int]
LEFT_OUT = "[An earlier result was left out here to fit the context.]"


def cut(text: str, limit: int, count: Count) -> str:
    """The beginning of a text, with a note if it was cut; "" where not even the note fits."""
    if len(text.encode("utf-8", "replace")) <= limit:  # a token has a byte or more
        return text
    have = count(text)
    if have <= limit:
        return text
    note = f"\n[Cut: the first part of a text of {have} tokens.]"
    characters = len(text)
    while characters > 0:
        # A little less than the share, so that one or two rounds are enough.
        characters = min(characters - 1, int(characters * 0.95 * limit / have))
        kept = _whole_lines(text[:characters]) + note
        if (have := count(kept)) <= limit:
            return kept
    return ""


def cut_sentences(text: str, limit: int, count: Count) -> str:
    """Keep as many whole sentences as fit; of a single long sentence, what fits."""
    ends = [span.end for span in split_sentences(text)]
    characters = len(text)
    kept = text
    while (have := count(kept)) > limit and characters > 0:
        characters = min(characters - 1, int(characters * 0.95 * limit / have))
        characters = max((end for end in ends if end <= characters), default=characters)
        kept = text[:characters]
    return kept


@dataclass
class Transcript:
    """A conversation with its length, which costs only what is new.

    Each message is counted once, alone, so the sum is an upper estimate; where an engine has told
    the length of a prompt, that is taken for its messages instead.
    """

    count: Count
    messages: list[Message] = field(default_factory=list)
    tokens: int = 0  # upper estimate of the rendered conversation
    _weights: list[int] = field(default_factory=list)
    _measured: int = 0  # messages whose tokens an engine has told
    _newest: int = 0  # index of what the user said last, refusals apart

    def add(self, role: Role, content: str, *, is_format_error: bool = False) -> None:
        """Append a message; one of the role that spoke last joins that message."""
        if self.messages and self.messages[-1].role == role:
            content = f"{self.messages[-1].text}\n\n{content}"
            self.replace_last(content)
            return
        self.add_apart(role, content)
        if role == "user" and not is_format_error:
            self._newest = len(self.messages) - 1

    def add_apart(self, role: Role, content: str) -> None:
        """Append a message, even after one of the same role, as the official loop does."""
        self.messages.append(Message(role, content))
        self._weights.append(self.count(content))
        self.tokens += self._weights[-1]

    def replace_last(self, content: str) -> None:
        """Overwrite the last message."""
        if self.messages[-1].role == "user":
            self._newest = len(self.messages) - 1
        self._replace(-1, content)
        if self._measured >= len(self.messages):
            self.tokens, self._measured = sum(self._weights), 0

    def measured(self, tokens: int) -> None:
        """Set the length to what the engine has counted for the whole conversation."""
        if tokens:  # some endpoints do not tell
            self.tokens, self._measured = tokens, len(self.messages)

    def fitted(self, limit: int, closing: str = "") -> tuple[tuple[Message, ...], int]:
        """The conversation within a limit, and its tokens.

        What the user asked and what was found last are kept. Turns that were refused after that
        give way first; then what lies between, the oldest first: results are replaced by a note,
        whole rounds are dropped, then the beginning of the model's last turn, at last the end of
        the last result. `closing` ends the user's last message, and is never cut.
        """
        room = limit - (self.count(closing) if closing else 0)
        kept = Transcript(self.count, list(self.messages), self.tokens, list(self._weights))
        if kept.tokens > room:
            kept.tokens = sum(kept._weights)
            while kept.tokens > room and len(kept.messages) - 1 > self._newest:
                kept._drop(-1)
            kept._shorten(room)
        if closing:
            kept.add("user", closing)
        return tuple(kept.messages), kept.tokens

    def _shorten(self, room: int) -> None:
        """Come down to at most `room` tokens, as far as the question allows."""
        note = self.count(LEFT_OUT)
        for index in range(2, len(self.messages) - 1):
            if self.tokens <= room:
                return
            if self.messages[index].role == "user" and self._weights[index] > note:
                self._replace(index, LEFT_OUT)
        while self.tokens > room and len(self.messages) > 4:
            self._drop(2)
            while len(self.messages) > 4 and self.messages[2].role == "user":
                self._drop(2)
        for index in range(2, len(self.messages)):
            if self.tokens > room:
                left = max(room - self.tokens + self._weights[index], 0)
                shorten = _cut_beginning if self.messages[index].role == "assistant" else cut
                self._replace(index, shorten(self.messages[index].text, left, self.count))

    def _replace(self, index: int, content: str) -> None:
        self.messages[index] = Message(self.messages[index].role, content)
        new = self.count(content)
        self.tokens += new - self._weights[index]
        self._weights[index] = new

    def _drop(self, index: int) -> None:
        del self.messages[index]
        self.tokens -= self._weights.pop(index)


def merged(messages: Iterable[Message]) -> list[Message]:
    """The messages with neighbours of the same role joined, as most chat templates demand."""
    joined: list[Message] = []
    for message in messages:
        if not message.text and joined:
            continue
        if joined and joined[-1].role == message.role:
            content = f"{joined[-1].text}\n\n{message.text}"
            joined[-1] = Message(message.role, content)
        else:
            joined.append(message)
    return joined


def _cut_beginning(text: str, limit: int, count: Count) -> str:
    """Keep the end: a turn's calls come after its thoughts."""
    characters = len(text)
    kept = text
    while characters > 0 and (have := count(kept)) > limit:
        characters = min(characters - 1, int(characters * 0.95 * limit / have))
        kept = "[...] " + text[len(text) - characters :] if characters > 0 else ""
    return kept


def _whole_lines(text: str) -> str:
    end = text.rfind("\n")
    return text[:end] if end > len(text) // 2 else text
