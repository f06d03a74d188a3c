#!/usr/bin/env python3
"""Which predicted quantity costs most, and what the representation itself costs.

    python tools/diagnose.py --config x.yaml --checkpoint c.pth --out DIR
    python tools/diagnose.py --ceiling --config x.yaml --out DIR

The first runs the network once, then replaces each quantity by ground truth and evaluates again (MonoDLE, section 3).
The second needs no network: targets are decoded as if they were outputs; with --labels, --calib and --sizes it needs no
images either. docs/diagnose.md says how to read the tables.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.analysis.ceiling import Ceiling
from lib.analysis.depth_error import depth_errors
from lib.analysis.ideal_outputs import memorise
from lib.analysis.oracle import PREDICTED, QUANTITIES, TITLES, Oracle, replace_and_evaluate
from lib.analysis.repairs import DecodedFrame, explain_ceiling
from lib.config import Config, find_dataroot, load_config
from lib.datasets.images import find_image, read_image_size, read_size_table
from lib.datasets.kitti import KITTI
from lib.datasets.samples import inference_loader
from lib.engine.device import choose_device
from lib.engine.inference import decode_settings, predict
from lib.engine.network import load_network
from lib.engine.run_folder import find_checkpoint
from lib.evaluation import DIFFICULTIES, Annotations, type_names_for
from lib.models import build_model
from lib.models.folding import fold_batch_norm
from lib.postprocess import decode_detections
from lib.structures import Calibration, FrameInfo, Object3d, read_objects, read_split
from lib.system.commands import progress_interval, run_command, setup_logging
from lib.system.files import write_file
from lib.visualization.bars import plot_replaced
from lib.visualization.evaluation_panels import depth_error_panels
from lib.visualization.panels import save_panels

logger = logging.getLogger("lib.tools.diagnose")
ORACLE_FILES = ("oracle.txt", "oracle.json", "oracle.png", "depth_error.png")
CEILING_FILES = ("ceiling.txt", "ceiling.json", "missed.csv")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="X.yaml", help="the experiment")
    parser.add_argument("--checkpoint", metavar="C.pth", help="weights; looked for in the run's folder, too")
    parser.add_argument("--ceiling", action="store_true", help="diagnose the representation instead of a network")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where tables and plots go")
    parser.add_argument("--split", choices=("train", "val", "trainval", "test"), help="default: tester.split")
    parser.add_argument("--max-frames", type=int, default=0, metavar="N", help="only the first N frames of the split")
    parser.add_argument("--labels", type=Path, metavar="DIR", help="with --ceiling: label files instead of dataroot's")
    parser.add_argument("--calib", type=Path, metavar="DIR", help="with --labels: calibrations")
    parser.add_argument("--sizes", type=Path, metavar="FILE.csv", help="with --labels: id,width,height of each image")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier diagnosis in DIR")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE", help="override keys of the YAML"
    )
    args = parser.parse_args(argv)
    return run_command(lambda: diagnose(args))


def diagnose(args: argparse.Namespace) -> int:
    """Raises FileNotFoundError or ValueError for what is missing, broken or does not go together."""
    setup_logging()
    given = [option for option in (args.labels, args.calib, args.sizes) if option is not None]
    if args.ceiling == (args.checkpoint is not None):
        raise ValueError("give either --checkpoint, to diagnose a network, or --ceiling, for the representation alone")
    if given and not (args.ceiling and len(given) == 3):
        raise ValueError("--labels, --calib and --sizes go together, and with --ceiling")
    if args.max_frames < 0:
        raise ValueError(f"--max-frames must be >= 1, or 0 for all, got {args.max_frames}")
    config = load_config(args.config, args.set)
    split = args.split or config.tester.split
    if split == "test":
        raise ValueError("split test has no labels to compare with; --split val, for example")
    files = CEILING_FILES if args.ceiling else ORACLE_FILES
    there = [name for name in files if (args.out / name).exists()]
    if there and not args.overwrite:
        raise ValueError(f"{args.out / there[0]} exists already; --overwrite replaces it")
    if args.ceiling:
        frames = _frames_from(args, config, split) if given else _frames_of_dataroot(args, config, split)
        write_ceiling(measure_ceiling(frames, config), frames, args.out)
    else:
        write_oracle(run_network(config, args.checkpoint, split, args.max_frames), config, args.out)
    logger.info("saved in %s: %s", args.out, ", ".join(files))
    return 0


class Predicted(NamedTuple):
    """What a network says about a split, frame by frame."""

    checkpoint: Path
    dataset: KITTI
    calibrations: Sequence[Calibration]
    labels: Sequence[Sequence[Object3d]]
    detections: Sequence[Sequence[Object3d]]


def run_network(config: Config, checkpoint: str, split: str, max_frames: int) -> Predicted:
    """Raises FileNotFoundError or ValueError for a checkpoint or data that cannot be used."""
    path = find_checkpoint(checkpoint, Path("outputs") / config.general.exp_name, "--checkpoint ")
    dataset = KITTI(find_dataroot(config), split, max_frames=max_frames)
    model = load_network(path, build_model, config).model
    device = choose_device(config.trainer.gpu_ids)
    logger.info("%s on the %d frames of split %s below %s", path, len(dataset), split, dataset.data_dir)
    loader = inference_loader(dataset, config)
    results = predict(fold_batch_norm(model), loader, decode_settings(config), config.tester.topk, device)
    texts = [text for text in dataset.texts if not isinstance(text, Exception)]
    calibrations, labels = [calibration for calibration, _ in texts], [objects for _, objects in texts]
    return Predicted(path, dataset, calibrations, labels, [objects for _, objects in results])


def write_oracle(predicted: Predicted, config: Config, out: Path) -> None:
    """Replace quantity by quantity, evaluate, and write tables and plots."""
    checkpoint, dataset, calibrations, labels, detections = predicted
    classes = config.dataset.writelist
    oracle = replace_and_evaluate(labels, detections, calibrations, classes, _own_overlaps(config))
    names = type_names_for(classes)
    pair = Annotations.from_objects(labels, False, names), Annotations.from_objects(detections, True, names)
    errors = {cls: depth_errors(*pair, cls) for cls in classes}
    text = "\n\n".join([_summary(oracle), oracle.table(), *(error.table() for error in errors.values())])
    logger.info("%s", text)
    tree: dict[str, Any] = {
        "checkpoint": str(checkpoint),
        "split": dataset.split,
        "frames": len(dataset),
        "replaced": oracle.to_json(),
        "depth_errors": [error.to_json() for error in errors.values()],
    }
    write_file(out / "oracle.txt", f"{checkpoint}, {len(dataset)} frames of {dataset.split}\n\n{text}\n".encode())
    write_file(out / "oracle.json", _json(tree))
    plot_replaced(tree["replaced"], {name: TITLES[name] for name in (PREDICTED, *QUANTITIES)}, out / "oracle.png")
    bands = {cls: error.to_json()["bands"] for cls, error in errors.items()}
    save_panels(depth_error_panels(bands), out / "depth_error.png", columns=2)


def _summary(oracle: Oracle) -> str:
    """Which single quantity gains most, by class."""
    lines = []
    for cls in oracle.classes:
        for overlap in ("official", "loose"):
            gains = {q: oracle.gain(q, cls, "3d", "moderate", overlap) for q in QUANTITIES if q != "all"}
            best = sorted((q for q in gains if gains[q] > 0), key=lambda q: -gains[q])
            order = ", ".join(f"{QUANTITIES[q]} {gains[q]:+.2f}" for q in best) or "nothing"
            lines.append(f"{cls}, 3D moderate, {overlap} overlap: what gains, most first: {order}")
    return "\n".join(lines)


class LabelledFrame(NamedTuple):
    """What the ceiling needs to know of a frame."""

    info: FrameInfo
    objects: Sequence[Object3d]


def measure_ceiling(frames: Sequence[LabelledFrame], config: Config) -> list[Ceiling]:
    """Encode, decode and evaluate; one ceiling for each class of the writelist."""
    settings = decode_settings(config)
    exact = replace(settings, official_vertical=False)
    decoded = []
    for info, objects in tqdm(frames, "ceiling", unit="frame", leave=False, mininterval=progress_interval()):
        seen = memorise(objects, info.calibration, info.image_size, config.dataset, config.tester.topk)
        found, found_exactly = (decode_detections(seen.outputs, [info], how)[0] for how in (settings, exact))
        if len(found) != len(seen.lines):
            names = ", ".join(config.dataset.writelist)
            raise ValueError(f"frame {info.frame_id}: a label ({names}) has a negative size")
        by_line = (dict(zip(seen.lines, detections, strict=True)) for detections in (found, found_exactly))
        decoded.append(DecodedFrame(objects, seen.lost, *by_line))
    return explain_ceiling(decoded, config.dataset.writelist, _own_overlaps(config))


def write_ceiling(ceilings: Sequence[Ceiling], frames: Sequence[LabelledFrame], out: Path) -> None:
    """Tables, figures, and a line for each missed ground truth."""
    header = f"{len(frames)} frames, targets decoded as if they were outputs"
    text = "\n\n".join([header, *(ceiling.table() for ceiling in ceilings)])
    logger.info("%s", text)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["frame", "line", "type", "z", "overlap", *DIFFICULTIES])
    for ceiling in ceilings:
        for missed in ceiling.missed:
            info, objects = frames[missed.frame]
            label = objects[missed.line]
            place = [info.frame_id, missed.line + 1, label.type, label.location_cam[2], f"{missed.overlap:.4f}"]
            writer.writerow([*place, *(reason or "" for reason in missed.reasons)])
    write_file(out / "ceiling.txt", (text + "\n").encode())
    write_file(out / "ceiling.json", _json({"frames": len(frames), "classes": [c.to_json() for c in ceilings]}))
    write_file(out / "missed.csv", table.getvalue().encode())


def _frames_of_dataroot(args: argparse.Namespace, config: Config, split: str) -> list[LabelledFrame]:
    dataset = KITTI(find_dataroot(config), split, max_frames=args.max_frames)
    return [
        LabelledFrame(FrameInfo(i, read_image_size(find_image(dataset.image_dir, i)), text[0]), text[1])
        for i, text in zip(dataset.frame_ids, dataset.texts, strict=True)
        if not isinstance(text, Exception)
    ]


def _frames_from(args: argparse.Namespace, config: Config, split: str) -> list[LabelledFrame]:
    """The frames of dataroot's split from folders given one by one."""
    sizes = read_size_table(args.sizes)
    ids = read_split(find_dataroot(config) / "ImageSets" / f"{split}.txt")[: args.max_frames or None]
    missing = [i for i in ids if i not in sizes]
    if missing:
        raise ValueError(f"{args.sizes}: {len(missing)} of {len(ids)} frames are missing, the first is {missing[0]}")

    def read() -> Iterator[LabelledFrame]:
        for i in ids:
            calibration = Calibration.from_file(args.calib / f"{i}.txt")
            yield LabelledFrame(FrameInfo(i, sizes[i], calibration), read_objects(args.labels / f"{i}.txt"))

    return list(read())


def _own_overlaps(config: Config) -> dict[str, tuple[float, float]]:
    return {name: (pair[0], pair[1]) for name, pair in config.tester.overlaps.items()}


def _json(tree: dict[str, Any]) -> bytes:
    return (json.dumps(tree, indent=1, allow_nan=False) + "\n").encode()


if __name__ == "__main__":
    sys.exit(main())
