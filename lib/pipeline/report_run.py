"""Sections of report.html about a run itself: configuration, environment, training curves, files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..config import Config, differences, dump_config
from ..visualization.curves import metric_panels
from ..visualization.html_page import Folded, Gallery, Image, Part, Section, Table
from ..visualization.panels import Panel, panel_png

_FILES = {
    "config.yaml": "the configuration in force",
    "train.log": "messages",
    "evaluate.log": "messages of evaluations (-e)",
    "metrics.jsonl": "losses, learning rate, speed and AP, a line each epoch",
    "curves.png": "the training curves as one image",
}


def configuration(config: Config) -> Section:
    """What differs from the defaults, and folded away, all of it."""
    changed = {key: (_yaml(value), _yaml(default)) for key, (value, default) in differences(config, Config()).items()}
    table = Table(["key", "this run", "default"], [[key, *values] for key, values in changed.items()], text=True)
    whole = yaml.safe_dump(dump_config(config), sort_keys=False)
    parts: list[Part] = ["Where it differs from the defaults:", table, Folded("All of it, as in config.yaml", whole)]
    return Section("configuration", "Configuration", parts)


def environment(versions: Mapping[str, str]) -> Section:
    """``versions``: as ``lib.system.environment`` logged them, empty if there is no log."""
    table = Table(["", "version"], list(versions.items()), text=True)
    return Section("environment", "Environment", [table if versions else "There is no train.log that tells it."])


def curves(name: str, records: Sequence[Mapping[str, Any]]) -> Section:
    """``records``: the lines of metrics.jsonl."""
    panels = metric_panels({name: records}) if records else []
    return Section("curves", "Training curves", [gallery(panels) if panels else "metrics.jsonl records no epoch."])


def gallery(panels: Sequence[Panel]) -> Gallery:
    """Plots, each as an image of its own."""
    return Gallery([Image(panel_png(panel), f"Plot: {panel.title}, over {panel.x_label}") for panel in panels])


def evaluations(run_dir: Path) -> list[Path]:
    """Every results/<checkpoint>/<split> of a run."""
    return sorted(data.parent for data in run_dir.glob("results/*/*/data") if data.is_dir())


def files(run_dir: Path) -> Section:
    """What the run has written, and where it is."""
    rows = [[name, meaning, _size(run_dir / name)] for name, meaning in _FILES.items() if (run_dir / name).is_file()]
    for path in sorted((run_dir / "checkpoints").glob("*.pth")):
        rows.append([f"checkpoints/{path.name}", "weights, optimizer and place in the run", _size(path)])
    for folder in evaluations(run_dir):
        place = folder.relative_to(run_dir)
        rows.append([f"{place}/data/", "detections, a KITTI text file each frame", _count(folder / "data", "*.txt")])
        if (folder / "ap.json").is_file():
            rows.append([f"{place}/ap.json", "average precision, all figures", _size(folder / "ap.json")])
        if (folder / "depth_error.json").is_file():
            rows.append([f"{place}/depth_error.json", "depth errors by distance", _size(folder / "depth_error.json")])
        if (folder / "images").is_dir():
            rows.append([f"{place}/images/", "some frames with detections", _count(folder / "images", "*.jpg")])
    return Section("files", "Files", [f"In {run_dir.resolve()}:", Table(["file", "what", "size"], rows, text=True)])


def _yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, default_flow_style=True, width=10000)).removesuffix("\n").removesuffix("\n...")


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _count(folder: Path, pattern: str) -> str:
    return f"{sum(1 for _ in folder.glob(pattern))} files"
