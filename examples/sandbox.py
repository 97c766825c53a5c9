"""Run an untrusted Python program in one confined process: no network, no other process, one temporary folder.

    outcome = run("print(int(input()) + 1)", stdin="1")    # Outcome(ended="exit", output="2\n", …)

Linux 5.13 or newer on x86-64 or AArch64; nothing is installed and no privileges are needed. The process confines itself
before it runs the program, and cannot undo that:

* no_new_privs, and no capabilities, also where the run is root's;
* Landlock: it reads the standard library and writes to its own folder, and opens no other file;
* seccomp: no sockets, no new processes and no programs, no signals to or memory of other processes, no shared memory,
  no change of limits, owners, modes or times of files;
* limits of CPU time, memory, open files and the size of a file; the parent ends it by the clock, by the size of its
  folder and of its output. Its environment is empty.

What is not isolated: it runs on the same kernel, so a flaw in the kernel is a way out. It sees that files exist and
their sizes (stat), and who runs it on what machine (getuid, uname), but no content. It may use a whole core for its CPU
time, and the memory limit is one of address space. Timing and caches are shared. For programs by people who attack on
purpose take a virtual machine (gVisor, Firecracker).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Limits:
    """Seconds of CPU time and by the clock; MiB of memory and of files; characters of output."""

    cpu_seconds: int = 4
    seconds: float = 8.0
    memory_mib: int = 256
    files_mib: int = 16
    output: int = 64_000


@dataclass(frozen=True)
class Outcome:
    """How a program ended, and what it wrote to stdout; `errors` is the last line of stderr."""

    ended: Literal["exit", "error", "time", "memory", "output", "files"]
    output: str
    errors: str


def run(program: str, stdin: str = "", limits: Limits | None = None) -> Outcome:
    """Run a Python program with `stdin` and return how it ended.

    Raises:
        RuntimeError: this system cannot confine a process; nothing was run.
    """
    limits = limits or Limits()
    folder = Path(tempfile.mkdtemp(prefix="sandbox-"))
    try:
        (folder / "program.py").write_text(program, encoding="utf-8", errors="replace")
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", __file__, json.dumps(asdict(limits))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            cwd=folder, env={}, start_new_session=True,
        )  # fmt: skip
        try:
            return _watched(child, stdin, folder, limits)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            for pipe in (child.stdin, child.stdout, child.stderr):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _watched(child: subprocess.Popen[bytes], stdin: str, folder: Path, limits: Limits) -> Outcome:
    """Feed and read the child until it ends or exceeds a limit."""
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None
    written = {child.stdout: b"", child.stderr: b""}
    unsent = stdin.encode("utf-8", errors="replace")
    end = time.monotonic() + limits.seconds
    cut: Literal["time", "output", "files"] | None = None
    with selectors.DefaultSelector() as ready:
        for pipe in written:
            ready.register(pipe, selectors.EVENT_READ)
        os.set_blocking(child.stdin.fileno(), False)
        ready.register(child.stdin, selectors.EVENT_WRITE)
        while len(ready.get_map()) > (child.stdin in [key.fileobj for key in ready.get_map().values()]):
            if time.monotonic() > end:
                cut = "time"
            elif any(len(content) > limits.output for content in written.values()):
                cut = "output"
            elif _size(folder) > limits.files_mib << 20:
                cut = "files"
            if cut is not None:
                break
            for key, _ in ready.select(0.05):
                if key.fileobj is child.stdin:
                    unsent = _send(child.stdin, unsent, ready)
                elif content := os.read(key.fd, 65536):
                    written[key.fileobj] += content  # type: ignore[index]
                else:
                    ready.unregister(key.fileobj)
    output, errors = (written[pipe].decode("utf-8", errors="replace") for pipe in (child.stdout, child.stderr))
    last = (errors.strip().splitlines() or [""])[-1]
    if cut is not None:
        return Outcome(cut, output[: limits.output], last[:200])
    code = child.wait()
    if last.startswith(_CANNOT):
        raise RuntimeError(last)
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return Outcome("time", output, last[:200])
    return Outcome("memory" if "MemoryError" in last else "exit" if code == 0 else "error", output, last[:200])


def _send(pipe: Any, unsent: bytes, ready: selectors.BaseSelector) -> bytes:
    try:
        unsent = unsent[os.write(pipe.fileno(), unsent[:65536]) :] if unsent else b""
    except BrokenPipeError:
        unsent = b""
    if not unsent:
        ready.unregister(pipe)
        with contextlib.suppress(OSError):
            pipe.close()
    return unsent


def _size(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total


# ------------------------------------------------------------------ in the child

_CANNOT = "cannot confine: "
_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # its number for seccomp, its column below
# System calls that the program may not make, with their numbers on x86-64 and AArch64 (None: there is none).
_DENIED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198), "socketpair": (53, 199), "io_uring_setup": (425, 425),
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196),
    "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "unshare": (272, 97), "setns": (308, 268), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "setrlimit": (160, 164), "setpriority": (141, 140), "sched_setscheduler": (144, 119), "sched_setattr": (314, 274),
    "truncate": (76, 45), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "lchown": (94, None), "fchown": (93, 55), "fchownat": (260, 54),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "removexattrat": (466, 466),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "open_by_handle_at": (304, 265), "inotify_init1": (294, 26), "fanotify_init": (300, 262), "setsid": (112, 157),
}  # fmt: skip
_CLONE, _CLONE3, _PRLIMIT, _CAPSET = (56, 220), (435, 435), (302, 261), (126, 91)


def _confined(limits: Limits) -> None:
    """Confine this process for good. Raises OSError where the kernel cannot."""
    import resource

    libc = ctypes.CDLL(None, use_errno=True)
    number, column = _ARCHITECTURES[platform.machine()]

    def checked(result: int, what: str) -> int:
        if result < 0:
            raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
        return result

    checked(libc.prctl(1, signal.SIGKILL, 0, 0, 0), "parent's death")
    mib = 1 << 20
    for kind, most in (
        (resource.RLIMIT_CPU, limits.cpu_seconds), (resource.RLIMIT_AS, limits.memory_mib * mib),
        (resource.RLIMIT_FSIZE, limits.files_mib * mib), (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0), (resource.RLIMIT_MSGQUEUE, 0),
    ):  # fmt: skip
        resource.setrlimit(kind, (most, most))
    checked(libc.prctl(38, 1, 0, 0, 0), "no_new_privs")
    _landlock(libc, checked)
    header, nothing = struct.pack("Ii", 0x20080522, 0), bytes(24)
    checked(libc.syscall(_CAPSET[column], header, nothing), "capset")
    _seccomp(libc, checked, number, column)


def _landlock(libc: Any, checked: Any) -> None:
    """Read the standard library and shared libraries; write to the working folder; nothing else."""
    version = checked(libc.syscall(444, None, ctypes.c_size_t(0), 1), "Landlock")
    handled = (1 << (13 + (version >= 2) + (version >= 3))) - 1 | ((version >= 5) << 15)
    rules = struct.pack("QQQ", handled, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = checked(libc.syscall(444, rules[:size], ctypes.c_size_t(size), 0), "Landlock")
    readable = 0b1100  # files and folders
    library = os.path.dirname(os.__file__)
    allowed = [
        (path, readable) for path in (library, "/usr/lib", "/lib", "/lib64", "/usr/lib64", "/usr/share/zoneinfo")
    ]
    allowed += [("/dev/urandom", 0b100), ("/dev/null", 0b110), (os.getcwd(), handled & ~(0b1 | 1 << 15))]
    for path, access in allowed:
        if not os.path.exists(path):
            continue
        descriptor = os.open(path, os.O_PATH)
        checked(libc.syscall(445, ruleset, 1, struct.pack("=Qi", access & handled, descriptor), 0), f"Landlock {path}")
        os.close(descriptor)
    checked(libc.syscall(446, ruleset, 0), "Landlock")
    os.close(ruleset)


def _seccomp(libc: Any, checked: Any, architecture: int, column: int) -> None:
    """Answer the denied system calls with EPERM, and clone3 with ENOSYS, so that the C library takes clone."""
    load, equal, above, masked, end = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, refuse, absent = 0x7FFF0000, 0x80000000, 0x00050000 | 1, 0x00050000 | 38
    code: list[tuple[int, int, int, int]] = [(load, 0, 0, 4), (equal, 1, 0, architecture), (end, 0, 0, kill)]
    code += [(load, 0, 0, 0), (above, 0, 1, 0x40000000), (end, 0, 0, kill)]  # the other ABI of x86-64
    for numbers in _DENIED.values():
        if (denied := numbers[column]) is not None:
            code += [(equal, 0, 1, denied), (end, 0, 0, refuse)]
    code += [(equal, 0, 1, _CLONE3[column]), (end, 0, 0, absent)]
    # clone: a thread (CLONE_THREAD) may be, a process not; prlimit64: read (no new limit), both halves of the pointer
    code += [(equal, 0, 4, _CLONE[column]), (load, 0, 0, 16), (masked, 1, 0, 0x00010000), (end, 0, 0, refuse)]
    code += [(end, 0, 0, allow)]
    code += [(equal, 0, 5, _PRLIMIT[column]), (load, 0, 0, 32), (equal, 0, 2, 0), (load, 0, 0, 36), (equal, 1, 0, 0)]
    code += [(end, 0, 0, refuse), (end, 0, 0, allow)]
    program = b"".join(struct.pack("HBBI", *line) for line in code)
    buffer = ctypes.create_string_buffer(program)
    filtered = struct.pack("HxxxxxxP", len(code), ctypes.addressof(buffer))
    checked(libc.prctl(22, 2, filtered, 0, 0), "seccomp")


def _main() -> None:
    limits = Limits(**json.loads(sys.argv[1]))
    with open("program.py", encoding="utf-8") as file:
        source = file.read()
    try:
        _confined(limits)
    except (OSError, KeyError, ImportError) as error:
        sys.exit(f"{_CANNOT}{error}")
    sys.argv = ["program.py"]
    scope = {"__name__": "__main__", "__builtins__": __builtins__}
    exec(compile(source, "program.py", "exec"), scope)


if __name__ == "__main__":
    _main()
