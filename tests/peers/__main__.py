"""Runs transformers' own model tests with and without hanol: `make test-peers`.

    python -m tests.peers                     every member, and a table
    python -m tests.peers kimi_linear qwen3_5

The exit code is 1 if a test fails with hanol that passes without it and is not in `EXPECTED`.
"""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

REPOSITORY = Path(__file__).parents[2]
FETCHED = REPOSITORY / "build" / "peers"
LIMIT = 300  # seconds a test
# Member and test, with the reason why hanol keeps to what the test does not want.
EXPECTED: dict[tuple[str, str], str] = {}


def start(mode: str, members: list[str]) -> subprocess.Popen[str]:
    """One run over all tests of the members."""
    file = "tests/peers/members.py"
    chosen = [f"{file}::{member}" for member in members] or [file]
    options = [
        "-c", os.devnull, "--rootdir", ".", "--import-mode=importlib", "--noconftest", "-q",
        "-p", "no:cacheprovider", "--disable-warnings", "--tb=short", f"--timeout={LIMIT}",
        f"--junitxml={FETCHED / mode}.xml",
    ]  # fmt: skip
    environment = os.environ | {
        "HANOL_REGISTERED": str(int(mode == "hanol")),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "_INSIDE_SUB_PROCESS": "1",  # no process of its own for the test that changes the device
    }
    with (FETCHED / f"{mode}.txt").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *chosen],
            cwd=REPOSITORY, env=environment, stdout=log, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


def read(mode: str) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """Tests of each member that ran, and those that failed."""
    ran, failed = defaultdict(set), defaultdict(set)
    for case in ElementTree.parse(FETCHED / f"{mode}.xml").iter("testcase"):
        member, test = case.attrib["classname"].rpartition(".")[2], case.attrib["name"]
        if case.find("failure") is not None or case.find("error") is not None:
            failed[member].add(test)
        if case.find("skipped") is None or test in failed[member]:
            ran[member].add(test)
    return ran, failed


def main(members: list[str]) -> int:
    """Run both and print the table."""
    for process in [start(mode, members) for mode in ("plain", "hanol")]:
        process.wait()
    ran, plain = read("plain")
    also_ran, hanol = read("hanol")
    print("| member | tests | fail without hanol | fail with it | with it alone |")
    print("|---|---:|---:|---:|---|")
    unexpected = []
    for member in sorted(ran | also_ran):
        alone = sorted(hanol[member] - plain[member])
        unexpected += [(member, x) for x in alone if (member, x) not in EXPECTED]
        total, names = len(ran[member] | also_ran[member]), ", ".join(alone)
        print(f"| {member} | {total} | {len(plain[member])} | {len(hanol[member])} | {names} |")
    for member, test in unexpected:
        print(f"fails with hanol alone: {member} {test}, see {FETCHED / 'hanol.txt'}")
    return int(bool(unexpected) or not ran)


sys.exit(main(sys.argv[1:]))
