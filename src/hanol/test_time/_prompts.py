"""How a problem, and earlier answers to it, are put to a model."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hanol.engines import Message
from hanol.errors import ConfigError
from hanol.sampling import Sampling

REVISE = "Your answer may be wrong. Look for a mistake, then solve the problem again."


@dataclass(frozen=True)
class ThinkSettings:
    """How solutions are sampled; what a policy is fitted for.

    Args:
        sampling: Of each answer; its `max_tokens` is what the budget counts as a complete answer's
            tokens, and must be given. The seed is that of the search.
        separator: Text that ends a step.
        system: System message; None for the chat template's own.
        template: What is asked, with "{problem}" in it.
        raw: Continue the prompt as plain text, without a chat template. None does so where the
            engine has token ids and the checkpoint no template.
        concurrency: Requests at once to an engine outside of this process.
        before: Messages of the conversation before the problem.

    Raises:
        ConfigError: A value is missing or out of range.
    """

    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.8, max_tokens=512))
    separator: str = "\n\n"
    system: str | None = None
    template: str = "{problem}"
    raw: bool | None = None
    concurrency: int = 16
    before: tuple[Message, ...] = ()

    def __post_init__(self) -> None:
        if self.sampling.max_tokens is None:
            raise ConfigError("`sampling` has no `max_tokens`: a budget counts answers of so many.")
        if not self.separator:
            raise ConfigError("`separator` is empty: it is the text that ends a step.")
        if "{problem}" not in self.template:
            raise ConfigError(f'`template` is {self.template!r}, but must contain "{{problem}}".')

    def asked(self, problem: str) -> str:
        """What is asked of a model."""
        return self.template.replace("{problem}", problem)

    def messages(self, problem: str, answers: Sequence[str] = ()) -> tuple[Message, ...]:
        """The conversation up to where a solution begins, after these earlier answers."""
        system = () if self.system is None else (Message("system", self.system),)
        return (*system, *self.before, *revision_messages(self.asked(problem), answers))

    def steps(self, text: str) -> list[str]:
        """The steps of a solution, as verifiers see them: without separators, none blank."""
        return [part.strip() for part in text.split(self.separator) if part.strip()]


def revision_messages(problem: str, answers: Sequence[str] = ()) -> tuple[Message, ...]:
    """A problem, and answers that each are asked to be revised, as a conversation.

    Revision models are trained on it (`hanol.test_time.revision_rows`), and asked in it.
    """
    turns = [Message("user", problem)]
    for answer in answers:
        turns += [Message("assistant", answer.strip()), Message("user", REVISE)]
    return tuple(turns)
