"""How often the evaluator's 95 % intervals hold the truth: detectors of known expected AP on frames in clusters.

    python tools/bench/coverage.py                             # 200 detectors, 45 clusters
    python tools/bench/coverage.py --detectors 40 --json coverage.json
    python tools/bench/coverage.py --kitti --samples 40        # as many frames in each cluster as in a drive of KITTI

Each detector has its own chances of finding an object and of inventing one, and its own scores; all three differ from
cluster to cluster, as with the weather and traffic of drives. Its interval comes from one sample of clusters; it is
computed with these clusters, and with each frame by itself. Two truths are compared with it: the mean AP of other
samples of the same size (--samples), and the AP of all their frames together. They differ, since AP is no mean: of few
clusters it is a little higher.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.evaluation import Annotations, Clusters, Resampling, cluster_frames, evaluate_annotations
from lib.ops.text import text_table
from lib.structures import read_split
from lib.system.commands import show_progress
from lib.system.files import write_json

_RECALLS = ("R40", "all")
_FRAMES = (4, 16)  # of a cluster
_KITTI = Path(__file__).resolve().parents[2] / "data" / "KITTI"
_SPACING = 100.0  # [px] between boxes: each detection can match its own object only


def main(argv: Sequence[str] | None = None) -> int:
    """Run the simulation and print the shares."""
    parser = argparse.ArgumentParser(description="How often 95 % intervals hold the expected AP.")
    parser.add_argument("--detectors", type=int, default=200)
    parser.add_argument("--clusters", type=int, default=45, help="default: 45, the drives of KITTI's val split")
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--kitti", action="store_true", help="clusters of the sizes of the val split's 45 drives")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the shares")
    args = parser.parse_args(argv)
    sizes = kitti_sizes() if args.kitti else None
    trials = simulate(args.detectors, args.clusters, args.replicates, args.seed, args.samples, sizes)
    bar = show_progress(trials, "simulation", args.detectors, "detector")
    held = np.array(list(bar)).mean(axis=0)
    names = [f"{recall}, {unit}" for unit in ("clusters", "frames") for recall in _RECALLS]
    shares = {name: share.tolist() for name, share in zip(names, held.reshape(-1, 2), strict=True)}
    rows = [[name, *(f"{share:.1%}" for share in own)] for name, own in shares.items()]
    print(text_table([["share of intervals that hold", "mean AP of samples", "AP of all their frames"], *rows]))
    if args.json is not None:
        write_json(args.json, {**vars(args), "json": str(args.json), "shares": shares})
    return 0


def kitti_sizes() -> np.ndarray:
    """(45,) frames of each drive of KITTI's val split."""
    ids = read_split(_KITTI / "ImageSets" / "val.txt")
    return np.bincount(cluster_frames(ids, _KITTI / "training" / "label_2", _KITTI / "drives.csv").of_frame)


def simulate(
    n_detectors: int,
    n_clusters: int,
    n_replicates: int,
    seed: int,
    n_samples: int = 100,
    sizes: np.ndarray | None = None,
) -> Iterator[np.ndarray]:
    """For each detector whether the interval holds the truth: (by cluster, by frame; ``_RECALLS``; two truths).

    ``sizes`` (C,): frames of each cluster; None: drawn at random for ``n_clusters``.
    """
    for number in range(n_detectors):
        rng = np.random.default_rng((seed, number))
        skill, rate, spread = rng.uniform(-0.5, 2.5), rng.uniform(0.2, 2.0), rng.uniform(0.3, 1.2)
        truths = np.stack([
            np.mean([_ap(rng, n_clusters, skill, rate, spread, sizes) for _ in range(n_samples)], axis=0),
            _ap(rng, n_samples * n_clusters, skill, rate, spread, None if sizes is None else np.tile(sizes, n_samples)),
        ], axis=1)  # fmt: skip
        labels, detections, of_frame = draw_frames(rng, n_clusters, skill, rate, spread, sizes)
        held = []
        for groups in (of_frame, np.arange(len(of_frame))):
            clusters = Clusters(tuple(map(str, range(groups.max() + 1))), groups, "clusters")
            resampling = Resampling(clusters, n_replicates, seed)
            result = evaluate_annotations(labels, detections, ["Car"], resampling=resampling)
            low, high, _ = np.transpose([result.interval("Car", "bbox", recall=recall) for recall in _RECALLS])
            held.append((low[:, None] <= truths) & (truths <= high[:, None]))
        yield np.stack(held)


def _ap(
    rng: np.random.Generator, n_clusters: int, skill: float, rate: float, spread: float, sizes: np.ndarray | None
) -> list[float]:
    labels, detections, _ = draw_frames(rng, n_clusters, skill, rate, spread, sizes)
    result = evaluate_annotations(labels, detections, ["Car"])
    return [result.ap("Car", "bbox", recall=recall) for recall in _RECALLS]


def draw_frames(
    rng: np.random.Generator,
    n_clusters: int,
    skill: float,
    rate: float,
    spread: float,
    sizes: np.ndarray | None = None,
) -> tuple[Annotations, Annotations, np.ndarray]:
    """Labels, detections, and the cluster of each frame (F,)."""
    effects = spread * rng.normal(size=n_clusters if sizes is None else len(sizes))
    sizes = rng.integers(*_FRAMES, size=n_clusters) if sizes is None else sizes
    of_frame = np.repeat(np.arange(len(sizes)), sizes)
    effect = effects[of_frame]
    n_labels = 1 + rng.poisson(3, size=len(of_frame))
    frames = np.repeat(np.arange(len(of_frame)), n_labels)
    places = np.arange(len(frames)) - np.repeat(np.cumsum(n_labels) - n_labels, n_labels)
    found = rng.random(len(frames)) < 1 / (1 + np.exp(-skill - effect[frames]))
    wrong = np.repeat(np.arange(len(of_frame)), rng.poisson(rate * np.exp(-effect)))
    scores = np.concatenate([rng.normal(1 + 0.5 * effect[frames[found]]), rng.normal(size=len(wrong))])
    rows = np.concatenate([frames[found], wrong])
    far = np.concatenate([places[found], 1000 + np.arange(len(wrong)) % 1000])
    return _annotate(frames, places, None, len(of_frame)), _annotate(rows, far, scores, len(of_frame)), of_frame


def _annotate(frames: np.ndarray, places: np.ndarray, scores: np.ndarray | None, n_frames: int) -> Annotations:
    """Cars of equal size, ``places`` apart; only their 2D boxes matter."""
    order = np.argsort(frames, kind="stable")
    values = np.zeros((len(frames), 15))
    x1 = _SPACING * places[order]
    values[:, 3:7] = np.stack([x1, np.full(len(x1), 100.0), x1 + 80, np.full(len(x1), 150.0)], axis=1)
    values[:, 14] = 0.0 if scores is None else scores[order]
    offsets = np.searchsorted(frames[order], np.arange(n_frames + 1))
    return Annotations(offsets, np.zeros(len(frames), dtype=np.int8), values)


if __name__ == "__main__":
    sys.exit(main())
