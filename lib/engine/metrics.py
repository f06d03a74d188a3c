"""metrics.jsonl, one line for each epoch; and TensorBoard where it is installed."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import TracebackType
from typing import Any

from ..system.files import atomic_write, named_errors, without_nan

logger = logging.getLogger(__name__)


class MetricsLog:
    """Appends to ``run_dir/metrics.jsonl``, after cutting it back to the first ``epochs_done`` epochs.

    Without ``run_dir`` nothing is written: only one of several processes keeps the log.
    """

    def __init__(self, run_dir: Path | None, epochs_done: int) -> None:
        self.board: Any = None
        self.path = run_dir / "metrics.jsonl" if run_dir else None
        self.cut: list[dict[str, Any]] = []  # the records of later epochs
        if run_dir is None or self.path is None:
            return
        records = read_metrics(self.path)
        self.cut = [record for record in records if record["epoch"] > epochs_done]
        _write(self.path, [record for record in records if record["epoch"] <= epochs_done])
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=epochs_done + 1)
            logger.info("metrics of each epoch: %s; tensorboard --logdir %s", self.path, run_dir.parent)
        except ImportError:
            logger.info("metrics of each epoch: %s (also for TensorBoard: pip install tensorboard)", self.path)

    def write(self, record: dict[str, Any]) -> None:
        """Append an epoch: ``{"epoch": 1, "lr": .., "losses": {..}, "samples_per_second": ..}`` and, where they exist,
        ``zero_share`` (of the steps in which a loss was exactly 0, by loss), ``skipped_frames`` and ``ap``.

        Where the same epoch was cut off, its AP is kept: a finished run that goes on has evaluated it.
        """
        if self.path is None:
            return
        record = without_nan(record)
        same = [cut for cut in self.cut if (cut["epoch"], cut["losses"]) == (record["epoch"], record["losses"])]
        record = {"ap": same[0]["ap"], **record} if same and "ap" in same[0] else record
        with named_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")
        if self.board is not None:
            for group, content in record.items():
                scalars = content if isinstance(content, dict) else {group: content}
                for name, value in scalars.items():
                    if value is None:
                        continue
                    tag = f"{group}/{name}" if isinstance(content, dict) else group
                    self.board.add_scalar(tag, value, record["epoch"])
            self.board.flush()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.board is not None:
            self.board.close()


def add_ap_to_last(path: Path, ap: dict[str, float]) -> None:
    """Add the AP of the evaluation after the training to the last epoch's record, if there is one."""
    records = read_metrics(path)
    if records:  # a finished run that was resumed in another folder has none
        _write(path, [*records[:-1], records[-1] | {"ap": ap}])


def _write(path: Path, records: list[dict[str, Any]]) -> None:
    with atomic_write(path) as file:
        file.write("".join(json.dumps(without_nan(record), allow_nan=False) + "\n" for record in records).encode())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl. Other lines, such as one cut off by a crash, are skipped with a warning."""
    records = []
    if path.is_file():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                record = None
            if _is_record(record):
                records.append(record)
            else:
                logger.warning("%s, line %d: not a whole record of an epoch; left out", path, number)
    return records


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict) or not isinstance(record.get("epoch"), int):
        return False
    figures = [record.get("lr"), record.get("samples_per_second")]
    for group in (record.get("losses"), record.get("ap", {})):
        if not isinstance(group, dict):
            return False
        figures += group.values()
    return all(figure is None or isinstance(figure, int | float) for figure in figures)
