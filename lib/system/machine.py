"""Cores and memory of the machine, and process settings."""

import ctypes
import os
import signal
import sys
from pathlib import Path


def available_cores() -> int:
    """Number of cores that this process may use; all cores where the system has no affinity (macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int | None:
    """Bytes that can be allocated without swapping; None on systems without /proc/meminfo."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


def leave_ctrl_c_to_parent() -> None:
    """Ignore SIGINT in a worker process: a terminal sends it to all processes, and each would print a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def keep_freed_memory() -> None:
    """Make glibc keep large freed blocks for later allocations. Does nothing with another C library.

    By default glibc returns large blocks to the system, which must then provide zeroed pages for every training step
    and every sample.
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
