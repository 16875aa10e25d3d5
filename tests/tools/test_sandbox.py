"""What untrusted code can do in the sandbox: next to nothing, and every run says how it was run.

Each attack really runs. Where bubblewrap does not work, everything that needs it is skipped with a
reason that says so.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from hanol.errors import SandboxError
from hanol.tools import PythonResult, SandboxLimits, arun_python, run_python, sandbox_problem
from hanol.tools.sandbox import _sandbox  # private: where programs are looked for

PROBLEM = sandbox_problem()
needs_bwrap = pytest.mark.skipif(
    PROBLEM is not None,
    reason=f"WARNING: THE SANDBOX WAS NOT TESTED. Code cannot be isolated here: {PROBLEM} "
    "Install bubblewrap (Debian: apt install bubblewrap) and run this again.",
)
LIMITS = SandboxLimits(cpu_s=1, wall_s=20)


def sandboxed(code: str, limits: SandboxLimits = LIMITS) -> PythonResult:
    result = run_python(code, limits=limits)
    assert result.level == "bwrap"
    return result


def processes(marker: str) -> list[int]:
    """Processes, zombies among them, whose command line holds the marker."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if marker.encode() in line:
                found.append(int(folder.name))
    return found


def own_children() -> set[str]:
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # a thread that ends meanwhile leaves its children
            found.update((task / "children").read_text().split())
    return found


def gone(marker: str, seconds: float = 10.0) -> bool:
    """Killed processes leave within a moment; a survivor sleeps for much longer than this."""
    end = time.monotonic() + seconds
    while processes(marker):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@needs_bwrap
def test_code_runs_and_says_how() -> None:
    result = sandboxed("import sys\nprint('안녕', 6 * 7)\nprint('careful', file=sys.stderr)")
    assert (result.stdout, result.stderr) == ("안녕 42", "careful")
    assert (result.exit_code, result.limit) == (0, None)
    assert result.text == "stdout:\n안녕 42\nstderr:\ncareful"


@needs_bwrap
def test_libraries_of_this_python_work() -> None:
    result = sandboxed(
        "import numpy as np\nprint(np.linalg.solve(np.eye(300) * 2, np.ones(300))[0])"
    )
    assert result.stdout == "0.5", result.stderr


@needs_bwrap
def test_an_exception_shows_its_line() -> None:
    result = sandboxed("x = 1\nx / 0")
    assert (result.exit_code, result.limit) == (1, None)
    assert 'File "/main.py", line 2' in result.stderr
    assert result.stderr.endswith("ZeroDivisionError: division by zero")


@needs_bwrap
def test_silence_has_words() -> None:
    assert sandboxed("x = 1").text == "Finished execution."
    assert sandboxed("import sys; sys.exit(3)").text == "[exit code 3]"


@needs_bwrap
def test_code_is_data_for_the_shell_and_stdin_is_empty() -> None:
    hostile = "$(id) `id` ; \" ' \\ \n -c --help"
    result = sandboxed(f"print({hostile!r})\nimport sys\nprint(repr(sys.stdin.read()))")
    assert result.stdout == f"{hostile}\n''"


@needs_bwrap
def test_output_that_is_no_text_is_replaced() -> None:
    assert sandboxed(r"import sys; sys.stdout.buffer.write(b'a\xff\xfeb')").stdout == "a��b"


@needs_bwrap
def test_a_lone_surrogate_is_a_syntax_error() -> None:
    assert "SyntaxError" in sandboxed("print('\ud800')").stderr


NETWORK = """\
import socket
for family, address in [
    (socket.AF_INET, ("1.1.1.1", 53)), (socket.AF_INET, ("127.0.0.1", PORT)),
    (socket.AF_INET6, ("2606:4700:4700::1111", 53)),
]:
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(3)
        try:
            s.connect(address)
            print("REACHED", address)
        except OSError as err:
            print(type(err).__name__)
try:
    print("RESOLVED", socket.getaddrinfo("example.org", 80))
except OSError as err:
    print(type(err).__name__)
"""


@needs_bwrap
def test_no_network_not_even_this_machine() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        result = sandboxed(NETWORK.replace("PORT", str(server.getsockname()[1])))
        with pytest.raises(TimeoutError):
            server.accept()
    assert result.exit_code == 0, result.stderr
    assert "REACHED" not in result.stdout
    assert "RESOLVED" not in result.stdout
    assert len(result.stdout.splitlines()) == 4


@needs_bwrap
def test_abstract_unix_sockets_of_the_host_are_out_of_reach(tmp_path: Path) -> None:
    import socket

    name = f"\0hanol-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        result = sandboxed(f"import socket\nsocket.socket(socket.AF_UNIX).connect({name!r})")
    assert "ConnectionRefusedError" in result.stderr


@needs_bwrap
@pytest.mark.parametrize("path", ["/etc/passwd", "/etc/shadow", "/etc/hostname", "/var", "/home"])
def test_files_of_the_system_do_not_exist(path: str) -> None:
    result = sandboxed(f"import os\nprint(os.path.lexists({path!r}))\nopen({path!r}).read()")
    assert result.stdout == "False"
    assert result.exit_code == 1


@needs_bwrap
def test_home_and_project_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("s3cret")
    paths = [str(tmp_path / "secret.txt"), str(Path.home() / ".ssh"), str(Path(__file__).resolve())]
    result = sandboxed(
        f"import os\nprint([os.path.lexists(p) for p in {paths!r}])\nprint(os.listdir('/tmp'))"
    )
    # A virtual environment may lie in /tmp: it alone is there.
    pythons = [Path(prefix) for prefix in (sys.prefix, sys.base_prefix)]
    there = sorted({p.parts[2] for p in pythons if p.is_relative_to("/tmp")})
    assert result.stdout == f"[False, False, False]\n{there}"


@needs_bwrap
def test_only_what_python_needs_is_mounted() -> None:
    code = "print(*[line.split()[1] for line in open('/proc/mounts')], sep='\\n')"
    mounted = set(sandboxed(code).stdout.splitlines())
    expected = {"/", "/usr", "/proc", "/dev", "/tmp", "/main.py", sys.prefix, sys.base_prefix}
    others = {
        m for m in mounted - expected if not m.startswith(("/dev/", "/proc/", "/lib", "/bin"))
    }
    assert others <= {"/sbin"}


@needs_bwrap
def test_secrets_of_the_environment_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANOL_TEST_SECRET", "s3cret-in-env")
    code = """\
import os, glob
text = repr(dict(os.environ))
for path in glob.glob('/proc/*/environ') + glob.glob('/proc/*/cmdline'):
    text += open(path, errors='replace').read()
print('s3cret' in text, sorted(os.environ))
"""
    result = sandboxed(code)
    assert result.stdout.startswith("False ")
    assert "HANOL" not in result.stdout


@needs_bwrap
def test_processes_of_the_host_are_invisible() -> None:
    code = f"""\
import os
print([p for p in os.listdir('/proc') if p.isdigit()])
for pid in ({os.getpid()}, {os.getppid()}):
    try:
        os.kill(pid, 0)
        print('SEEN')
    except OSError as err:
        print(type(err).__name__)
"""
    assert sandboxed(code).stdout == "['1', '2']\nProcessLookupError\nProcessLookupError"


@needs_bwrap
def test_no_right_is_left() -> None:
    code = """\
import os
status = dict(line.split(':\\t') for line in open('/proc/self/status').read().splitlines())
print(status['CapEff'], status['CapPrm'], status['CapAmb'], status['CapInh'], status['NoNewPrivs'])
print([fd for fd in os.listdir('/proc/self/fd')])
for attempt in (lambda: os.setuid(0), lambda: os.chroot('/tmp'), lambda: os.nice(-5)):
    try:
        attempt()
        print(os.getuid() == 0 and 'ROOT' or 'DONE')
    except OSError:
        print('REFUSED')
"""
    lines = sandboxed(code).stdout.splitlines()
    assert lines[0] == " ".join(["0" * 16] * 4 + ["1"])
    assert lines[1] == "['0', '1', '2', '3']"  # 3 is the listing itself
    assert lines[2:] == ["REFUSED"] * 3


@needs_bwrap
@pytest.mark.skipif(os.geteuid() != 0, reason="about being started by root")
def test_root_becomes_nobody_known() -> None:
    first, second = (
        sandboxed("import os; print(os.getuid(), os.getgid(), os.getgroups())") for _ in range(2)
    )
    uid, gid, groups = first.stdout.split()
    assert uid == gid
    assert int(uid) >= 1_900_000_000
    assert groups == "[]"
    assert first.stdout != second.stdout  # runs side by side do not share a process count


@needs_bwrap
def test_only_tmp_can_be_written() -> None:
    code = f"""\
for folder in ('/', '/usr', '/usr/lib', '/dev', '/dev/shm', '/proc', {sys.prefix!r}, '/tmp'):
    try:
        open(folder + '/hanol-test', 'w').write('x')
        print(folder)
    except OSError:
        pass
open('/main.py', 'a')
"""
    result = sandboxed(code)
    assert result.stdout == "/dev/shm\n/tmp"
    assert result.stderr.endswith(": '/main.py'")
    assert not Path("/tmp/hanol-test").exists()
    assert not Path(sys.prefix, "hanol-test").exists()


@needs_bwrap
def test_forty_forks_hit_the_limit() -> None:
    code = """\
import os, time
for i in range(40):
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)
    print(i, flush=True)
"""
    result = sandboxed(code)
    assert result.limit == "processes"
    assert result.exit_code == 1
    # Itself is one of the 16.
    assert result.stdout.splitlines()[-1] == "14"
    assert "[limit reached: processes]" in result.text


@needs_bwrap
def test_threads_hit_the_limit_of_processes() -> None:
    code = (
        "import threading, time\nfor i in range(40):\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    )
    assert sandboxed(code).limit == "processes"


@needs_bwrap
def test_two_gigabytes_hit_the_limit() -> None:
    result = sandboxed("block = bytearray(2 << 30)")
    assert (result.limit, result.exit_code) == ("memory", 1)
    assert sandboxed("import numpy as np; np.ones(1 << 28)").limit == "memory"


@needs_bwrap
def test_a_large_file_hits_the_limit() -> None:
    code = "with open('/tmp/x', 'wb') as f:\n    for _ in range(200): f.write(bytes(1_000_000))"
    assert sandboxed(code).limit == "file_size"


@needs_bwrap
def test_many_files_fill_the_disk_of_the_sandbox_only() -> None:
    code = """\
for i in range(10):
    with open(f'/tmp/x{i}', 'wb') as f:
        for _ in range(40): f.write(bytes(1_000_000))
"""
    assert sandboxed(code).limit == "disk"


@needs_bwrap
def test_open_files_hit_the_limit() -> None:
    assert sandboxed("files = [open('/main.py') for _ in range(100)]").limit == "open_files"


@needs_bwrap
def test_an_endless_loop_hits_the_processor_limit() -> None:
    code = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"
    result = sandboxed(code)
    assert result.limit == "cpu"
    assert result.exit_code == 137


@needs_bwrap
def test_sleeping_hits_the_wall_limit() -> None:
    result = sandboxed(
        "import time; print('up', flush=True); time.sleep(60)", SandboxLimits(wall_s=1.0)
    )
    assert (result.limit, result.stdout) == ("wall", "up")
    assert result.seconds < 30


@needs_bwrap
def test_closed_output_does_not_end_the_run() -> None:
    code = "import os, time\nos.close(1); os.close(2)\ntime.sleep(0.5)\nos._exit(7)"
    assert sandboxed(code).exit_code == 7


@needs_bwrap
def test_a_flood_is_stopped() -> None:
    result = sandboxed("while True: print('x' * 1000)")
    assert result.limit == "output"
    assert len(result.stdout) < 17_000


@needs_bwrap
def test_long_output_keeps_its_start_and_errors_their_end() -> None:
    code = (
        "import sys\nprint('first' + 'x' * 50_000)\n"
        "print('y' * 50_000, file=sys.stderr)\nraise ValueError('last')"
    )
    result = sandboxed(code)
    assert result.limit == "output"
    assert result.exit_code == 1
    assert result.stdout.startswith("firstxxx")
    assert result.stdout.endswith("[33622 bytes left out]")
    assert result.stderr.endswith("ValueError: last")
    assert max(len(result.stdout), len(result.stderr)) < 16_500


@needs_bwrap
@pytest.mark.parametrize("detach", ["", "os.setsid(); os.close(0); os.close(1); os.close(2)"])
def test_a_surviving_child_does_not_survive(detach: str) -> None:
    marker = f"hanol-survivor-{os.getpid()}-{bool(detach)}"
    code = f"""\
import os, sys
if os.fork() == 0:
    {detach or "pass"}
    os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(600)', {marker!r}])
import time; time.sleep(0.5)
print('done')
"""
    before = own_children()
    result = sandboxed(code)
    assert result.stdout == "done"
    assert result.limit is None
    assert result.seconds < 19
    assert gone(marker)
    assert own_children() <= before


@needs_bwrap
def test_cancellation_leaves_no_process() -> None:
    marker = f"hanol-cancelled-{os.getpid()}"
    code = f"""\
import subprocess, sys, time
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', {marker!r}])
time.sleep(600)
"""

    async def cancelled() -> None:
        task = asyncio.create_task(arun_python(code))
        async with asyncio.timeout(30):
            while not processes(marker):
                await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not processes(marker)

    before = own_children()
    asyncio.run(cancelled())
    assert own_children() <= before


@needs_bwrap
def test_a_killed_caller_takes_the_code_with_it() -> None:
    marker = f"hanol-orphan-{os.getpid()}"
    # The code does what it can: 1, 0 asks the kernel not to end it with its parent.
    code = f"""\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, 0)
os.kill(1, signal.SIGKILL)
os.setsid() if os.getpid() != os.getpgrp() else None
os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(600)', {marker!r}])
"""
    script = f"from hanol.tools import run_python\nrun_python({code!r})"
    caller = subprocess.Popen([sys.executable, "-c", script])
    try:
        end = time.monotonic() + 60
        while not processes(marker + "\0"):
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        caller.kill()
        caller.wait()
    assert gone(marker + "\0")


@needs_bwrap
def test_the_next_process_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    marker = f"hanol-left-{os.getpid()}"
    # Only other users' folders lie beside root's, which sandboxes cannot have elsewhere.
    place = Path("/tmp") if os.geteuid() == 0 else tmp_path
    environment = {**os.environ, "TMPDIR": str(place)}

    def start(code: str) -> subprocess.Popen[str]:
        script = f"from hanol.tools import run_python\nprint(run_python({code!r}).stdout)"
        command = [sys.executable, "-c", script]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    def left() -> list[Path]:
        found = []
        for script in place.glob("*hanol-sandbox-*/main.py"):
            with suppress(OSError):  # another test's, gone by now
                found += [script.parent] if marker in script.read_text() else []
        return found

    sleeps = f"import time  # {marker}\ntime.sleep(600)"
    callers = [start(sleeps), start(sleeps)]
    try:
        end = time.monotonic() + 60
        while len(left()) < 2:
            assert time.monotonic() < end
            time.sleep(0.05)
        callers[0].kill()
        callers[0].wait()
        assert len(left()) == 2
        assert start("print(6 * 7)").communicate(timeout=60)[0] == "42\n"
        assert len(left()) == 1  # of the one that lives
    finally:
        for caller in callers:
            caller.kill()
            caller.communicate()
        for folder in left():
            shutil.rmtree(folder)


@needs_bwrap
def test_a_temporary_folder_of_ones_own_is_no_hindrance(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "closed"))
    assert sandboxed("print(1)").stdout == "1"
    assert sandbox_problem.__wrapped__() is None


@needs_bwrap
def test_many_at_once_do_not_meet() -> None:
    async def many() -> list[PythonResult]:
        code = "open('/tmp/mine', 'x').write('{0}')\nprint(open('/tmp/mine').read())"
        return list(await asyncio.gather(*(arun_python(code.format(i)) for i in range(8))))

    assert [result.stdout for result in asyncio.run(many())] == [str(i) for i in range(8)]


def test_no_code_runs_when_nothing_isolates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_sandbox, "sandbox_problem", lambda: "the program 'bwrap' is missing.")
    witness = tmp_path / "ran"
    with pytest.raises(SandboxError, match="apt install bubblewrap.*--unsafe-python"):
        run_python(f"open({str(witness)!r}, 'w')")
    assert not witness.exists()
    result = run_python(f"open({str(witness)!r}, 'w')", unsafe=True)
    assert result.level == "plain"
    assert witness.exists()


def test_the_sandbox_is_preferred_to_none(monkeypatch: pytest.MonkeyPatch) -> None:
    if PROBLEM is None:
        assert run_python("", unsafe=True).level == "bwrap"
    monkeypatch.setenv("PATH", "/nonexistent")
    problem = sandbox_problem.__wrapped__()
    assert problem == "the program 'bwrap' is missing."


def test_a_sandbox_that_does_not_work_is_no_sandbox(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("bwrap", "prlimit", "timeout", "setpriv", "unshare", "mount"):
        (tmp_path / name).write_text(
            "#!/bin/sh\necho 'No permissions to create a namespace' >&2\nexit 1\n"
        )
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    problem = sandbox_problem.__wrapped__()
    assert problem == "bwrap is installed but does not work (No permissions to create a namespace)."


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sandbox, "sandbox_problem", lambda: "for the test.")


@pytest.mark.usefixtures("plain")
@pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs util-linux")
def test_limits_hold_without_isolation_too() -> None:
    def limit(code: str) -> str | None:
        return run_python(code, limits=SandboxLimits(cpu_s=1, wall_s=20), unsafe=True).limit

    assert limit("block = bytearray(2 << 30)") == "memory"
    assert limit("while True: pass") == "cpu"
    assert limit("while True: print('x' * 1000)") == "output"
    assert limit("open('x', 'wb').write(bytes(60_000_000))") == "file_size"


@pytest.mark.usefixtures("plain")
def test_children_end_with_plain_code(monkeypatch: pytest.MonkeyPatch) -> None:
    marker = f"hanol-plain-{os.getpid()}"
    monkeypatch.setenv("HANOL_TEST_SECRET", "s3cret-in-env")
    code = f"""\
import os, subprocess, sys, time
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', {marker!r}])
print('HANOL_TEST_SECRET' in os.environ, flush=True)
time.sleep(600)
"""
    result = run_python(code, limits=SandboxLimits(wall_s=2.0), unsafe=True)
    assert (result.stdout, result.limit) == ("False", "wall")
    assert gone(marker)
