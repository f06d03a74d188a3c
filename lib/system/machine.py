"""What the machine offers."""

import ctypes
import os
import signal
import sys
from pathlib import Path


def available_cores() -> int:
    """Cores that this process may use; all of the machine's where the system does not tell (macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int | None:
    """Bytes that can be taken without swapping; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


def leave_ctrl_c_to_parent() -> None:
    """For a worker process: a terminal sends Ctrl-C to all of them, and each would print a traceback of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def keep_freed_memory() -> None:
    """Have the C library keep large blocks that are freed, for the next large block.

    By default glibc gives large blocks back to the system at once, and a training step on the CPU spends up to half of
    its time, a loader a quarter, in having pages of zeros handed out again. Does nothing where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return
    trim_threshold, mmap_max = -1, -4  # malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
