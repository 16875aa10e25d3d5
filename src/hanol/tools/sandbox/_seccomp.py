"""The system calls that sandboxed code is refused, as a filter that bubblewrap loads (seccomp).

A list of what is refused, so that every library that computes works; calls newer than the list are
refused, too. Made here, as pyseccomp (2021) needs a library of the system.
"""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # AUDIT_ARCH_*, column below
_NEWEST = 462  # the newest call that was looked at (mseal); those of the x32 ABI are larger, too
# Name, number on x86_64, number on aarch64 (999: it has no such call).
_REFUSED = (
    # Keys of the kernel (tickets and tokens of whoever started hanol), and other processes.
    "add_key 248 217, request_key 249 218, keyctl 250 219, ptrace 101 117",
    "process_vm_readv 310 270, process_vm_writev 311 271, process_madvise 440 440, kcmp 312 272",
    "pidfd_getfd 438 438, perf_event_open 298 241, userfaultfd 323 282",
    # Memory that no process is charged for (/dev/shm is there instead), calls by way of a queue.
    "shmget 29 194, shmat 30 196, shmctl 31 195, shmdt 67 197, msgget 68 186, msgsnd 69 189",
    "msgrcv 70 188, msgctl 71 187, semget 64 190, semop 65 193, semctl 66 191, semtimedop 220 192",
    "memfd_create 319 279, memfd_secret 447 447, io_setup 206 0, io_uring_setup 425 425",
    "io_uring_enter 426 426, io_uring_register 427 427",
    # Namespaces, file systems. For `clone3` the C library takes `clone`, whose flags can be seen.
    "unshare 272 97, setns 308 268, clone3 435 435, mount 165 40, umount2 166 39",
    "pivot_root 155 41, chroot 161 51, open_tree 428 428, move_mount 429 429, fsopen 430 430",
    "fsconfig 431 431, fsmount 432 432, fspick 433 433, mount_setattr 442 442, statmount 457 457",
    "listmount 458 458, swapon 167 224, swapoff 168 225, name_to_handle_at 303 264",
    "open_by_handle_at 304 265, fanotify_init 300 262",
    "bpf 321 280, kexec_load 246 104, kexec_file_load 320 294, init_module 175 105",
    "finit_module 313 273, delete_module 176 106, reboot 169 142, syslog 103 116, acct 163 89",
    "quotactl 179 60, quotactl_fd 443 443, iopl 172 999, ioperm 173 999, modify_ldt 154 999",
)

# Instructions of classic BPF: code, jump if true, jump if false, constant.
_LOAD, _AND, _EQUAL, _GREATER, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x25, 0x45, 0x06
_Instruction = tuple[int, int, int, int]
_ALLOW: _Instruction = (_RETURN, 0, 0, 0x7FFF_0000)


def _fail(code: int) -> _Instruction:
    return (_RETURN, 0, 0, 0x0005_0000 | code)


def _argument(i: int) -> _Instruction:
    """Load the lower half of argument i; both architectures are little endian."""
    return (_LOAD, 0, 0, 16 + 8 * i)


def seccomp_program(machine: str) -> bytes | None:
    """The filter for a processor; None for one that it was not written for."""
    if machine not in _MACHINES:
        return None
    architecture, column = _MACHINES[machine]

    def case(call: str, *body: _Instruction) -> list[_Instruction]:
        return [(_EQUAL, 0, len(body), int(call.split()[1 + column])), *body]

    no_call = _fail(errno.ENOSYS)  # as on a kernel without the call, so that libraries fall back
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), no_call]
    program += [(_LOAD, 0, 0, 0), (_GREATER, 0, 1, _NEWEST), no_call]
    # MAP_SHARED | MAP_ANONYMOUS: it stays while one page is mapped, and only that page is counted.
    shared = ((_AND, 0, 0, 0x21), (_EQUAL, 0, 1, 0x21), _fail(errno.EPERM), _ALLOW)
    program += case("mmap 9 222", _argument(3), *shared)
    namespaces = ((_ANY_BIT, 0, 1, 0x7E02_0000), _fail(errno.EPERM), _ALLOW)  # CLONE_NEW*
    program += case("clone 56 220", _argument(0), *namespaces)
    # SOL_SOCKET with SO_SNDBUF or SO_RCVBUF does nothing: an error would end programs.
    buffers = ((_EQUAL, 1, 0, 7), (_EQUAL, 0, 1, 8), _fail(0), _ALLOW)
    program += case("setsockopt 54 208", _argument(1), (_EQUAL, 0, 4, 1), _argument(2), *buffers)
    # AF_UNIX, AF_INET, AF_INET6. AF_VSOCK, for one, is the same in every namespace.
    families = [(_EQUAL, 3, 0, 1), (_EQUAL, 2, 0, 2), (_EQUAL, 1, 0, 10)]
    for call in ("socket 41 198", "socketpair 53 199"):
        program += case(call, _argument(0), *families, _fail(errno.EAFNOSUPPORT), _ALLOW)
    for call in ", ".join(_REFUSED).split(", "):
        program += case(call, no_call)
    return b"".join(struct.pack("=HBBI", *one) for one in [*program, _ALLOW])


@contextmanager
def seccomp_file() -> Iterator[int]:
    """A descriptor from which bubblewrap reads the filter of this machine."""
    with open(os.memfd_create("seccomp"), "w+b", buffering=0) as file:
        file.write(seccomp_program(platform.machine()) or b"")
        file.seek(0)
        yield file.fileno()


def leave_session_keyring() -> None:
    """Give this thread, and what it starts, an empty session keyring in place of the user's."""
    keyctl = {"x86_64": 250, "aarch64": 219}.get(platform.machine())
    if keyctl is not None and sys.platform == "linux":
        # The 1 is KEYCTL_JOIN_SESSION_KEYRING. If it fails: code has no calls to reach a key by.
        ctypes.CDLL(None).syscall(keyctl, 1, None)
