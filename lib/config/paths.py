"""Paths that a configuration names, relative to the project root."""

from pathlib import Path

from .schema import Config

_ABOVE = Path(__file__).resolve().parents[2]
# of the installed package, which has no project around it: the working directory
PROJECT_ROOT = _ABOVE if (_ABOVE / "make_obj_depth.py").is_file() else Path()


def find_dataroot(config: Config) -> Path:
    """The folder of ``general.dataroot``, which is relative to the project root.

    Official files contain ``../../data``, relative to experiments/<name>/: if there is no such folder, leading ``..``
    are dropped, and a folder that contains ``KITTI`` is replaced by that subfolder.

    Raises FileNotFoundError where no such folder contains ImageSets/.
    """
    given = _expand(config.general.dataroot, "general.dataroot")
    stripped = Path(*(part for part in given.parts if part != ".."))
    candidates = [given] if given.is_absolute() else [PROJECT_ROOT / given, PROJECT_ROOT / stripped]
    for candidate in candidates:
        for folder in (candidate, candidate / "KITTI"):
            if (folder / "ImageSets").is_dir():
                return folder.resolve()
    raise FileNotFoundError(
        f"general.dataroot={config.general.dataroot!r}: no folder ImageSets in {candidates[0]} or its KITTI/; "
        "expected KITTI's layout (ImageSets/, training/image_2, calib, label_2); KITTI's download does not contain "
        "ImageSets/: copy data/KITTI/ImageSets of this project"
    )


def find_file(name: str, key: str) -> Path:
    """A file relative to the project root (as in a YAML file) or to the working directory (as on a command line).

    ``key``: the key or option that names the file, for messages. Raises FileNotFoundError, or ValueError where both
    folders contain such a file.
    """
    given = _expand(name, key)
    found = [place for place in (PROJECT_ROOT / given, given) if place.is_file()]
    if not found:
        raise FileNotFoundError(f"{key}: no file {name!r}; looked for {PROJECT_ROOT / given}, {given.absolute()}")
    if not found[0].samefile(found[-1]):
        raise ValueError(f"{key}: {name!r} may mean {found[0]} or {found[1].absolute()}; give the full path of one")
    return found[0]


def _expand(name: str, key: str) -> Path:
    """``name`` with the home folder in place of ~."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise FileNotFoundError(f"{key}: {name!r}: there is no such user") from None
