"""Data for ``tools/diagnose.py``: a network's detections with their diagnosis, and labelled frames for the ceiling."""

import logging
from pathlib import Path

from ..config import Config, find_dataroot
from ..datasets import KITTI, build_dataset
from ..datasets.images import read_size_table
from ..datasets.samples import inference_loader
from ..datasets.split_labels import review_labels
from ..engine.device import choose_device
from ..engine.inference import decode_settings, predict
from ..engine.network import load_network
from ..engine.run_folder import find_checkpoint
from ..models import build_model
from ..models.folding import fold_batch_norm
from ..ops.text import counted
from ..structures import Calibration, FrameInfo, read_objects, read_split
from .ceiling import LabelledFrame
from .oracle import Oracle, replace_and_evaluate

logger = logging.getLogger(__name__)


def diagnose_network(config: Config, checkpoint: str, split: str, max_frames: int = 0) -> tuple[Path, int, Oracle]:
    """Run the network over a split, replace each quantity by ground truth, and measure depth errors.

    ``checkpoint``: see ``find_checkpoint``. ``max_frames``: only the first frames of the split; 0: all. Returns the
    checkpoint's path, the number of frames and the figures. Raises FileNotFoundError or ValueError for a checkpoint or
    data that are missing, broken or do not fit.
    """
    path = find_checkpoint(checkpoint, Path("outputs") / config.general.exp_name, "--checkpoint ")
    dataset = build_dataset(config, split, max_frames=max_frames)
    model = load_network(path, build_model, config).model
    device = choose_device(config.trainer.gpu_ids)
    logger.info("%s on %s of split %s in %s", path, counted(len(dataset), "frame"), split, dataset.data_dir)
    loader = inference_loader(dataset, config)
    results = predict(fold_batch_norm(model), loader, decode_settings(config), config.tester.topk, device)
    detections = [objects for _, objects in results]
    frames = labelled_frames(dataset)
    cameras, labels = [frame.info.calibration for frame in frames], [frame.objects for frame in frames]
    oracle = replace_and_evaluate(labels, detections, cameras, config.dataset.writelist, config.tester.own_overlaps)
    return path, len(dataset), oracle


def labelled_frames(dataset: KITTI) -> list[LabelledFrame]:
    """The labels of a data set, without those of unreadable frames."""
    frames = zip(dataset.frame_ids, dataset.image_sizes, dataset.annotations, strict=True)
    return [LabelledFrame(FrameInfo(i, size, a[0]), a[1]) for i, size, a in frames if not isinstance(a, Exception)]


def frames_of_folders(
    config: Config, split: str, max_frames: int, label_dir: Path, calib_dir: Path, size_table: Path
) -> list[LabelledFrame]:
    """The labels of a split without its images: from other folders and a table of image sizes."""
    sizes = read_size_table(size_table)
    ids = read_split(find_dataroot(config) / "ImageSets" / f"{split}.txt")[: max_frames or None]
    missing = [i for i in ids if i not in sizes]
    if missing:
        raise ValueError(f"{size_table}: {len(missing)} of {len(ids)} frames are missing, the first is {missing[0]}")
    infos = [FrameInfo(i, sizes[i], Calibration.from_file(calib_dir / f"{i}.txt")) for i in ids]
    names = config.dataset.class_names
    labels = [read_objects(label_dir / f"{i}.txt", class_names=names) for i in ids]
    images = [(info.image_size, info.calibration, objects) for info, objects in zip(infos, labels, strict=True)]
    return [LabelledFrame(*frame) for frame in zip(infos, review_labels(images, ids, label_dir, split), strict=True)]
