"""Write the object-wise depth maps of a whole KITTI tree, as make_obj_depth.py does."""

from functools import partial
from pathlib import Path

from tqdm import tqdm

from ..datasets.images import IMAGE_SUFFIXES, find_image, read_image_header
from ..datasets.kitti import find_data_dir, find_label_dir
from ..datasets.object_depth import PAINTED_TYPES, SUFFIXES, paint_object_depth, read_object_depth, write_object_depth
from ..structures import list_ids, read_objects
from ..system.commands import progress_interval
from ..system.machine import available_cores
from ..system.threads import map_ahead


def write_object_depth_maps(root: Path, force: bool = False, suffix: str = ".npy") -> str:
    """Write the maps of both folders for every label file with an image, in threads, with a progress bar.

    Maps that are up to date are kept, unless ``force`` is set. Returns a summary of one to three lines. Raises
    FileNotFoundError or ValueError for the first bad file.
    """
    training = find_data_dir(root, "training")
    label_dir = find_label_dir(training)
    labels = [label_dir / f"{frame_id}.txt" for frame_id in list_ids(label_dir)]
    if not labels:
        raise FileNotFoundError(f"{label_dir}: no label files (*.txt)")
    usable = [path for path in labels if find_image(training / "image_2", path.stem).is_file()]
    if not usable:
        images, suffixes = training / "image_2", " or ".join(IMAGE_SUFFIXES)
        raise FileNotFoundError(f"{images}: no image ({suffixes}) for any of the {len(labels)} label files")
    for name in PAINTED_TYPES:
        (training / name).mkdir(exist_ok=True)
    threads = min(available_cores(), 16)
    counts = map_ahead(partial(_write_frame, training, force, suffix), usable, threads, 2 * threads)
    written = deleted = 0
    try:
        for new, old in tqdm(counts, "object-wise depth", len(usable), unit="frame", mininterval=progress_interval()):
            written, deleted = written + new, deleted + old
    except (OSError, ValueError) as error:
        raise ValueError(f"{error} ({written} maps were written before that; they are complete)") from None
    kept = len(usable) * len(PAINTED_TYPES) - written
    lines = [f"{written} maps written, {kept} were there already: {training}/{{{','.join(PAINTED_TYPES)}}}"]
    if deleted:
        lines.append(f"{deleted} maps of the other format were deleted")
    if len(usable) < len(labels):
        images = training / "image_2"
        lines.append(f"{len(labels) - len(usable)} label files without an image in {images} were left out")
    return "\n".join(lines)


def _write_frame(training: Path, force: bool, suffix: str, label: Path) -> tuple[int, int]:
    """Write a frame's maps that are missing, unfit or older than the label, or all of them (``force``).

    Returns how many maps were written, and how many of the other format were deleted.
    """
    size = read_image_header(find_image(training / "image_2", label.stem)).size
    maps = {name: training / name / f"{label.stem}{suffix}" for name in PAINTED_TYPES}
    outdated = [name for name, path in maps.items() if force or not _is_up_to_date(path, size, label)]
    objects = read_objects(label) if outdated else []
    for name in outdated:
        write_object_depth(maps[name], paint_object_depth(objects, size, PAINTED_TYPES[name]))
    others = [path.with_suffix(other) for path in maps.values() for other in SUFFIXES if other != suffix]
    superseded = [path for path in others if path.is_file()]
    for path in superseded:
        path.unlink()
    return len(outdated), len(superseded)


def _is_up_to_date(path: Path, size: tuple[int, int], label: Path) -> bool:
    try:
        read_object_depth(path, size)
    except (FileNotFoundError, ValueError):
        return False
    return path.stat().st_mtime >= label.stat().st_mtime
