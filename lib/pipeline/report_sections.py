"""Sections of report.html about the run itself: configuration, environment, training curves, files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..config import Config, differences, dump_config
from ..visualization.curves import metric_panels
from ..visualization.html_page import Folded, Gallery, Image, Section, Table
from ..visualization.panels import Panel, render_panels

_FILES = {
    "config.yaml": "the configuration",
    "environment.json": "time and versions of each start",
    "train.log": "messages",
    "evaluate.log": "messages of evaluations (-e)",
    "metrics.jsonl": "losses, learning rate, speed and AP, one line per epoch",
    "curves.png": "the training curves as one image",
}
_RESULTS = {
    "ap.json": "average precision, all figures",
    "depth_error.json": "depth errors by distance",
    "data/": "detections, one KITTI text file per frame",
    "images/": "some frames with detections",
}


def configuration(config: Config) -> Section:
    """The differences from the defaults, and the whole configuration folded."""
    changed = differences(Config(), config)
    rows = [[key, _to_yaml(own), _to_yaml(default)] for key, (default, own) in changed.items()]
    table = Table(["key", "this run", "default"], rows, text=True)
    whole = Folded("All keys, as in config.yaml", yaml.safe_dump(dump_config(config), sort_keys=False))
    return Section("configuration", "Configuration", ["Differences from the defaults:", table, whole])


def environment(starts: Sequence[Mapping[str, Any]]) -> Section:
    """The versions of the last start. ``starts``: the entries of environment.json."""
    rows = [[name, str(version)] for start in starts[-1:] for name, version in start["versions"].items()]
    unknown = "Unknown: there is no environment.json, which version 0.1 did not write."
    return Section("environment", "Environment", [Table(["", "version"], rows, text=True) if starts else unknown])


def training_curves(name: str, records: Sequence[Mapping[str, Any]]) -> Section:
    """``records``: the lines of metrics.jsonl."""
    part = gallery(metric_panels({name: records})) if records else "metrics.jsonl has no epoch."
    return Section("curves", "Training curves", [part])


def gallery(panels: Sequence[Panel]) -> Gallery:
    """Plots, each as an image of its own."""
    titles = [f"Plot: {panel.title}, over {panel.x_label}" for panel in panels]
    return Gallery([Image(render_panels([panel], columns=1), t) for panel, t in zip(panels, titles, strict=True)])


def find_evaluations(run_dir: Path) -> list[Path]:
    """Every results/<checkpoint>/<split> of a run, in the order in which they were written."""
    folders = sorted(data for data in run_dir.glob("results/*/*/data") if data.is_dir())
    return [data.parent for data in sorted(folders, key=lambda data: data.stat().st_mtime)]


def files(run_dir: Path) -> Section:
    """The files of the run, with their sizes."""
    paths = [(run_dir / name, meaning) for name, meaning in _FILES.items()]
    paths += [(path, "model, optimizer and progress") for path in sorted((run_dir / "checkpoints").glob("*.pth"))]
    for folder in find_evaluations(run_dir):
        paths += [(folder / name, meaning) for name, meaning in _RESULTS.items()]
    rows = [
        [f"{path.relative_to(run_dir)}{'/' if path.is_dir() else ''}", meaning, _format_size(path)]
        for path, meaning in paths
        if path.exists()
    ]
    return Section("files", "Files", [f"In {run_dir.resolve()}:", Table(["file", "content", "size"], rows, text=True)])


def _to_yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, default_flow_style=True, width=10000)).removesuffix("\n").removesuffix("\n...")


def _format_size(path: Path) -> str:
    if path.is_dir():
        return f"{sum(1 for _ in path.iterdir())} files"
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
