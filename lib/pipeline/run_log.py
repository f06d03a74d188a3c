"""What a run's train.log tells about the run: when, and with what."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from ..system.environment import versions

_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ [A-Z]+ ([\w.]+): (.*)")


@dataclass(frozen=True)
class RunLog:
    """Of a log that does not exist, or has no line of the usual form, everything is empty."""

    started: datetime | None = None
    ended: datetime | None = None
    """time of the last line"""
    starts: int = 0
    """how often the run was started: once, and again for each --resume"""
    versions: dict[str, str] = field(default_factory=dict)
    """of the last start, as ``environment.versions`` has them"""

    @property
    def duration(self) -> timedelta:
        """From the first line to the last, pauses between starts included."""
        return self.ended - self.started if self.started and self.ended else timedelta()


def read_run_log(path: Path) -> RunLog:
    """Read a log that ``setup_logging`` has written."""
    if not path.is_file():
        return RunLog()
    times, environments = [], []
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            match = _LINE.match(line)
            if match:
                times.append(match[1])
                if match[2] == "lib.system.environment":
                    environments.append(match[3])
    if not times:
        return RunLog()
    first, last = (datetime.fromisoformat(time) for time in (times[0], times[-1]))
    return RunLog(first, last, len(environments), _split_versions(environments[-1]) if environments else {})


def _split_versions(text: str) -> dict[str, str]:
    """Undo what ``log_versions`` did; a value may have commas."""
    parts = re.split(rf", (?=(?:{'|'.join(map(re.escape, versions()))}) )", text)
    return {name: value for name, _, value in (part.partition(" ") for part in parts)}
