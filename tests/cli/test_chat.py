"""`hanol chat` from pipes and in a terminal, and `hanol generate` with a chat template."""

import json
import os
import pty
import re
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.forked import Forked
from typer.testing import CliRunner

from hanol import models
from hanol.cli import app
from hanol.engines import ScriptedEngine

runner = CliRunner()
Start = Callable[..., Forked]


def chat(*arguments: str, input: str = "", code: int = 0) -> Any:
    done = runner.invoke(app, ["chat", *arguments], input=input)
    assert done.exit_code == code, done.output
    return done


@pytest.fixture
def script(tmp_path: Path) -> str:
    file = tmp_path / "turns.jsonl"
    file.write_text("".join(f'{{"text": "answer {i}"}}\n' for i in range(1, 6)))
    return f"scripted:{file}"


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The bundled model with a template that has a system message of its own."""
    model, tokenizer = models.load("tiny")
    tokenizer.chat_template = (
        "{% if messages[0].role != 'system' %}<system>be kind</system>{% endif %}"
        "{% for m in messages %}{% if m.content == 'boom' %}{{ 1 + m.content }}{% endif %}"
        "<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    return str(models.save(model, tmp_path_factory.mktemp("talker") / "m", tokenizer))


def test_a_pipe_is_read_line_by_line(script: str) -> None:
    done = chat(script, input='one\n\ntwo \\\nlines\n"""\nthree\n\nthree\n"""\n')
    assert done.stdout == "answer 1\nanswer 2\nanswer 3\n"


def test_questions_of_the_command_line_come_first(script: str) -> None:
    done = chat(script, "-p", "/help", "-p", "b", "--json", input="c\n")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["question"] for row in rows] == ["/help", "b", "c"]
    assert [row["text"] for row in rows] == ["answer 1", "answer 2", "answer 3"]
    assert {row["finish_reason"] for row in rows} == {"stop"}
    assert rows[-1]["prompt_tokens"] > rows[0]["prompt_tokens"]


def test_several_answers(script: str) -> None:
    done = chat(script, "-n", "2", input="one\n/keep 2\n/keep 3\n", code=1)
    assert done.stdout == f"answer 1\n{'-' * 40}\nanswer 1\n"
    assert "answer 2 stays" in done.stderr
    assert "no answer 3: the last question has 2" in done.stderr
    rows = chat(script, "-n", "2", "--json", input="one\n").stdout.splitlines()
    assert [json.loads(row)["choice"] for row in rows] == [0, 1]


def test_history_is_sent_and_taken_back(script: str) -> None:
    # The script answers by the number of turns that a request holds.
    done = chat(script, input="a\nb\n/undo\nc\n/retry\n/reset\nd\n")
    answers = ["answer 1", "answer 2", "answer 2", "answer 2", "answer 1"]
    assert done.stdout.splitlines() == answers
    assert "taken back: b" in done.stderr


def test_save_and_load(script: str, tmp_path: Path) -> None:
    file = tmp_path / "my chats.jsonl"
    chat(script, "--system", "Be brief.", input=f"a\n/save {file}\nb\n/save {file}\n")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [len(row["messages"]) for row in rows] == [3, 5]
    assert rows[1]["messages"][0] == {"role": "system", "content": "Be brief."}
    assert rows[1]["messages"][4] == {"role": "assistant", "content": "answer 2"}
    done = chat(script, input=f"/load {file}\n/system\nc\n")
    assert done.stdout == "answer 3\n"
    assert "Be brief." in done.stderr


@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_saving_ruins_no_other_file(script: str, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"notes{suffix}"
    file.write_text("my notes, without a line end")
    done = chat(script, input=f"a\n/save {file}\n", code=1)
    assert file.read_text() == "my notes, without a line end"
    assert "notes" in done.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/hepl", "Did you mean '/help'?"),
        ("/load nowhere.jsonl", "nowhere.jsonl"),
        ("/load chats", "give a path like chat.jsonl"),
        ("/temperature hot", "`temperature` is 'hot', but must be a number"),
        ("/temperature -1", "`temperature` is -1"),
        ("/set top_k 2.5", "`top_k` is 2.5"),
        ("/set temprature 1", "Did you mean 'temperature'?"),
        ("/save a.jsonl", "nothing to save"),
    ],
)
def test_wrong_commands_say_what_is_wrong(script: str, line: str, said: str) -> None:
    done = chat(script, input=f"{line}\nnever asked\n", code=1)
    assert said in done.stderr
    assert done.stdout == ""


def test_values_of_the_sampling_reach_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def answer(request: Any) -> str:
        seen.append(request.sampling)
        return "fine"

    monkeypatch.setattr(ScriptedEngine, "from_file", lambda path, **_: ScriptedEngine(answer))
    lines = "a\n/temperature 0.25\n/set stop END\nb\n/temperature default\n/set top_k 7\n/set\nc\n"
    done = chat("scripted:x", "--temperature", "0.5", "--seed", "3", input=lines)
    assert [one.temperature for one in seen] == [0.5, 0.25, None]
    assert [one.stop for one in seen] == [(), ("END",), ("END",)]
    assert [one.seed for one in seen] == [3, 4, 5]
    assert "top_k 7" in done.stderr


def test_a_question_may_begin_with_a_slash(script: str) -> None:
    rows = chat(script, "--json", input="//etc\n").stdout.splitlines()
    assert json.loads(rows[0])["question"] == "/etc"


def test_what_is_no_utf_8_is_one_line(script: str) -> None:
    for done in (
        runner.invoke(app, ["chat", script], input=b"\xff\n"),
        runner.invoke(app, ["chat", script, "-p", "\udcff"]),
    ):
        assert done.exit_code == 1
        assert "not valid UTF-8" in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_model_without_a_template_says_how_to_talk_to_it() -> None:
    done = chat("tiny", "-p", "hi", "--json", code=1)
    assert "chatml:tiny" in json.loads(done.stdout)["error"]["message"]


def test_generate_applies_the_template_and_says_so(talker: str) -> None:
    def generate(*options: str) -> Any:
        done = runner.invoke(
            app, ["generate", talker, "--temperature", "0", "--max-tokens", "4", *options]
        )
        assert done.exit_code == 0, done.output
        return done

    answered, completed = generate("-p", "hi", "--json"), generate("-p", "hi", "--json", "--raw")
    assert answered.stderr.count("chat template") == 1
    assert "--raw" in answered.stderr
    assert "chat template" not in completed.stderr
    tokenizer = models.load_tokenizer(talker)
    for done, rendered in (
        (answered, "<system>be kind</system><user>hi</user><assistant>"),
        (generate("-p", "hi", "--json", "--system", "s"),
         "<system>s</system><user>hi</user><assistant>"),
        (completed, "hi"),
    ):  # fmt: skip
        [sample] = json.loads(done.stdout)["samples"]
        assert sample["prompt_tokens"] == len(tokenizer(rendered).input_ids)
    text = json.loads(answered.stdout)["samples"][0]["text"]
    assert generate("-p", "hi").stdout == f"{text}\n"  # the question is not printed again
    assert generate("-p", "hi", "--raw").stdout.startswith("hi")
    piped = runner.invoke(
        app, ["generate", talker, "--temperature", "0", "--max-tokens", "4"], input="hi\n"
    )
    assert piped.stdout == f"{text}\n"


def test_generate_with_templates_that_cannot_be_used(talker: str) -> None:
    for arguments, code, said in (
        (["tiny", "-p", "a", "--system", "s"], 1, "no chat template"),
        ([talker, "-p", "boom"], 1, "to speak chatml instead"),
        ([talker, "-p", "a", "--system", "s", "--raw"], 2, "--system and --raw"),
        (["scripted:x.jsonl", "-p", "a", "--raw"], 1, "answers messages only"),
    ):
        done = runner.invoke(app, ["generate", *arguments, "--json"])
        assert done.exit_code == code
        assert said in json.loads(done.stdout)["error"]["message"]
        assert code == 2 or done.stderr.count("\n") == 1, done.stderr


def test_a_checkpoint_says_how_it_is_sampled(talker: str, tmp_path: Path) -> None:
    from hanol.engines import CheckpointEngine, Sampling

    model, tokenizer = models.load("tiny")
    own = {"temperature": 0.3, "top_k": 20, "repetition_penalty": 1.1}
    model.generation_config.update(do_sample=True, **own)
    engine = CheckpointEngine(model, tokenizer)
    assert engine.default_sampling == Sampling(**own)
    model.generation_config.update(do_sample=False)
    assert CheckpointEngine(model, tokenizer).default_sampling == Sampling()
    talking = CheckpointEngine(model, tokenizer, chat_template="chatml").default_sampling
    assert (talking.temperature, talking.top_p) == (0.7, 0.95)


# -- in a terminal


class Terminal:
    """A process whose input and output are a terminal."""

    def __init__(self, start: Start, arguments: tuple[str, ...], environment: dict[str, str]):
        own, other = pty.openpty()
        self.fd, self.seen = own, ""
        self.process = start(
            "from hanol.cli import main; main()", "chat", *arguments, tty=os.ttyname(other),
            **{"TERM": "xterm-256color", "COLUMNS": "80", **environment},
        )  # fmt: skip
        os.close(other)

    def until(self, pattern: str, seconds: float = 60.0) -> str:
        """What is shown from here to the first match."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen, re.DOTALL)):
            assert time.monotonic() < end, f"no {pattern!r} in {self.seen!r}"
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self.fd, 1 << 16).decode(errors="replace")
                except OSError:  # the other end was closed
                    raise AssertionError(f"no {pattern!r} in {self.seen!r}") from None
        shown, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return shown

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def press_ctrl_c(self) -> None:
        time.sleep(0.2)  # at once after its prompt readline misses it
        self.type("\x03")

    def interrupt(self, pattern: str) -> str:
        """Press Ctrl-C until the pattern is shown."""
        for _ in range(6):
            self.press_ctrl_c()
            with suppress(AssertionError):
                return self.until(pattern, 10)
        raise AssertionError(f"no {pattern!r} in {self.seen!r}")


@pytest.fixture
def terminal(forked: Start) -> Callable[..., AbstractContextManager[Terminal]]:
    """Starts `hanol chat` in a terminal."""

    @contextmanager
    def start(*arguments: str, **environment: str) -> Iterator[Terminal]:
        made = Terminal(forked, arguments, environment)
        try:
            yield made
        finally:
            made.process.send_signal(signal.SIGKILL)
            made.process.wait()
            os.close(made.fd)

    return start


def test_ctrl_c_stops_the_answer_and_not_the_conversation(terminal) -> None:
    with terminal("chatml:tiny", "--max-tokens", "100000") as shell:
        shell.until("> ")
        shell.type("def mean(values):\n")
        shell.until(r"\):\r\n.*\w{2}")
        shell.interrupt(r"\(stopped.*> ")
        shell.type("/stats\n")
        assert "2 messages" in shell.until(r"tokens\r\n")
        shell.until("> ")
        shell.type('"""\nno question')
        shell.until("no question")
        shell.interrupt("Ctrl-C again.*> ")
        shell.type("/set max_tokens 3\n")
        shell.until("> ")
        shell.type("again\n")
        shell.until("cut at the limit.*> ")
        shell.interrupt("Ctrl-C again.*> ")
        shell.press_ctrl_c()
        with suppress(TimeoutError):
            shell.process.wait(10)
        if shell.process.poll() is None:
            shell.type("\x03")
        assert shell.process.wait(30) == 0


def test_answers_are_coloured_by_temperature_in_a_terminal(terminal) -> None:
    arguments = ("chatml:tiny-autodeco", "--max-tokens", "12", "-p", "def mean(values):")
    with terminal(*arguments, COLORTERM="truecolor", NO_COLOR="") as shell:
        shown = shell.until(r"temperature .*\n.*> ")
        assert len(set(re.findall(r"48;2;\d+;\d+;\d+", shown))) > 5
        shell.type("\x04")
        assert shell.process.wait(30) == 0
    with terminal(*arguments, NO_COLOR="1") as shell:
        shown = shell.until(r"cut at the limit.*> ")
        assert "48;" not in shown
        assert "temperature" not in shown


def test_a_model_cannot_steer_the_terminal(terminal, tmp_path: Path) -> None:
    file = tmp_path / "turns.jsonl"
    file.write_text(json.dumps({"text": "a\x1b]0;owned\x07b\x9b31m"}) + "\n")
    with terminal(f"scripted:{file}", "-p", "hi") as shell:
        shown = shell.until("a .*b.*\n")
        assert "\x1b]0" not in shown
        assert "\x9b" not in shown
    piped = chat(f"scripted:{file}", "-p", "hi")
    assert piped.stdout == "a\x1b]0;owned\x07b\x9b31m\n"
