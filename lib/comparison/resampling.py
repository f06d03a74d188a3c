"""AP40 and depth errors of finished runs in the replicates of a bootstrap over drives or frames.

Every run has the same draws.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ..analysis.depth_error import resample_depth_errors
from ..datasets import KITTI, build_dataset
from ..evaluation import Resampling, cluster_frames, evaluate_annotations, read_annotations, type_names_for
from ..system.commands import show_progress
from .figures import FOUND, MEDIAN_ERROR, ap_name
from .planning import PlannedRun

_EQUAL = 1e-6  # [%] that AP may differ by rounding
Replicates = dict[str, np.ndarray]  # figure -> (R,), its value in each replicate


class Resampled(NamedTuple):
    description: str  # '1000 replicates of 45 drives (KITTI's), seed 0'; or why there are none
    unit: str  # 'drives' or 'frames'
    runs: Mapping[tuple[str, int], Replicates]  # by arm and seed


def resample_runs(runs: Iterable[tuple[PlannedRun, Mapping[str, float]]], n_replicates: int) -> Resampled:
    """Evaluate the result files of each run again; beside each run are its figures.

    Without all labels and result files, and with different frames, there are no replicates.
    """
    found: dict[tuple[str, int], Replicates] = {}
    datasets: dict[str, KITTI] = {}
    first: Resampling | None = None
    others = 0
    try:
        for run, figures in show_progress(list(runs), "replicates", unit="run"):
            key = repr((run.config.general.dataroot, run.config.dataset, run.config.tester.split))
            if key not in datasets:
                datasets[key] = build_dataset(run.config, run.config.tester.split)
            dataset = datasets[key]
            resampling = Resampling(cluster_frames(dataset.frame_ids, dataset.label_dir), n_replicates)
            first = first or resampling
            if not resampling.has_draws_of(first):
                return Resampled("none: the runs have different frames", "", {})
            found[run.arm, run.seed], ap = _resample(run, dataset, resampling)
            others += any(abs(value - figures.get(name, value)) > _EQUAL for name, value in ap.items())
    except (OSError, ValueError) as error:
        return Resampled(f"none: {error}", "", {})
    if first is None:
        return Resampled("none: no run is finished", "", {})
    warning = f"; ap.json of {others} runs has other figures than their result files" if others else ""
    return Resampled(first.describe() + warning, first.clusters.unit, found)


def _resample(run: PlannedRun, dataset: KITTI, resampling: Resampling) -> tuple[Replicates, dict[str, float]]:
    """The replicates, and the figures of all frames."""
    classes = run.config.dataset.evaluated_classes
    names = type_names_for(classes)
    labels = read_annotations(dataset.label_dir, dataset.frame_ids, False, names)
    detections = read_annotations(run.results / "data", dataset.frame_ids, True, names)
    overlaps = run.config.tester.own_overlaps
    result = evaluate_annotations(labels, detections, classes, own_overlaps=overlaps, resampling=resampling)
    assert result.replicates is not None
    values: Replicates = {}
    ap: dict[str, float] = {}
    for (overlap, cls, metric, difficulty, recall), own in result.replicates.values.items():
        if recall == "R40":
            name = ap_name(cls, metric, difficulty, overlap)
            values[name], ap[name] = own, result.ap(cls, metric, difficulty, overlap)
    for cls in classes:
        medians, found = resample_depth_errors(labels, detections, cls, resampling.draw())
        values |= {f"{cls} {MEDIAN_ERROR}": medians, f"{cls} {FOUND}": 100 * found}
    return values, ap
