"""Data for ``tools/diagnose.py``: a network's detections with their diagnosis, and labelled frames for the ceiling."""

import logging
from pathlib import Path
from typing import NamedTuple

from ..config import Config, find_dataroot
from ..datasets import KITTI, build_dataset
from ..datasets.images import read_size_table
from ..datasets.samples import inference_loader
from ..engine.device import choose_device
from ..engine.inference import decode_settings, predict
from ..engine.network import load_network
from ..engine.run_folder import find_checkpoint
from ..evaluation import Annotations, type_names_for
from ..models import build_model
from ..models.folding import fold_batch_norm
from ..structures import Calibration, FrameInfo, read_objects, read_split
from .ceiling import LabelledFrame
from .depth_error import DepthErrors, depth_errors
from .oracle import Oracle, replace_and_evaluate

logger = logging.getLogger(__name__)


class Diagnosis(NamedTuple):
    """The diagnosis of one network on one split."""

    checkpoint: Path
    n_frames: int
    oracle: Oracle
    depth_errors: list[DepthErrors]
    """one for each class"""


def diagnose_network(config: Config, checkpoint: str, split: str, max_frames: int = 0) -> Diagnosis:
    """Run the network over a split, replace each quantity by ground truth, and measure depth errors.

    ``checkpoint``: see ``find_checkpoint``. ``max_frames``: only the first frames of the split; 0: all. Raises
    FileNotFoundError or ValueError for a checkpoint or data that are missing, broken or do not fit.
    """
    path = find_checkpoint(checkpoint, Path("outputs") / config.general.exp_name, "--checkpoint ")
    dataset = build_dataset(config, split, max_frames=max_frames)
    model = load_network(path, build_model, config).model
    device = choose_device(config.trainer.gpu_ids)
    logger.info("%s on the %d frames of split %s in %s", path, len(dataset), split, dataset.data_dir)
    loader = inference_loader(dataset, config)
    results = predict(fold_batch_norm(model), loader, decode_settings(config), config.tester.topk, device)
    detections = [objects for _, objects in results]
    frames = _labelled_frames(dataset)
    calibrations, labels = [frame.info.calibration for frame in frames], [frame.objects for frame in frames]
    classes = config.dataset.writelist
    oracle = replace_and_evaluate(labels, detections, calibrations, classes, config.tester.own_overlaps)
    names = type_names_for(classes)
    pair = Annotations.from_objects(labels, False, names), Annotations.from_objects(detections, True, names)
    return Diagnosis(path, len(dataset), oracle, [depth_errors(*pair, cls) for cls in classes])


def frames_of_split(config: Config, split: str, max_frames: int = 0) -> list[LabelledFrame]:
    """The labels of a split of the configured data set. Raises FileNotFoundError or ValueError."""
    return _labelled_frames(build_dataset(config, split, max_frames=max_frames))


def frames_of_folders(
    config: Config, split: str, max_frames: int, label_dir: Path, calib_dir: Path, size_table: Path
) -> list[LabelledFrame]:
    """The same without images: the split's ids, and everything else from other folders and a table of image sizes."""
    sizes = read_size_table(size_table)
    ids = read_split(find_dataroot(config) / "ImageSets" / f"{split}.txt")[: max_frames or None]
    missing = [i for i in ids if i not in sizes]
    if missing:
        raise ValueError(f"{size_table}: {len(missing)} of {len(ids)} frames are missing, the first is {missing[0]}")
    infos = (FrameInfo(i, sizes[i], Calibration.from_file(calib_dir / f"{i}.txt")) for i in ids)
    return [LabelledFrame(info, read_objects(label_dir / f"{info.frame_id}.txt")) for info in infos]


def _labelled_frames(dataset: KITTI) -> list[LabelledFrame]:
    frames = zip(dataset.frame_ids, dataset.image_sizes, dataset.annotations, strict=True)
    return [LabelledFrame(FrameInfo(i, size, a[0]), a[1]) for i, size, a in frames if not isinstance(a, Exception)]
