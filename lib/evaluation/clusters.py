"""Which frames belong together: the drives of KITTI, or what a file says."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .reading import DRIVES_FILE, read_lines

_HERE = Path(__file__).resolve().parent
# of kitti-ap; of the repository, two folders above
_PLACES = (_HERE / DRIVES_FILE, *(root / "data" / "KITTI" / DRIVES_FILE for root in _HERE.parents[1:2]))


@dataclass(frozen=True, eq=False)
class Clusters:
    """F frames in C clusters, each of which has at least one of them. Raises ValueError for other numbers."""

    names: tuple[str, ...]  # (C,)
    of_frame: np.ndarray  # (F,) int64, index into ``names``
    unit: str  # 'drives', 'frames' or 'clusters'
    source: str = ""  # where the clusters come from
    ids: tuple[str, ...] = ()  # (F,) of the frames, if they are known

    def __post_init__(self) -> None:
        number = len(self.names)
        if not np.array_equal(np.unique(self.of_frame), np.arange(number)):
            raise ValueError(f"of_frame must contain each of 0 to {number - 1}, the indices of names, and no other")

    def describe(self) -> str:
        """'45 drives (KITTI's)'."""
        unit = self.unit.removesuffix("s") if len(self.names) == 1 else self.unit
        return f"{len(self.names)} {unit}" + f" ({self.source})" * bool(self.source)


def cluster_frames(ids: Sequence[str], label_dir: str | Path, clusters: str | Path | None = None) -> Clusters:
    """The clusters of the frames ``ids``, whose labels are in ``label_dir``.

    ``clusters``: 'frames', each frame by itself; 'drives', those of the file ``drives.csv`` in the folder of the data
    set (two above the labels) if there is one, else those of KITTI's training frames; the name of another such file,
    see :func:`read_clusters`; None: 'drives' where all ids are in that file, else 'frames'.

    Raises FileNotFoundError for a missing file, and ValueError for a malformed one and for frames that it lacks.
    """
    clusters = None if clusters is None else str(clusters)
    if clusters == "frames":
        return _by_frame(ids, "")
    if clusters not in (None, "drives"):
        return _assign(ids, read_clusters(clusters), "clusters", clusters)
    own = [folder / DRIVES_FILE for folder in Path(os.path.abspath(label_dir)).parents[1:2]]
    path = next((place for place in (*own, *_PLACES) if place.is_file()), None)
    if path is None:
        if clusters is None:
            return _by_frame(ids, f"there is no {DRIVES_FILE}")
        raise FileNotFoundError(f"clusters: no {DRIVES_FILE} two folders above {label_dir}, nor beside {_HERE.name}")
    source = "KITTI's" if path in _PLACES else str(path)
    table = read_clusters(path)
    if clusters is None and any(frame not in table for frame in ids):
        return _by_frame(ids, f"not all ids are those of {path if source == str(path) else 'KITTI'}")
    return _assign(ids, table, "drives", source)


def read_clusters(path: str | Path) -> dict[str, str]:
    """Frame id -> cluster: the first two columns of a CSV file; a first line that starts with 'id' is a header.

    Raises FileNotFoundError, or ValueError with file and line for a line without both, or a frame that is repeated.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file of clusters; accepted are also 'drives' and 'frames'")
    table: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), 1):
        cells = [cell.strip() for cell in line.decode(errors="backslashreplace").split(",")]
        if not any(cells) or (number == 1 and cells[0] == "id"):
            continue
        # no quotes: a cell in quotes could contain a comma
        if len(cells) < 2 or not all(cell.isprintable() and cell and '"' not in cell for cell in cells[:2]):
            example = "'id,cluster' without quotes, such as '000123,2011_09_26_drive_0001'"
            raise ValueError(f"{path}, line {number}: expected {example}, got {', '.join(cells)[:60]!r}")
        if cells[0] in table:
            raise ValueError(f"{path}, line {number}: frame {cells[0]!r} is already in the file")
        table[cells[0]] = cells[1]
    if not table:
        raise ValueError(f"{path}: no frames; expected a line of 'id,cluster' for each")
    return table


def _by_frame(ids: Sequence[str], source: str) -> Clusters:
    return Clusters(tuple(ids), np.arange(len(ids)), "frames", source, tuple(ids))


def _assign(ids: Sequence[str], table: dict[str, str], unit: str, source: str) -> Clusters:
    missing = [frame for frame in ids if frame not in table]
    if missing:
        known = f"; it has {', '.join(list(table)[:3])}, .." if len(missing) == len(ids) else ""
        first = f"{len(missing)} of {len(ids)} frames, the first is {missing[0]!r}"
        raise ValueError(f"clusters: {source} lacks {first}{known}")
    names, of_frame = np.unique([table[frame] for frame in ids], return_inverse=True)
    return Clusters(tuple(names.tolist()), of_frame.astype(np.int64), unit, source, tuple(ids))
