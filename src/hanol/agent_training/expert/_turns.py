"""What every expert is: an engine whose turns a program writes."""

from abc import abstractmethod
from collections.abc import Sequence

from hanol.engines import Completion, Engine, Message, Request, Usage


class Turns(Engine):
    """An engine that answers with the next turn of a conversation."""

    @abstractmethod
    def turn(self, messages: Sequence[Message]) -> str:
        """The next turn of a conversation, as text."""

    async def complete(self, request: Request) -> Completion:
        """The expert's next turn."""
        self.check(request)
        text = self.turn(request.messages)
        usage = Usage(self.count_tokens(request.messages), len(text.split()))
        return Completion.of(text, usage=usage)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Words, as there is no tokenizer."""
        return sum(len(message.text.split()) for message in messages if message.role != "system")
