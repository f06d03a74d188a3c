"""Training frames that cannot be read, with ``dataset.on_bad_frame: skip``: named, counted, and limited in number."""

import logging
from collections.abc import Sequence
from typing import Any

from .distributed import ProcessGroup
from .progress import Progress

logger = logging.getLogger(__name__)

MAX_SKIPPED_SHARE = 0.01  # of the training frames


class SkippedFrames:
    """Counts frames in a ``Progress``. Methods raise ValueError where more than 1 % of ``n_frames`` are skipped."""

    def __init__(self, n_frames: int, ranks: ProcessGroup) -> None:
        self.n_frames, self.ranks = n_frames, ranks
        self._unmerged: list[tuple[str, str]] = []  # (id, reason) of frames that the main rank may not know yet

    def record(self, skipped: Sequence[Any], progress: Progress) -> None:
        """Count this rank's frames; each has ``frame_id`` and ``reason``."""
        for frame in skipped:
            progress.skipped_now += 1
            if frame.frame_id not in progress.skipped:
                self._unmerged.append((frame.frame_id, frame.reason))
                self._name(frame.frame_id, frame.reason, progress)
        self._check(progress)

    def merge(self, progress: Progress) -> None:
        """Give the main rank, which writes log, checkpoint and metrics, what the other ranks have skipped since."""
        gathered = self.ranks.gather_objects((self._unmerged, progress.skipped_now))
        self._unmerged = []
        progress.skipped_now = sum(count for _, count in gathered)  # 0 on the other ranks
        for frame_id, reason in (frame for frames, _ in gathered for frame in frames):
            if frame_id not in progress.skipped:
                self._name(frame_id, reason, progress)
        progress.skipped.sort()
        self._check(progress)

    def _name(self, frame_id: str, reason: str, progress: Progress) -> None:
        progress.skipped.append(frame_id)
        logger.warning("frame %s is skipped: %s", frame_id, reason)

    def _check(self, progress: Progress) -> None:
        skipped = progress.skipped
        if len(skipped) > MAX_SKIPPED_SHARE * self.n_frames:
            raise ValueError(
                f"{len(skipped)} of {self.n_frames} training frames cannot be read, more than "
                f"{MAX_SKIPPED_SHARE:.0%}; the last is {skipped[-1]}. tools/check_dataset.py lists them all"
            )
