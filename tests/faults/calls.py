"""What a model may write and what tools may be asked: many in one process."""

import ipaddress
import json
from random import Random
from typing import Any

from tests.faults.kills import write_documents
from tests.faults.lab import Lab, Outcome, kind
from tests.research.test_injection import HOSTILE
from tests.tools import test_fetch as fetch
from tests.tools.test_turn import _KINDS, _PIECES

from hanol.engines import ScriptedEngine
from hanol.errors import AddressError
from hanol.research import Researcher
from hanol.retrieval import Index
from hanol.runs import RunEnded, ToolReturned
from hanol.tools import escape_observation, local_tools, parse_turn, render_call

PIECES = [*_PIECES, *HOSTILE.values(), "[TOOL_RESULTS]", "<|turn>", "<turn|>", "\u200b\u200c", "\r"]


@kind("fuzzed turn", short=400, long=10_000, inside=True)
def fuzzed_turn(lab: Lab, rng: Random) -> Outcome:
    """Whatever a model writes is a turn or an error; whatever a tool brings is no turn."""
    text = "".join(rng.choices(PIECES, k=rng.randint(1, 14)))
    if rng.random() < 0.3:
        text = text[rng.randint(0, len(text)) :]
    turn = parse_turn(text)
    if turn.error not in _KINDS or (turn.kind == "error") != (turn.error is not None):
        return Outcome("crash", f"an odd turn: {turn}"[:300])
    json.dumps([call.arguments for call in turn.calls], allow_nan=False).encode()
    for call in turn.calls:
        if parse_turn(render_call(call)).calls != (call,):
            return Outcome("lost", f"a call changes when it is written again: {call}"[:300])
    shown = escape_observation(text)
    if escape_observation(shown) != shown:
        return Outcome("lost", f"escaped twice is another text: {text!r}"[:300])
    read = parse_turn(f"<tool_response>\n{shown}\n</tool_response>")
    if read.calls or read.answer is not None:
        return Outcome("lost", f"a text of a tool acts: {text!r}"[:300])
    return Outcome("survived" if turn.error is None else "refused", str(turn.error))


NAMES = [
    "x" * 300, "y/" * 3000, "loop.md", "a\0b", "\ud800", "a.md/b", "~", "~root", "doc://", "", ".",
    "..", "../secret.txt", "../../canary/secret.txt", "/etc/passwd", "/proc/self/environ", ".env",
    ".hanol/index.sqlite", ".hanol/runs", "out.md", "pipe.md", "file:///etc/passwd", "C:\\x", "nul",
    "http://127.0.0.1:9/", "http://a..b/", "http://169.254.169.254/", "ftp://a/", "//a/b", "a?b#c",
    "00.txt", "0\u202etxt", "\x1b]0;owned\x07", " " * 5000, "doc://ca774b47/../../x", "%2e%2e%2f",
]  # fmt: skip
ODD: list[Any] = [
    None, True, 0, -1, 1e308, float("nan"), 10**30, "", [], {}, [[]], [None], {"a": {"b": []}},
    "a" * 100_000, ["a"] * 2000, ["x"] * 17, {"query": "x"}, "\ud800", "NEAR(", '"', "* OR *",
    "a:b", "-- ;", "(" * 2000, "amber AND NOT (", "한" * 500,
]  # fmt: skip


def hostile_folder(lab: Lab) -> Index:
    """An indexed folder with links, a pipe and hidden files, open."""

    def make() -> Index:
        folder = lab.root / "hostile"
        write_documents(folder, Random(0), 4)
        with Index.open(folder) as index:
            index.add(isolated=False)
        (folder / "loop.md").symlink_to("loop.md")
        (folder / "out.md").symlink_to(lab.secret)
        (folder / ".env").write_text("canary-secret of this folder")
        import os

        os.mkfifo(folder / "pipe.md")
        return Index.open(folder)

    return lab.once("hostile folder", make)


@kind("hostile tool call", short=60, long=5000, inside=True)
def hostile_call(lab: Lab, rng: Random) -> Outcome:
    """A run goes on whatever its tools are asked, and reads nothing outside of its folder."""
    index = hostile_folder(lab)
    tools = local_tools(index)
    calls = []
    for _ in range(rng.choice([1, 1, 2])):
        tool = rng.choice(tools)
        keys = [*tool.parameters["properties"], "extra"]
        arguments = {}
        for key in rng.sample(keys, rng.randint(0, len(keys))):
            value = rng.choice([*NAMES, *ODD])
            is_list = tool.parameters["properties"].get(key, {}).get("type") == "array"
            arguments[key] = [value] if is_list and rng.random() < 0.85 else value
        calls.append({"name": tool.name, "arguments": arguments})
    turn = "".join(f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls)
    events = list(
        Researcher(index, ScriptedEngine([turn, "<answer>done</answer>", "<answer>x</answer>"]),
                   tools=tools).ask("q")
    )  # fmt: skip
    ended, results = events[-1], [event for event in events if isinstance(event, ToolReturned)]
    if not isinstance(ended, RunEnded) or ended.answer is None:
        return Outcome("lost", f"the run did not go on: {calls}"[:300])
    told = " ".join(result.text for result in results)
    if "canary-secret" in told or "root:" in told or str(lab.root) in told:
        return Outcome("lost", f"something outside of the folder was told: {calls}"[:300])
    return Outcome("refused" if any(result.failed for result in results) else "survived")


def hidden_address(rng: Random) -> str:
    """An address that is not public, in one of the ways to write it."""
    network = rng.choice(
        ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16",
         "100.64.0.0/10", "0.0.0.0/8", "192.0.0.0/24", "198.18.0.0/15", "224.0.0.0/4",
         "240.0.0.0/4", "168.63.129.16/32", "192.88.99.0/24", "::1/128", "fc00::/7", "fe80::/10",
         "ff00::/8", "fec0::/10", "3fff::/20", "5f00::/16", "2001:db8::/32"]
    )  # fmt: skip
    net = ipaddress.ip_network(network)
    address = net[rng.randrange(min(net.num_addresses, 2**100))]
    if address.version == 6:
        return f"[{address}]"
    number = int(address)
    parts = str(address).split(".")
    high, low = f"{number >> 16:x}", f"{number & 0xFFFF:x}"
    return rng.choice(
        [str(address), str(number), hex(number), oct(number).replace("0o", "0"),
         ".".join(f"0{int(p):o}" for p in parts), ".".join(map(hex, map(int, parts))),
         f"{parts[0]}.{int(address) & 0xFFFFFF}", f"[::ffff:{address}]", f"[64:ff9b::{high}:{low}]",
         f"[2002:{high}:{low}::]", f"[::{address}]", f"{address}.", f"user@{address}",
         f"public.test@{address}", "".join(chr(ord(c) + 0xFEE0) if c.isdigit() else c for c in
         str(address)), str(address).replace(".", "\u3002"), f"{address}%2F", f"{address}\\@a.test"]
    )  # fmt: skip


@kind("private address", short=60, long=2000, inside=True)
def private_address(lab: Lab, rng: Random) -> Outcome:
    """No byte goes to a private address: named, redirected to, or told by the resolver."""
    host = hidden_address(rng)
    way = rng.choice(["named", "redirect", "resolved"])

    async def run(listener: fetch.Listener) -> Any:
        plain = host.strip("[]").rpartition("@")[2]
        resolver = fetch.names(
            site=[plain] if way == "resolved" else fetch.PUBLIC, public=fetch.PUBLIC
        )
        if way == "redirect":
            listener._answer = lambda _: fetch.redirect(f"http://{host}:{listener.port}/x")
            seen: list[str] = []

            def first(address: Any) -> bool:  # the first hop counts as public, no other one does
                seen.append(str(address))
                return len(seen) == 1 or fetch.is_public(address)

            fetcher = fetch.Fetcher(
                ports=(listener.port,), resolver=fetch.names(site="127.0.0.1"), permitted=first
            )
            return await fetcher.fetch(f"http://site.test:{listener.port}/")
        fetcher = fetch.Fetcher(
            ports=(80, listener.port), resolver=resolver, permitted=fetch.is_public
        )
        name = "site.test" if way == "resolved" else host
        return await fetcher.fetch(f"http://{name}:{listener.port}/")

    found, listener = fetch.fetching(lambda _: fetch.response(b"secret"), run)
    if not isinstance(found, AddressError):
        return Outcome("lost", f"{way}: {host} was fetched")
    is_tried = fetch.tried(found) and "Invalid URL" not in str(found)
    if is_tried or listener.connections > (way == "redirect"):
        return Outcome("lost", f"{way}: {host} was contacted: {found}")
    if "\n" in str(found):
        return Outcome("crash", f"{way}: more than a line: {found}")
    return Outcome("refused", str(found))
