"""The command, and one conversation of it: questions in, answers out as they are written."""

import sys
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hanol.cli._command import argument, command, option
from hanol.cli._console import new_console, say_json, tell, write
from hanol.cli._options import (
    SamplingOptions,
    SeeingOptions,
    SystemOption,
    open_engine,
)
from hanol.cli.chat._lines import Typed, is_interactive, read_turn, reader
from hanol.cli.chat._slash import run_command
from hanol.errors import ConfigError, HanolError

if TYPE_CHECKING:
    from hanol.engines import Completion, Engine, Piece


@command
def chat(
    model: str = argument("Bundled name, checkpoint folder, hub id, or http://host:port/v1#name."),
    prompt: list[str] | None = option(
        None, "Question to begin with; repeatable. Omitted: none.", "--prompt", "-p"
    ),
    system: SystemOption = None,
    num_samples: int = option(
        1, "Answers to each question; the first one is kept.", "--num-samples", "-n", min=1
    ),
    sampling: SamplingOptions = SamplingOptions(max_tokens=512),
    load: SeeingOptions = SeeingOptions(),
    as_json: bool = option(
        False, "Print one JSON object per answer, also when the command fails.", "--json"
    ),
) -> None:
    """Talk with a model.

    Ctrl-C stops an answer; Ctrl-D, or Ctrl-C twice, ends the conversation; /help lists the
    commands, /image among them. Images of --image belong to the first question. A pipe is read
    line by line, each a question, and the answers go to standard output. With --json each
    answer is one line with a JSON object.

    Example: hanol chat chatml:tiny -p "Hello"
    """
    from hanol.engines import Message, Request, Sampling
    from hanol.runs import synchronous

    images = load.images
    sampling.over(Sampling())  # wrong usage is told before a model is loaded
    engine = open_engine(model, **load.given)
    try:
        engine.count_tokens((Message("user", "Hello"),))  # raises where there is no template
        if images:
            engine.check(Request((Message("user", images),)))
        session = Session(engine, system, sampling, num_samples, as_json)
        session.images = images
        if hasattr(engine, "has_chat_template"):
            _say(f"chat template of {model} applied")
        if is_interactive():
            _say("/help lists the commands, Ctrl-D ends the conversation.")
        session.run(prompt or ())
    finally:
        synchronous(engine.aclose)()


class Session:
    """A conversation with whoever sits before the terminal, or with a pipe."""

    def __init__(
        self,
        engine: "Engine",
        system: str | None,
        sampling: SamplingOptions,
        num_samples: int,
        as_json: bool,
    ) -> None:
        self._engine, self._num_samples, self._as_json = engine, num_samples, as_json
        self.sampling = replace(sampling.over(engine.default_sampling), seed=sampling.seed)
        self._console = new_console()
        self._coloured = bool(self._console.color_system) and not self._console.no_color
        self._scale: Any = None  # of temperatures, once the model has chosen one
        self._is_explained = False  # what its colours mean
        self._last: Completion | None = None
        self._ended = False
        self.images: tuple[Any, ...] = ()  # of the next question
        self.restart(system)

    def restart(self, system: str | None) -> None:
        """Begin a new conversation, whose answers are drawn as those of the first one."""
        from hanol.engines import Conversation

        self.talk = Conversation(self._engine, system=system)
        self._drawn = 0

    def end(self) -> None:
        """Read no further input."""
        self._ended = True

    def run(self, questions: Iterable[str]) -> None:
        """Answer these questions, then what is typed or piped; an error ends what is not typed."""
        read, interactive, interrupted = reader(), is_interactive(), False
        given = iter(questions)
        while not self._ended:
            try:
                if (question := next(given, None)) is None:
                    typed = read_turn(read)
                else:
                    typed = Typed(question)
                    _say(f"> {question}" if interactive else None)
                interrupted = False
                if typed is None:
                    self.end()
                    _say("" if interactive else None)
                elif typed.is_command:
                    _say(run_command(self, typed.text))
                elif typed.text:
                    self.ask(typed.text)
            except HanolError as err:
                if not interactive:
                    raise
                _say(f"hanol: {err}")
            except KeyboardInterrupt:  # while nothing was being answered
                if not interactive:
                    raise
                if interrupted:
                    self.end()
                _say("" if interrupted else "\nCtrl-C again, or Ctrl-D, ends the conversation.")
                interrupted = True

    def ask(self, question: str) -> None:
        """Show the answer to a question as it comes; Ctrl-C at a terminal stops it.

        Raises:
            HanolError: There is none; the conversation is as it was before.
        """
        from hanol.runs import synchronous

        try:
            question.encode()
        except UnicodeError as err:
            raise ConfigError(f"The question is not valid UTF-8: {err}.") from err
        seed, start = self.sampling.seed, self.talk.start
        sampling = replace(self.sampling, seed=None if seed is None else seed + self._drawn)
        self._drawn += self._num_samples
        texts, done, stopped = [""] * self._num_samples, None, False
        images, self.images = self.images, ()
        pieces: Any = synchronous(self.talk.ask)(
            question, sampling, n=self._num_samples, images=images
        )
        try:
            with closing(pieces):
                for piece in pieces:
                    if self.talk.start > start:
                        start = self.talk.start
                        _say(
                            f"The window of {self._engine.context_window:,} tokens is full: the "
                            f"model no longer reads the first {start} messages."
                        )
                    texts[piece.choice] += piece.text
                    done = piece.completion or done
                    if piece.choice == 0 and not self._as_json:
                        self._show(piece)
        except HanolError:
            self.images = images  # the question can be asked again
            raise
        except KeyboardInterrupt:
            if not is_interactive():
                raise
            stopped = True
        finally:
            if not self._as_json and texts[0]:
                write("\n")
        self._last = done or self._last
        self._report(question, texts, done, stopped)

    def _show(self, piece: "Piece") -> None:
        if piece.temperature is not None and self._coloured:
            if self._scale is None:
                from hanol.autodeco import TemperatureScale

                self._scale = TemperatureScale()
            # Colours end at the end of a line: terminals would fill the rest of it.
            for i, text in enumerate(piece.text.expandtabs(4).split("\n")):
                self._console.out("\n" * (i > 0), end="")
                self._console.out(text, style=self._scale.style(piece.temperature), end="")
            sys.stdout.flush()
        else:
            write(piece.text)

    def _report(
        self, question: str, texts: list[str], done: "Completion | None", stopped: bool
    ) -> None:
        """What follows an answer: the other ones, or all as JSON; and why it ended early."""
        if done is not None:
            texts = [choice.text for choice in done.choices]
        for i, text in enumerate(texts):
            if self._as_json:
                reason = "stopped" if done is None else done.choices[i].finish_reason
                row = {"question": question, "choice": i, "text": text, "finish_reason": reason}
                usage = {} if done is None else vars(done.usage)
                say_json(row | usage)
            elif i:
                write(f"{'-' * 40}\n{text}\n")
        if self._scale is not None and not self._is_explained:
            self._is_explained = True
            self._console.print(self._scale.legend())
        if stopped:
            _say("(stopped)" if texts[0] else "(stopped; the question is taken back)")
        elif done is not None and done.finish_reason == "length":
            _say("(cut at the limit of tokens: /set max_tokens N)")

    def stats(self) -> str:
        """Tokens of the conversation, and speed and reuse of the last answer."""
        talk, window = self.talk, self._engine.context_window
        tokens = self._engine.count_tokens(talk.read) if talk.read else 0
        of = "" if window is None else f" of {window:,}"
        lines = [f"conversation: {len(talk.messages)} messages, {tokens:,}{of} tokens"]
        if self._last is not None:
            usage = self._last.usage
            lines.append(
                f"last prompt: {usage.prompt_tokens:,} tokens, {usage.cached_tokens:,} of them "
                f"reused{_seconds(usage.prompt_seconds)}"
            )
            later, seconds = usage.generated_tokens - 1, usage.generation_seconds
            pace = f", {later / seconds:,.1f} tokens/s" if later > 0 and seconds else ""
            lines.append(f"last answer: {usage.generated_tokens:,} tokens{pace}")
        return "\n".join(lines)


def _seconds(seconds: float) -> str:
    return f", {seconds:.2f} s to the first token" if seconds else ""


def _say(text: str | None) -> None:
    if text is not None:
        tell(text)
