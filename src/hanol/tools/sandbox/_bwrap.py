"""The command line that isolates a Python process by bubblewrap, and whether that works here."""

import fcntl
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hanol.tools.sandbox._memory import group_folder
from hanol.tools.sandbox._seccomp import seccomp_file, seccomp_program

# Unused on Linux systems (systemd's user-id table ends below), so no host process has one of them.
_FIRST_UID, _NUM_UIDS = 1_900_000_000, 100_000_000
_PREFIX = "hanol-sandbox-"
# Mounts the given number of (source, target) pairs, then becomes the command that follows them.
_MOUNT = (
    'n=$1; shift; while [ "$n" -gt 0 ]; do mount --bind "$1" "$2" || exit 1; '
    'shift 2; n=$((n - 1)); done; exec "$@"'
)


@dataclass(frozen=True)
class SandboxLimits:
    """Resource limits of one execution.

    Args:
        memory_bytes: Address space of each process; use of all with /tmp and /dev/shm ("bwrap").
        cpu_s: Processor seconds of each process.
        file_bytes: Size of one file.
        disk_bytes: All files in /tmp together, and in /dev/shm ("bwrap" only).
        open_files: Open files of each process.
        processes: Processes and threads at once ("bwrap" only: elsewhere the system counts all
            processes of the user).
        wall_s: Seconds until everything is killed.
        output_bytes: What is kept of stdout (its beginning) and of stderr (its end).
    """

    memory_bytes: int = 1 << 30
    cpu_s: int = 10
    file_bytes: int = 50_000_000
    disk_bytes: int = 100_000_000
    open_files: int = 64
    processes: int = 16
    wall_s: float = 50.0
    output_bytes: int = 16 * 1024


@cache
def sandbox_problem() -> str | None:
    """Why code cannot be isolated on this machine; None when it can. Tried once per process."""
    needed = ["bwrap", "prlimit", "timeout", *["setpriv", "unshare", "mount"] * _is_real_root()]
    if missing := [name for name in needed if shutil.which(name) is None]:
        return f"the program {missing[0]!r} is missing."
    if seccomp_program(platform.machine()) is None:
        return f"the filter of system calls was not written for {platform.machine()!r}."
    with run_folder() as folder, seccomp_file() as seccomp:
        (Path(folder) / "main.py").touch()
        command = bwrap_command(SandboxLimits(), folder, ["-c", ""], seccomp)
        options: Any = {"env": environment(folder), "pass_fds": [seccomp], "timeout": 20}
        try:
            done = subprocess.run(command, capture_output=True, check=False, **options)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired) as err:
            return f"bwrap could not be run ({err})."
    if done.returncode:
        cause = " ".join(done.stderr.decode("utf-8", "replace").split())
        return f"bwrap is installed but does not work ({cause or done.returncode})."
    return None


@contextmanager
def run_folder() -> Iterator[str]:
    """A new folder for the script, removed at the end; after a kill, by the next process."""
    # Root runs the code as somebody else, who may not reach root's own temporary folder.
    where = Path("/tmp" if _is_real_root() else tempfile.gettempdir())  # noqa: S108
    _remove_left(where)
    made = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=where))
    try:
        with _locked(made):
            made = made.rename(where / made.name[1:])  # never without the lock under this name
            yield str(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


@cache
def _remove_left(where: Path) -> None:
    """Remove folders and cgroups of processes that were killed: nobody holds or is in them."""
    for folder in where.glob(f"{_PREFIX}*"):
        with suppress(OSError), _locked(folder):  # it is somebody else's, or in use
            shutil.rmtree(folder)
    with suppress(OSError):
        for group in group_folder(_PREFIX).parent.glob(f"{_PREFIX}*"):
            with suppress(OSError):  # it holds processes
                group.rmdir()


def environment(folder: str) -> dict[str, str]:
    """What bwrap, or a plain subprocess, sees: no secrets, and no settings of the user."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": folder, "LANG": "C.UTF-8"}


def _is_real_root() -> bool:
    """Root of the machine, not of a user namespace, whose ids it could not change."""
    with suppress(OSError):
        ids = Path("/proc/self/uid_map").read_text("ascii").split()
        return os.geteuid() == 0 and ids == ["0", "0", "4294967295"]
    return False


def bwrap_command(limits: SandboxLimits, folder: str, args: list[str], seccomp: int) -> list[str]:
    """Command that runs Python with `args` on the folder's script under a `seccomp_file`."""
    pythons = dict.fromkeys((sys.base_prefix, sys.prefix))
    prefixes = [prefix for prefix in pythons if not Path(prefix).is_relative_to("/usr")]
    root = _is_real_root()
    outside, binds = _as_nobody(folder, prefixes) if root else ([], {p: p for p in prefixes})
    return [
        *outside,
        *("bwrap", "--unshare-all", "--cap-drop", "ALL", "--clearenv", "--new-session"),
        # Process 1 is `timeout`: when it ends, the kernel ends every process of the namespace, and
        # bwrap waits for that. bwrap's own process 1 would be left for the machine to collect.
        *("--die-with-parent", "--as-pid-1", "--seccomp", str(seccomp)),
        *_mounts(limits, folder, binds),
        "--",
        # Our own watch is the earlier one; this is for the case that we are killed.
        *("timeout", "-s", "KILL", str(limits.wall_s + 5)),
        *prlimit(limits),
        # Inside the namespace only the processes of this run are counted; `timeout` is one.
        f"--nproc={limits.processes + 1}",
        *(sys.executable, "-I", "-B", *args),
    ]


def _as_nobody(folder: str, prefixes: list[str]) -> tuple[list[str], dict[str, str]]:
    """What root runs before bwrap, and where bwrap then finds each prefix.

    RLIMIT_NPROC does not hold for root, so root becomes a user that exists nowhere else. This
    Python may lie where only root can go: it is mounted into the run's folder before that, in a
    mount namespace of its own.
    """
    uid = _FIRST_UID + random.randrange(_NUM_UIDS)  # noqa: S311
    os.chown(folder, uid, uid)
    os.chown(Path(folder) / "main.py", uid, uid)
    binds = {prefix: f"{folder}/python-{i}" for i, prefix in enumerate(prefixes)}
    for target in binds.values():
        Path(target).mkdir()
    pairs = [path for pair in binds.items() for path in pair]
    mount = ["unshare", "--mount", "sh", "-c", _MOUNT, "sh", str(len(prefixes)), *pairs]
    drop = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
    return [*mount, *drop, "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"], binds


def _mounts(limits: SandboxLimits, run: str, binds: dict[str, str]) -> list[str]:
    """What the code sees of the file system, and its environment."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(name):
            arguments += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            arguments += ["--ro-bind", name, name]
    # No terminals. /dev/full reads like /dev/zero, of which shared memory could be made.
    arguments += ["--proc", "/proc", "--tmpfs", "/dev"]
    for name in ("null", "full", "urandom"):
        arguments += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    for link in ("full zero", "urandom random", "/proc/self/fd fd", "fd/0 stdin", "fd/1 stdout"):
        arguments += ["--symlink", *link.replace(" ", " /dev/").split()]
    # /proc/keys names those of the user.
    arguments += ["--dev-bind", "/dev/null", "/proc/keys"] if os.path.exists("/proc/keys") else []
    for folder in ("/tmp", "/dev/shm"):  # noqa: S108
        arguments += ["--size", str(limits.disk_bytes), "--tmpfs", folder]
    # Later than /tmp: a virtual environment may lie there.
    for prefix, source in binds.items():
        arguments += ["--ro-bind", source, prefix]
    arguments += ["--ro-bind", f"{run}/main.py", "/main.py"]
    # What is left writable would be memory that nothing counts.
    arguments += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]  # noqa: S108
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    # BLAS starts a thread for every core, each with address space of its own.
    environment = {"PATH": path, "HOME": "/tmp", "LANG": "C.UTF-8", "MPLBACKEND": "Agg"}  # noqa: S108
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return arguments + [word for pair in environment.items() for word in ("--setenv", *pair)]


def prlimit(limits: SandboxLimits) -> list[str]:
    """Command that limits what it starts; nothing where util-linux is missing ("plain" only)."""
    if shutil.which("prlimit") is None:
        return []
    return [
        "prlimit",
        f"--as={limits.memory_bytes}",
        # The kernel asks at the first limit and kills at the second.
        f"--cpu={limits.cpu_s}:{limits.cpu_s + 1}",
        f"--fsize={limits.file_bytes}",
        f"--nofile={limits.open_files}",
        "--core=0",
    ]
