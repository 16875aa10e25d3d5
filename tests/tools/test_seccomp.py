"""Ways out of the sandbox through the kernel, each tried for real, and programs that must work."""

import errno
import os
import platform
import re
import struct
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from hanol.tools import PythonResult, SandboxLimits, run_python, sandbox_problem
from hanol.tools.sandbox import _sandbox  # private: where programs are looked for
from hanol.tools.sandbox._seccomp import seccomp_program  # private: the filter itself

PROBLEM = sandbox_problem()
needs_bwrap = pytest.mark.skipif(
    PROBLEM is not None, reason=f"WARNING: THE SANDBOX WAS NOT TESTED. {PROBLEM}"
)
needs_x86_64 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="numbers of calls on x86_64; see the test of the program"
)
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
REFUSED = """
    keyctl add_key request_key io_uring_setup io_uring_enter io_uring_register ptrace
    process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp perf_event_open userfaultfd
    shmget shmat shmctl msgget msgsnd semget memfd_create memfd_secret bpf kexec_load
    kexec_file_load init_module finit_module mount umount2 pivot_root chroot open_tree move_mount
    fsopen fsconfig fsmount fspick mount_setattr unshare setns clone3 open_by_handle_at reboot
    swapon syslog acct quotactl
"""
ALLOWED = """
    read write openat close mmap munmap mprotect brk futex clone execve wait4 exit_group kill
    prlimit64 getrandom rt_sigaction connect statx ftruncate pipe2 dup3 epoll_pwait setsockopt
    sched_setaffinity set_robust_list rseq prctl seccomp pidfd_open faccessat2
"""


def decision(machine: str, call: int, *arguments: int, architecture: int | None = None) -> int:
    """What the filter answers to a call: 0 if it may go on, else the error."""
    program = seccomp_program(machine)
    assert program is not None
    steps = list(struct.iter_unpack("=HBBI", program))
    data = struct.pack("<iIQ", call, MACHINES[machine] if architecture is None else architecture, 0)
    data += struct.pack("<6Q", *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
    at, value = 0, 0
    while True:
        code, if_true, if_false, constant = steps[at]
        at += 1
        if code == 0x06:
            assert constant >> 16 in (0x7FFF, 0x0005)
            return 0 if constant >> 16 == 0x7FFF else constant & 0xFFFF
        if code == 0x20:
            value = struct.unpack_from("<I", data, constant)[0]
        elif code == 0x54:
            value &= constant
        else:
            holds = {0x15: value == constant, 0x25: value > constant, 0x45: value & constant != 0}
            at += if_true if holds[code] else if_false


@pytest.mark.parametrize("machine", MACHINES)
def test_the_program_knows_the_numbers_of_each_processor(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip(f"no kernel headers for {machine}: apt install linux-libc-dev")
    pattern = r"#define __NR(?:3264)?_(\w+)\s+(\d+)"
    calls = {name: int(n) for name, n in re.findall(pattern, HEADERS[machine].read_text())}
    assert {decision(machine, calls[name]) for name in REFUSED.split()} == {errno.ENOSYS}
    assert {decision(machine, calls[name]) for name in ALLOWED.split()} == {0}
    # Another architecture, the x32 ABI, and what future kernels bring.
    assert decision(machine, calls["read"], architecture=0x40000003) == errno.ENOSYS
    assert decision(machine, 0x40000000) == errno.ENOSYS
    assert decision(machine, 463) == errno.ENOSYS
    families = {family: decision(machine, calls["socket"], family) for family in range(46)}
    assert [family for family, error in families.items() if error == 0] == [1, 2, 10]
    assert families[40] == errno.EAFNOSUPPORT
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert decision(machine, calls["clone"], flag | 17) == errno.EPERM
    assert decision(machine, calls["clone"], 0x3D0F00) == 0  # a thread
    shared_anonymous, private, shared_file = 0x21, 0x22, 0x01
    flags = (shared_anonymous, private, shared_file)
    assert [decision(machine, calls["mmap"], 0, 4096, 3, f) for f in flags] == [errno.EPERM, 0, 0]


def test_a_processor_without_a_filter_has_no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seccomp_program("riscv64") is None
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    if PROBLEM is None:
        assert "'riscv64'" in str(sandbox_problem.__wrapped__())


def sandboxed(code: str, **limits: float) -> PythonResult:
    result = run_python(textwrap.dedent(code), limits=SandboxLimits(wall_s=30, **limits))
    assert result.level == "bwrap"
    return result


@needs_bwrap
@needs_x86_64
def test_refused_calls_fail_inside() -> None:
    result = sandboxed("""\
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        calls = dict(keyctl=250, add_key=248, request_key=249, io_uring_setup=425, ptrace=101,
                     process_vm_readv=310, shmget=29, msgget=68, semget=64, memfd_create=319,
                     memfd_secret=447, userfaultfd=323, bpf=321, perf_event_open=298,
                     kexec_load=246, mount=165, unshare=272, setns=308, clone3=435,
                     x32_read=0x40000000)
        for name, number in calls.items():
            assert libc.syscall(number, 0, 0, 0, 0, 0) == -1 and ctypes.get_errno() == 38, name
        assert libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0) == -1 and ctypes.get_errno() == 1
        print("all refused")
    """)
    assert result.stdout == "all refused", result.stderr


@needs_bwrap
@needs_x86_64
def test_calls_of_32_bit_programs_are_refused() -> None:
    # int 0x80 with number 20, getpid; a kernel without such calls ends the program.
    result = sandboxed("""\
        import ctypes, mmap
        code = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE, prot=7)
        code.write(bytes.fromhex("b814000000cd80c3"))
        address = ctypes.addressof(ctypes.c_char.from_buffer(code))
        print(ctypes.CFUNCTYPE(ctypes.c_int)(address)())
    """)
    assert result.stdout == "-38" or result.exit_code == 139


@needs_bwrap
def test_families_of_sockets_that_leave_the_network_namespace_are_refused() -> None:
    # VSOCK, NETLINK, ALG, PACKET, BLUETOOTH, TIPC
    result = sandboxed("""\
        import socket
        for family in (40, 16, 38, 17, 31, 30):
            for make in (socket.socket, socket.socketpair):
                try:
                    make(family, socket.SOCK_STREAM)
                    print("MADE", family)
                except OSError as err:
                    assert err.errno == 97, err
        for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6):
            socket.socket(family).close()
    """)
    assert (result.exit_code, result.stdout) == (0, ""), result.stderr


# Calls keyctl(JOIN_SESSION_KEYRING, a name), add_key and keyctl(READ) with this machine's numbers.
KEYS = {"x86_64": (250, 248), "aarch64": (219, 217)}.get(platform.machine(), (0, 0))
OWNER = f"""\
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
joined = libc.syscall({KEYS[0]}, 1, b"hanol-test")
key = libc.syscall({KEYS[1]}, b"user", b"hanol:token", b"HOST-SECRET", 11, -3)
"""
READER = f"""\
import ctypes
libc = ctypes.CDLL(None)
text = ctypes.create_string_buffer(100)
found = [libc.syscall({KEYS[0]}, 10, ring, b"user", b"hanol:token", 0) for ring in (-3, -4, -5)]
read = [libc.syscall({KEYS[0]}, 11, key, text, 100) for key in [*found, KEY]]
print(found, read, b"SECRET" in text.raw, open("/proc/keys").read() == "")
"""


@pytest.mark.parametrize("level", [pytest.param("bwrap", marks=needs_bwrap), "plain"])
def test_keys_of_the_session_are_out_of_reach(level: str) -> None:
    # In a process of its own, as a keyring is joined for good.
    script = f"""{OWNER}
if key < 0:
    raise SystemExit(77)
from hanol.tools import run_python, sandbox_problem
from hanol.tools.sandbox import _sandbox
if {level!r} == "plain":
    _sandbox.sandbox_problem = lambda: "none"
result = run_python({READER!r}.replace("KEY", str(key)), unsafe=True)
print(result.level, result.stdout, result.stderr)
print("mine", libc.syscall({KEYS[0]}, 10, -3, b"user", b"hanol:token", 0) == key)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("this kernel gives no keyring")
    assert done.returncode == 0, done.stderr
    # The names of a user's own keys are no secret to his processes outside of the sandbox.
    nothing = f"{level} [-1, -1, -1] [-1, -1, -1, -1] False {level == 'bwrap'} "
    assert done.stdout.split("\n")[:2] == [nothing, "mine True"]


MEMORY = {
    "processes": """\
        import os, time
        for i in range(5):
            if os.fork() == 0:
                break
        block = bytearray(100_000_000)
        time.sleep(20)""",
    "processes that hand it on": """\
        import os, time
        if os.fork() == 0:
            block = bytearray(180_000_000)
            while True:
                try:
                    if os.fork():
                        os._exit(0)
                except BlockingIOError:  # those that have ended count until they are reaped
                    time.sleep(0.001)
        block = bytearray(180_000_000)
        time.sleep(20)""",
    "a process that hides": """\
        import ctypes, os, time
        os.fork(), os.fork()
        ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE
        block = bytearray(100_000_000)
        time.sleep(20)""",
    "files of /tmp and /dev/shm": """\
        import time
        for folder in ("/tmp", "/dev/shm"):
            for i in range(3):
                open(f"{folder}/{i}", "wb").write(bytes(45_000_000))
        time.sleep(20)""",
    "connections": """\
        import os, socket, time
        for i in range(4):
            if os.fork() == 0:
                break
        server, ends = socket.create_server(("127.0.0.1", 0)), []
        for i in range(25):
            ends += [socket.create_connection(server.getsockname()), server.accept()[0]]
        for end in ends:
            end.setblocking(False)
        while True:
            for end in ends:
                try:
                    end.send(bytes(100_000))
                except BlockingIOError:
                    time.sleep(0.001)""",
}


@needs_bwrap
@pytest.mark.parametrize("kind", MEMORY)
def test_memory_is_bounded_as_a_whole(kind: str) -> None:
    limit = 260_000_000
    result = sandboxed(MEMORY[kind], memory_bytes=limit, disk_bytes=200_000_000)
    assert (result.limit, result.exit_code) == ("memory", 137), result.stderr
    assert result.seconds < 20


@needs_bwrap
@pytest.mark.parametrize(
    ("attempt", "error"),
    [
        ("os.memfd_create('x')", "[Errno 38]"),
        ("mmap.mmap(-1, 1 << 20)", "[Errno 1]"),
        ("mmap.mmap(os.open('/dev/zero', os.O_RDWR), 1 << 20)", "[Errno 19]"),
    ],
)
def test_memory_that_nothing_counts_is_refused(attempt: str, error: str) -> None:
    assert error in sandboxed(f"import mmap, os\n{attempt}").stderr


@needs_bwrap
def test_buffers_of_sockets_stay_small() -> None:
    result = sandboxed("""\
        import socket
        a, b = socket.socketpair()
        a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 30)  # passed over, no error
        a.setblocking(False)
        sent = 0
        try:
            while True:
                sent += a.send(bytes(10_000))
        except BlockingIOError:
            print(sent)
    """)
    assert 0 < int(result.stdout) <= 300_000


@needs_bwrap
def test_memory_that_processes_share_counts_once() -> None:
    result = sandboxed(
        """\
        import os, time
        block = bytearray(150_000_000)
        for i in range(4):
            if os.fork() == 0:
                time.sleep(1)
                os._exit(0)
        for i in range(4):
            os.wait()
        print("done")
        """,
        memory_bytes=300_000_000,
    )
    assert (result.stdout, result.limit) == ("done", None)


WORK = {
    "processes": """\
        import multiprocessing, concurrent.futures
        def square(x): return x * x
        if __name__ == "__main__":
            for method in ("fork", "spawn", "forkserver"):
                with multiprocessing.get_context(method).Pool(2) as pool:
                    assert pool.map(square, range(4)) == [0, 1, 4, 9]
            with concurrent.futures.ProcessPoolExecutor(2) as pool:
                assert list(pool.map(square, range(4))) == [0, 1, 4, 9]""",
    "shared memory": """\
        from multiprocessing import Array, Process, shared_memory
        def fill(name): other = shared_memory.SharedMemory(name); other.buf[:5] = b"hello"
        block = shared_memory.SharedMemory(create=True, size=1 << 20)
        process = Process(target=fill, args=(block.name,)); process.start(); process.join()
        assert bytes(block.buf[:5]) == b"hello" and Array("i", [1, 2])[:] == [1, 2]
        block.unlink()""",
    "threads": """\
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(abs, range(-100, 0))) == 5050""",
    "programs": """\
        import asyncio, os, subprocess, sys
        assert subprocess.run("echo a | tr a b", shell=True, capture_output=True).stdout == b"b\\n"
        assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True).stdout
        async def main():
            ps = await asyncio.create_subprocess_exec("true")
            assert await ps.wait() == 0
        asyncio.run(main())
        assert os.posix_spawn("/bin/true", ["true"], {})""",
    "files": """\
        import mmap, pathlib, sqlite3, tempfile
        sqlite3.connect("/tmp/a.db").execute("create table t (x)")
        with tempfile.TemporaryFile() as file:
            file.write(bytes(10_000)); file.flush()
            mmap.mmap(file.fileno(), 10_000)[:5] = b"hello"
        assert open("/dev/zero", "rb").read(3) == bytes(3) and pathlib.Path("/dev/urandom").exists()
        """,
    "a server": """\
        import http.server, threading, urllib.request
        server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert urllib.request.urlopen("http://127.0.0.1:%d/" % server.server_port).status == 200""",
    "numbers": """\
        import decimal, fractions, random, statistics, zoneinfo
        import numpy as np
        a = np.random.default_rng(0).normal(size=(500, 500))
        assert np.allclose(np.linalg.inv(a) @ a, np.eye(500)) and np.fft.fft(a).shape == a.shape""",
}


@needs_bwrap
@pytest.mark.parametrize("kind", WORK)
def test_programs_that_do_no_harm_work(kind: str) -> None:
    if kind == "numbers" and not list(Path(sys.prefix).glob("lib/*/site-packages/numpy")):
        pytest.skip("numpy is not in this environment")
    result = sandboxed(WORK[kind])
    assert (result.exit_code, result.limit) == (0, None), result.stderr


@needs_bwrap
def test_runs_from_threads_that_end_and_after_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    # bwrap dies with the thread that started it, which is none of the caller's.
    results: list[PythonResult] = []
    code = "import time; time.sleep(0.3); print(1)"
    thread = threading.Thread(target=lambda: results.append(run_python(code)))
    thread.start()
    thread.join()
    assert results[0].stdout == "1"
    if (child := os.fork()) == 0:
        os._exit(0 if run_python("print(2)").stdout == "2" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert _sandbox._own_loop(os.getpid()).is_running()
