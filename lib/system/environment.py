"""Versions of this code, of Python and of the libraries: logged, and recorded in a run's environment.json."""

import contextlib
import json
import logging
import platform
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numba
import numpy as np
import torch

from .. import __version__
from .files import write_file
from .machine import available_cores

logger = logging.getLogger(__name__)
_ROOT = Path(__file__).resolve().parents[2]


def versions() -> dict[str, str]:
    """By name: this code (with its commit in a git checkout), Python, libraries, operating system and GPU."""
    commit = git_commit(_ROOT)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {
        "code": f"{__version__} ({commit[:10]})" if commit else __version__,
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "OpenCV": cv2.__version__,
        "numba": numba.__version__,
        "system": f"{platform.system()} {platform.release()}, {available_cores()} cores, {gpu}",
    }


def log_versions() -> None:
    """Write the versions to the log, as one line."""
    logger.info("%s", ", ".join(f"{name} {version}" for name, version in versions().items()))


def record_start(path: Path) -> None:
    """Append the time and the versions to ``path`` (environment.json), which has one entry for each start of a run."""
    starts = [*read_starts(path), {"started": datetime.now().isoformat(" ", "seconds"), "versions": versions()}]
    write_file(path, (json.dumps(starts, indent=1) + "\n").encode())


def read_starts(path: Path) -> list[dict[str, Any]]:
    """The entries of an environment.json: ``started`` (ISO 8601) and ``versions``. Empty without a readable file."""
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    entries = starts if isinstance(starts, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and {"started", "versions"} <= entry.keys()]


def git_commit(root: Path) -> str | None:
    """Hash of the commit that is checked out in ``root``; None where there is none, or no program git."""
    if not (root / ".git").exists():  # git would look for a checkout around it
        return None
    command = ["git", "-c", "safe.directory=*", "rev-parse", "HEAD"]  # "*": also if it belongs to another user
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
    return None
