"""The command ``kitti-ap``, and the options that ``tools/evaluate_kitti.py`` shares with it."""

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from . import __version__
from .bootstrap import Resampling
from .clusters import cluster_frames
from .dump import dump_matches
from .kitti import evaluate_annotations, read_folders
from .protocol import CLASSES, DISTANCE_BANDS, normalise_classes
from .reading import read_split
from .result import KittiResult

_REPLICATES = 1000


class Evaluation(NamedTuple):
    result: KittiResult
    other: KittiResult | None  # of --against
    rows: str  # of --dump


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 2 for bad input, 130 after Ctrl-C, 141 where nobody reads the output."""
    parser = argparse.ArgumentParser(prog="kitti-ap", description="Average precision of KITTI result files.")
    parser.add_argument("--version", action="version", version=__version__)
    add_options(parser)
    args = parser.parse_args(argv)
    try:
        evaluation = evaluate(args)
        write_files(args, evaluation, _write)
        print(to_text(args, evaluation), flush=True)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more
        return 141
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of :func:`evaluate` and :func:`write_files`."""
    add = parser.add_argument
    add("--labels", type=Path, required=True, metavar="DIR", help="folder of label files (000000.txt, ..)")
    add("--results", type=Path, required=True, metavar="DIR", help="folder of result files, with scores")
    ids = "frames to evaluate, one id a line; each needs a result file. Default: all that have a result file"
    add("--ids", type=Path, metavar="FILE", help=ids)
    add("--classes", nargs="+", default=list(CLASSES), metavar="NAME", help=f"default: {' '.join(CLASSES)}")
    overlaps = "minimum overlaps of your own classes, as in tester.overlaps; default: 0.5,0.25"
    add("--overlaps", nargs="+", default=[], metavar="NAME=OFFICIAL,LOOSE", help=overlaps)
    add("--by-distance", action="store_true", help="also AP at depths of 0-30, 30-50 and 50-70 m")
    bootstrap = "95%% intervals from N replicates (default: 1000), each of as many clusters drawn with replacement"
    add("--bootstrap", nargs="?", type=int, const=_REPLICATES, metavar="N", help=bootstrap)
    clusters = "'drives' (of drives.csv in the folder of the data set, else KITTI's), 'frames', or a CSV file of "
    clusters += "id,cluster. Default: drives where all ids are in that file, else frames"
    add("--clusters", metavar="drives|frames|FILE", help=clusters)
    add("--seed", type=int, metavar="S", help="seed of the draws; default: 0")
    against = "other result files: differences to them with intervals, from the same draws"
    add("--against", type=Path, metavar="DIR", help=against)
    add("--json", type=Path, metavar="OUT", help="write all APs, intervals and counts")
    add("--dump", type=Path, metavar="OUT.csv", help="write a row for each detection and each missed label")


def evaluate(args: argparse.Namespace, further_outputs: Sequence[Path | None] = ()) -> Evaluation:
    """Raises FileNotFoundError or ValueError for input that cannot be evaluated, and for files that cannot be written:
    those of --json and --dump, and ``further_outputs``. Nothing is written."""
    _check_outputs([path for path in (args.json, args.dump, *further_outputs) if path is not None])
    for name in args.classes:
        if "," in name:
            raise ValueError(f"--classes: separate the names by spaces, got {name!r}")
    number = args.bootstrap if args.bootstrap is not None else _REPLICATES if args.against else 0
    if args.against and not number:
        raise ValueError("--against needs replicates; --bootstrap 0 makes none")
    for option, value in (("--clusters", args.clusters), ("--seed", args.seed)):
        if value is not None and not number:
            raise ValueError(f"{option} needs --bootstrap or --against")
    overlaps = dict(read_overlaps(text, normalise_classes(args.classes)) for text in args.overlaps)
    labels, detections = read_folders(
        args.labels, args.results, None if args.ids is None else read_split(args.ids), args.classes
    )
    others = read_folders(args.labels, args.against, labels.frame_ids, args.classes)[1] if args.against else None
    resampling = None
    if number:
        resampling = Resampling(cluster_frames(labels.frame_ids, args.labels, args.clusters), number, args.seed or 0)
    bands = DISTANCE_BANDS if args.by_distance else ()
    result = evaluate_annotations(labels, detections, args.classes, bands, overlaps, resampling)
    other = None
    if others is not None:
        other = evaluate_annotations(labels, others, args.classes, bands, overlaps, resampling)
    rows = "" if args.dump is None else dump_matches(labels, detections, args.classes, overlaps)
    return Evaluation(result, other, rows)


def write_files(args: argparse.Namespace, evaluation: Evaluation, write: Callable[[Path, bytes], None]) -> None:
    """The files of --json and --dump; ``write`` a file, whole or not at all."""
    result, other, rows = evaluation
    if args.dump is not None:
        write(args.dump, rows.encode())
    if args.json is not None:
        tree = result.to_json()
        if other is not None:
            tree["against"] = {"results": str(args.against), "ap": other.to_json()}
            tree["against"] |= result.differences_to_json(other)
        write(args.json, (json.dumps(tree, indent=2, allow_nan=False) + "\n").encode())


def to_text(args: argparse.Namespace, evaluation: Evaluation) -> str:
    """What the command prints."""
    result, other, _ = evaluation
    if other is None:
        return result.table()
    title = f"first: {args.results}\nsecond: {args.against}\n{result.difference_table(other)}"
    return f"{result.table()}\n\nsecond: {args.against}\n{other.table()}\n\n{title}"


def read_overlaps(text: str, classes: Sequence[str]) -> tuple[str, tuple[float, float]]:
    """'Pallet=0.7,0.5' -> ('Pallet', (0.7, 0.5)). Raises ValueError."""
    match = re.fullmatch(r"([^=]+)=(\d*\.?\d+),(\d*\.?\d+)", text, re.ASCII)
    if match is None:
        raise ValueError(f"--overlaps: expected NAME=OFFICIAL,LOOSE such as Pallet=0.7,0.5, got {text!r}")
    own = {cls.lower(): cls for cls in classes if cls not in CLASSES}
    if match[1].lower() not in own:
        raise ValueError(f"--overlaps: expected one of --classes that is not {', '.join(CLASSES)}, got {match[1]!r}")
    return own[match[1].lower()], (float(match[2]), float(match[3]))


def _check_outputs(paths: Sequence[Path]) -> None:
    """Raise ValueError or PermissionError for a path that cannot be written, or that is given twice."""
    for k, path in enumerate(paths):
        if path.exists() and not path.is_file():
            raise ValueError(f"{path}: is a {'folder' if path.is_dir() else 'device'}; give the name of a file")
        if path.absolute() in [other.absolute() for other in paths[:k]]:
            raise ValueError(f"{path}: two outputs have this name")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        if not folder.is_dir():
            raise ValueError(f"{path}: {folder} is a file, not a folder")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"{path}: no permission to write into {folder}")


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise OSError(f"{path}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
