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


def free_shared_memory() -> int | None:
    """Free bytes of /dev/shm, through which processes exchange tensors; None where there is none, or no limit."""
    try:
        status = os.statvfs("/dev/shm")
    except (OSError, AttributeError):
        return None
    return status.f_bavail * status.f_frsize if status.f_blocks else None


def peak_memory() -> int | None:
    """Bytes of memory that this process has used at most; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else 1024 * used


def allow_open_files(number: int) -> int:
    """Raise this process's soft limit of open files to ``number`` where it is lower; returns the limit that holds."""
    try:
        import resource
    except ImportError:  # Windows
        return number
    unlimited = resource.RLIM_INFINITY
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != unlimited and soft < number:
        soft = number if hard == unlimited else min(number, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return number if soft == unlimited else soft


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
