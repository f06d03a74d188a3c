"""What a run was made with, for the head of its log."""

from __future__ import annotations

import logging
import platform
from pathlib import Path

import cv2
import numba
import numpy as np
import torch

from .. import __version__
from .machine import available_cores

logger = logging.getLogger(__name__)
_ROOT = Path(__file__).resolve().parents[2]


def versions() -> dict[str, str]:
    """By name: this code, with its commit where it lies in a git checkout; Python, libraries and system."""
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
    """One line of the log."""
    logger.info("%s", ", ".join(f"{name} {version}" for name, version in versions().items()))


def git_commit(root: Path) -> str | None:
    """Hash of the commit that is checked out in ``root``, read from git's files; None where there are none."""
    try:
        head = (root / ".git" / "HEAD").read_text(encoding="ascii").strip()
        if not head.startswith("ref: "):
            return head
        name = head[len("ref: ") :]
        loose = root / ".git" / name
        if loose.is_file():
            return loose.read_text(encoding="ascii").strip()
        packed = (root / ".git" / "packed-refs").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)
