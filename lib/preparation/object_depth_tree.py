"""Write the object-wise depth maps of a whole KITTI tree, as make_obj_depth.py does."""

from collections import Counter
from functools import partial
from pathlib import Path

from ..datasets.images import IMAGE_SUFFIXES, find_image, read_image_header
from ..datasets.kitti import find_data_dir, find_label_dir
from ..datasets.object_depth import PAINTED_TYPES, SUFFIXES, paint_object_depth, read_object_depth, write_object_depth
from ..structures import list_ids, read_objects
from ..system.commands import show_progress
from ..system.files import remove_leftovers
from ..system.machine import available_cores
from ..system.threads import map_ahead


def write_object_depth_maps(root: Path, force: bool = False, suffix: str = ".npy") -> str:
    """Write the maps of both folders for every label file with an image, in threads, with a progress bar.

    Maps that are up to date are kept, unless ``force`` is set. Returns a summary of a few lines. Raises
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
        remove_leftovers(training / name, min_age=3600)
    threads = min(available_cores(), 16)
    counts = map_ahead(partial(_write_frame, training, force, suffix), usable, threads, 2 * threads)
    written, painted, deleted = Counter[str](), Counter[str](), 0
    try:
        for maps, old in show_progress(counts, "object-wise depth", len(usable)):
            written.update(maps.keys())
            painted.update(name for name, has_objects in maps.items() if has_objects)
            deleted += old
    except (OSError, ValueError) as error:
        raise ValueError(f"{error} ({written.total()} maps were written before that; they are complete)") from None
    kept = len(usable) * len(PAINTED_TYPES) - written.total()
    lines = [f"{written.total()} maps written, {kept} were there already: {training}/{{{','.join(PAINTED_TYPES)}}}"]
    for name in written:
        if not painted[name]:
            types = " or ".join(PAINTED_TYPES[name] or ("any type",))
            lines.append(f"warning: the {written[name]} new maps in {name} are empty: no label of {types} to paint")
    if deleted:
        lines.append(f"{deleted} maps of the other format were deleted")
    if len(usable) < len(labels):
        images = training / "image_2"
        lines.append(f"{len(labels) - len(usable)} label files without an image in {images} were left out")
    return "\n".join(lines)


def _write_frame(training: Path, force: bool, suffix: str, label: Path) -> tuple[dict[str, bool], int]:
    """Write a frame's maps that are missing, unfit or older than the label, or all of them (``force``).

    Returns for each folder with a new map whether it shows an object, and how many maps of the other format were
    deleted.
    """
    size = read_image_header(find_image(training / "image_2", label.stem)).size
    maps = {name: training / name / f"{label.stem}{suffix}" for name in PAINTED_TYPES}
    outdated = [name for name, path in maps.items() if force or not _is_up_to_date(path, size, label)]
    objects = read_objects(label) if outdated else []
    written = {}
    for name in outdated:
        depth_map = paint_object_depth(objects, size, PAINTED_TYPES[name])
        write_object_depth(maps[name], depth_map)
        written[name] = bool(depth_map.any())
    others = [path.with_suffix(other) for path in maps.values() for other in SUFFIXES if other != suffix]
    superseded = [path for path in others if path.is_file()]
    for path in superseded:
        path.unlink()
    return written, len(superseded)


def _is_up_to_date(path: Path, size: tuple[int, int], label: Path) -> bool:
    try:
        read_object_depth(path, size)
    except (FileNotFoundError, ValueError):
        return False
    return path.stat().st_mtime >= label.stat().st_mtime
