"""The command line that isolates a Python process by bubblewrap, and whether that works here."""

import os
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Unused on Linux systems (systemd's user-id table ends below), so no host process has one of them.
_FIRST_UID, _NUM_UIDS = 1_900_000_000, 100_000_000
# Mounts the given number of (source, target) pairs, then becomes the command that follows them.
_MOUNT = (
    'n=$1; shift; while [ "$n" -gt 0 ]; do mount --bind "$1" "$2" || exit 1; '
    'shift 2; n=$((n - 1)); done; exec "$@"'
)


@dataclass(frozen=True)
class SandboxLimits:
    """Resource limits of one execution.

    Args:
        memory_bytes: Address space of each process.
        cpu_s: Processor seconds of each process.
        file_bytes: Size of one file.
        disk_bytes: All files in /tmp together ("bwrap" only).
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
    root_only = ["setpriv", "unshare", "mount"] if _is_real_root() else []
    needed = ["bwrap", "prlimit", "timeout", *root_only]
    if missing := [name for name in needed if shutil.which(name) is None]:
        return f"the program {missing[0]!r} is missing."
    with run_folder() as folder:
        (Path(folder) / "main.py").touch()
        command = bwrap_command(SandboxLimits(), folder, ["-c", ""])
        try:
            done = subprocess.run(  # noqa: S603
                command, capture_output=True, timeout=20, env=environment(folder), check=False
            )
        except (OSError, subprocess.TimeoutExpired) as err:
            return f"bwrap could not be run ({err})."
    if done.returncode:
        cause = " ".join(done.stderr.decode("utf-8", "replace").split())
        return f"bwrap is installed but does not work ({cause or done.returncode})."
    return None


def run_folder() -> tempfile.TemporaryDirectory[str]:
    """A new folder for the script, removed at the end."""
    # Root runs the code as somebody else, who may not reach root's own temporary folder.
    where = "/tmp" if _is_real_root() else None  # noqa: S108
    return tempfile.TemporaryDirectory(prefix="hanol-python-", dir=where)


def environment(folder: str) -> dict[str, str]:
    """What bwrap, or a plain subprocess, sees: no secrets, and no settings of the user."""
    return {"PATH": os.environ.get("PATH", os.defpath), "HOME": folder, "LANG": "C.UTF-8"}


def _is_real_root() -> bool:
    """Root of the machine, not of a user namespace, whose ids it could not change."""
    if os.geteuid() != 0:
        return False
    try:
        return Path("/proc/self/uid_map").read_text("ascii").split() == ["0", "0", "4294967295"]
    except OSError:
        return False


def bwrap_command(limits: SandboxLimits, folder: str, arguments: list[str]) -> list[str]:
    """The program and all its arguments, to run Python with `arguments` on the folder's script."""
    prefixes = [
        prefix
        for prefix in dict.fromkeys((sys.base_prefix, sys.prefix))
        if not Path(prefix).is_relative_to("/usr")
    ]
    binds = {prefix: prefix for prefix in prefixes}
    outside: list[str] = []
    if _is_real_root():
        outside, binds = _as_nobody(folder, prefixes)
    return [
        *outside,
        *("bwrap", "--unshare-all", "--cap-drop", "ALL", "--clearenv", "--new-session"),
        *_no_more_namespaces(),
        # Process 1 is `timeout`: when it ends, the kernel ends every process of the namespace, and
        # bwrap waits for that. bwrap's own process 1 would be left for the machine to collect.
        *("--die-with-parent", "--as-pid-1"),
        *_mounts(limits, folder, binds),
        "--",
        # Our own watch is the earlier one; this is for the case that we are killed.
        *("timeout", "-s", "KILL", str(limits.wall_s + 5)),
        *prlimit(limits),
        # Inside the namespace only the processes of this run are counted; `timeout` is one.
        f"--nproc={limits.processes + 1}",
        *(sys.executable, "-I", "-B", *arguments),
    ]


@cache
def _no_more_namespaces() -> tuple[str, ...]:
    """Keeps the code from user namespaces of its own, where it could mount; from bwrap 0.8 on."""
    done = subprocess.run(["bwrap", "--help"], capture_output=True, check=False)  # noqa: S607
    return ("--unshare-user", "--disable-userns") if b"--disable-userns" in done.stdout else ()


def _as_nobody(folder: str, prefixes: list[str]) -> tuple[list[str], dict[str, str]]:
    """What root runs before bwrap, and where bwrap then finds each prefix.

    RLIMIT_NPROC does not hold for root, so root becomes a user that exists nowhere else. This
    Python may lie where only root can go: it is mounted into the run's folder before that, in a
    mount namespace of its own.
    """
    uid = _FIRST_UID + random.randrange(_NUM_UIDS)  # noqa: S311
    os.chown(folder, uid, uid)
    os.chown(Path(folder) / "main.py", uid, uid)
    binds, pairs = {}, []
    for i, prefix in enumerate(prefixes):
        binds[prefix] = str(Path(folder) / f"python-{i}")
        Path(binds[prefix]).mkdir()
        pairs += [prefix, binds[prefix]]
    mount = ["unshare", "--mount", "sh", "-c", _MOUNT, "sh", str(len(prefixes)), *pairs]
    drop = ["setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
    return [*mount, *drop, "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"], binds


def _mounts(limits: SandboxLimits, folder: str, binds: dict[str, str]) -> list[str]:
    """What the code sees of the file system, and its environment."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64"):
        if os.path.islink(name):
            arguments += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            arguments += ["--ro-bind", name, name]
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    arguments += ["--size", str(limits.disk_bytes), "--tmpfs", "/tmp"]  # noqa: S108
    # Later than /tmp: a virtual environment may lie there.
    for prefix, source in binds.items():
        arguments += ["--ro-bind", source, prefix]
    arguments += ["--ro-bind", f"{folder}/main.py", "/main.py"]
    # What is left writable would be memory that nothing counts.
    arguments += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]  # noqa: S108
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    # BLAS starts a thread for every core, each with address space of its own.
    environment = {"PATH": path, "HOME": "/tmp", "LANG": "C.UTF-8", "MPLBACKEND": "Agg"}  # noqa: S108
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    for name, value in environment.items():
        arguments += ["--setenv", name, value]
    return arguments


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
