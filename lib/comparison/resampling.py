"""The AP40 of finished runs in the replicates of a bootstrap over drives or frames; every run has the same draws."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ..datasets import KITTI, build_dataset
from ..evaluation import Resampling, cluster_frames, evaluate_annotations, read_annotations, type_names_for
from ..system.commands import show_progress
from .figures import ap_name
from .planning import PlannedRun

Replicates = dict[str, np.ndarray]  # figure -> (R,), its value in each replicate


class Resampled(NamedTuple):
    description: str  # '1000 replicates of 45 drives (KITTI's), seed 0'; or why there are none
    unit: str  # 'drives' or 'frames'
    runs: Mapping[tuple[str, int], Replicates]  # by arm and seed


def resample_runs(runs: Iterable[PlannedRun], n_replicates: int) -> Resampled:
    """Evaluate the result files of each run again. Without all labels and result files there are no replicates."""
    found: dict[tuple[str, int], Replicates] = {}
    datasets: dict[str, KITTI] = {}
    drawn: dict[str, Resampling] = {}
    try:
        for run in show_progress(list(runs), "replicates", unit="run"):
            key = repr((run.config.general.dataroot, run.config.dataset, run.config.tester.split))
            if key not in datasets:
                datasets[key] = build_dataset(run.config, run.config.tester.split)
            dataset = datasets[key]
            resampling = Resampling(cluster_frames(dataset.frame_ids, dataset.label_dir), n_replicates)
            found[run.arm, run.seed] = _resample(run, dataset, resampling)
            drawn[resampling.describe()] = resampling
    except (OSError, ValueError) as error:
        return Resampled(f"none: {error}", "", {})
    if len(drawn) != 1:
        return Resampled(f"none: {'the runs have different frames' if drawn else 'no run is finished'}", "", {})
    ((description, resampling),) = drawn.items()
    return Resampled(description, resampling.clusters.unit, found)


def _resample(run: PlannedRun, dataset: KITTI, resampling: Resampling) -> Replicates:
    classes = run.config.dataset.evaluated_classes
    names = type_names_for(classes)
    labels = read_annotations(dataset.label_dir, dataset.frame_ids, False, names)
    detections = read_annotations(run.results / "data", dataset.frame_ids, True, names)
    overlaps = run.config.tester.own_overlaps
    result = evaluate_annotations(labels, detections, classes, own_overlaps=overlaps, resampling=resampling)
    assert result.replicates is not None
    return {
        ap_name(cls, metric, difficulty, overlap): own
        for (overlap, cls, metric, difficulty, recall), own in result.replicates.values.items()
        if recall == "R40"
    }
