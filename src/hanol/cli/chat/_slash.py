"""The commands that begin with a slash."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hanol.cli._options import read_images
from hanol.errors import ConfigError, DataError, UnknownNameError
from hanol.rows import read_rows, replace_rows

if TYPE_CHECKING:
    from hanol.cli.chat._session import Session


class Slash(NamedTuple):
    """A command: what it takes, what it does, and the function that does it and says so."""

    takes: str
    does: str
    run: "Callable[[Session, str], str | None]"


def run_command(session: "Session", line: str) -> str | None:
    """Do what a line says; returns what there is to say of it.

    Raises:
        UnknownNameError: There is no such command; the message names the nearest.
        HanolError: The command could not do it.
    """
    name, _, rest = line.partition(" ")
    if name not in COMMANDS:
        raise UnknownNameError("command", name, COMMANDS)
    return COMMANDS[name].run(session, rest.strip())


def _help(session: "Session", rest: str) -> str:
    shown = {f"{name} {slash.takes}": slash.does for name, slash in COMMANDS.items()}
    width = max(map(len, shown)) + 2
    lines = [f"{name:{width}}{does}" for name, does in shown.items()]
    return "\n".join([*lines, 'A line that ends in \\ goes on; """ begins and ends a block.'])


def _reset(session: "Session", rest: str) -> str:
    session.restart(session.talk.system)
    return "The conversation is empty; the system message stays."


def _system(session: "Session", rest: str) -> str:
    if rest:
        session.talk.system = None if rest == '""' else rest
    return f"system: {session.talk.system or '(the chat template decides)'}"


def _undo(session: "Session", rest: str) -> str:
    question = session.talk.undo()
    return "There is nothing to undo." if question is None else f"taken back: {question}"


def _retry(session: "Session", rest: str) -> str | None:
    before = session.talk.messages[:]
    asked = next((one for one in reversed(before) if one.role == "user"), None)
    question = session.talk.undo()
    if question is None or asked is None:
        return "There is no question to ask again."
    session.images = asked.images
    try:
        session.ask(question)
    finally:
        if len(session.talk.messages) < len(before):  # no other answer came: the old one stays
            session.talk.messages = before
    return None


def _keep(session: "Session", rest: str) -> str:
    session.talk.keep(int(rest) - 1 if rest.isdecimal() else -1)
    return f"answer {rest} stays in the conversation."


def _image(session: "Session", rest: str) -> str:
    from hanol.engines import Message, Request

    images = read_images([Path(rest).expanduser()])
    session.talk.engine.check(Request((Message("user", images),)))
    session.images += images
    return f"the next question is about {len(session.images)} images."


def _save(session: "Session", rest: str) -> str:
    path = _path(rest)
    if not session.talk.messages:
        raise DataError("There is nothing to save: no question was asked.")
    rows = [row for _, row in read_rows(path)] if path.exists() else []
    replace_rows(path, [*rows, session.talk.to_dict()])
    return f"saved as line {len(rows) + 1} of {path}"


def _load(session: "Session", rest: str) -> str:
    path = _path(rest)
    rows = [row for _, row in read_rows(path)]
    if not rows:
        raise DataError(f"{str(path)!r} is empty.")
    session.talk.restore(rows[-1])
    return f"{len(session.talk.messages)} messages, from line {len(rows)} of {path}"


def _path(text: str) -> Path:
    if not text.endswith(".jsonl"):
        raise ConfigError(f"{text!r} is not a file of conversations: give a path like chat.jsonl.")
    return Path(text).expanduser()


def _set(session: "Session", rest: str) -> str:
    """Change a value of the sampling and show it, or show it or all of them."""
    name, _, value = rest.partition(" ")
    known = [field.name for field in fields(session.sampling)]
    if name and name not in known:
        raise UnknownNameError("value", name, known)
    if value:
        new: Any = value
        if value == "default":
            new = getattr(session.talk.engine.default_sampling, name)
        elif name != "stop":
            new = _number(name, value)
        session.sampling = replace(session.sampling, **{name: new})
    shown = {name: getattr(session.sampling, name) for name in ([name] if name else known)}
    return ", ".join(f"{name} {'-' if value is None else value}" for name, value in shown.items())


def _number(name: str, text: str) -> float:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    raise ConfigError(f"`{name}` is {text!r}, but must be a number.")


COMMANDS = {
    "/help": Slash("", "this list", _help),
    "/reset": Slash("", "forget questions and answers", _reset),
    "/system": Slash("[TEXT]", 'show or set the system message; "" for none', _system),
    "/undo": Slash("", "take back the last question and its answer", _undo),
    "/retry": Slash("", "ask the last question again", _retry),
    "/image": Slash("FILE", "show an image with the next question; repeatable", _image),
    "/keep": Slash("K", "with -n: keep answer K instead of the first", _keep),
    "/save": Slash("FILE.jsonl", "add the conversation to a file that training reads", _save),
    "/load": Slash("FILE.jsonl", "go on with the last conversation of such a file", _load),
    "/temperature": Slash(
        "[X]", "0 is greedy, default the model's own", lambda s, x: _set(s, f"temperature {x}")
    ),
    "/set": Slash("[NAME VALUE]", "show or change how answers are drawn", _set),
    "/stats": Slash(
        "", "tokens, speed, and how much of the prompt was reused", lambda s, _: s.stats()
    ),
    "/quit": Slash("", "end; so do Ctrl-D, and Ctrl-C twice", lambda s, _: s.end()),
}
