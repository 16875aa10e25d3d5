"""How much memory a sandbox uses as a whole: other limits of the kernel hold for each process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_JOIN = '{ echo 0 > "$0"; } 2> /dev/null; exec "$@"'  # into the group $0, as the command $@
_INODE = 1024  # what the kernel keeps for a file in memory besides its content


def group_folder(name: str) -> Path:
    """Where a cgroup (v2) of this name is beside that of this process."""
    rows = Path("/proc/self/cgroup").read_text("ascii").splitlines()
    own = next((row[3:] for row in rows if row.startswith("0::")), "/")
    return Path("/sys/fs/cgroup" + own.rpartition("/")[0], name)


@contextmanager
def memory_group(name: str, limit: int) -> Iterator[list[str]]:
    """The beginning of a command that joins a cgroup of at most `limit` bytes.

    Nothing where this process may make none, as in most containers: `memory_used` is enough.
    """
    group, command = group_folder(name), []
    try:
        with suppress(OSError):
            if "memory" in (group.parent / "cgroup.subtree_control").read_text("ascii").split():
                group.mkdir()
                for file, text in (("max", str(limit)), ("swap.max", "0"), ("oom.group", "1")):
                    (group / f"memory.{file}").write_text(text)
                command = ["sh", "-c", _JOIN, f"{group}/cgroup.procs"]
        yield command
    finally:
        with suppress(OSError):
            group.rmdir()


def memory_used(first: int) -> int:
    """Bytes that a sandbox, with this process 1, uses: processes, files in memory, connections."""
    root = f"/proc/{first}/root"
    with suppress(OSError):  # it is being set up, or has ended
        # At first the root is still the host's, and so would be the processes.
        if not os.path.samefile(root, "/"):
            states = [os.statvfs(f"{root}/{folder}") for folder in ("tmp", "dev/shm")]
            used = sum((s.f_blocks - s.f_bfree) * s.f_frsize for s in states)
            used += sum((s.f_files - s.f_ffree) * _INODE for s in states)
            processes = [file for file in Path(root, "proc").iterdir() if file.name.isdigit()]
            return used + _queued(f"/proc/{first}/net") + sum(map(_resident, processes))
    return 0


def _queued(net: str) -> int:
    """What waits in TCP connections, whose buffers grow to tens of megabytes."""
    if Path(net, "sockstat").read_text("ascii").startswith("sockets: used 0\n"):
        return 0
    files = [file for name in ("tcp", "tcp6") if (file := Path(net, name)).exists()]
    rows = [row.split()[4] for file in files for row in file.read_text("ascii").splitlines()[1:]]
    return sum(int(size, 16) for queues in rows for size in queues.split(":"))


def _resident(process: Path) -> int:
    """Its part of what is in memory or swapped: a page of n processes counts 1/n for each."""
    with suppress(OSError):
        rows = [line.split() for line in (process / "smaps_rollup").read_text("ascii").splitlines()]
        return sum(int(row[1]) * 1024 for row in rows if row[0] in ("Pss:", "SwapPss:"))
    return 0
