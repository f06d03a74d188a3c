"""Training curves of one and of several runs: content, how lines differ, and input that cannot be drawn."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from lib.analysis.depth_error import depth_errors
from lib.engine.metrics import read_metrics
from lib.evaluation import DIFFICULTIES, Annotations, evaluate_annotations
from lib.pipeline.training_curves import name_runs
from lib.structures import Object3d
from lib.visualization.curves import metric_panels
from lib.visualization.evaluation_panels import depth_error_panels, precision_panels
from lib.visualization.panels import Line, Panel, draw_panel, render_panels
from tools import plot_run


def record(epoch, scale=1.0, **more):
    losses = {"heatmap": scale / epoch, "depth": 2 * scale / epoch, "total": 3 * scale / epoch}
    return {"epoch": epoch, "lr": 0.001, "losses": losses, "samples_per_second": 9.5, **more}


def write_run(folder, records, tail=""):
    folder.mkdir(parents=True)
    text = "".join(json.dumps(entry) + "\n" for entry in records) + tail
    (folder / "metrics.jsonl").write_text(text)
    return folder


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a = [record(k, ap={"Car 3D moderate AP40": 3.0 * k if k % 2 == 0 else None}) for k in range(1, 7)]
    b = [record(k, 0.5) for k in range(1, 4)]
    for entry in b:
        entry["losses"]["quasi_isometric"] = 0.1
    return [str(write_run(tmp_path / "outputs" / name, own)) for name, own in (("one", a), ("_two$", b))]


def shows(image, colour):
    """Number of pixels of this colour, '#rrggbb'."""
    bgr = [int(colour[k : k + 2], 16) for k in (5, 3, 1)]
    return int((np.abs(image.astype(int) - bgr).max(axis=2) < 12).sum())


def texts(svg):
    """The texts of an SVG by matplotlib, which draws each as paths after a comment that contains it."""
    return [html.unescape(text).strip() for text in re.findall(r"<!-- (.*?) -->", svg.decode())]


def test_one_run_is_drawn_into_its_folder(runs, tmp_path, capsys):
    for _ in range(2):  # the second time it is replaced without --overwrite
        assert plot_run.main([runs[0]]) == 0
    path = tmp_path / "outputs/one/curves.png"
    assert "one (6 epochs)" in capsys.readouterr().out
    image = cv2.imread(str(path))
    assert shows(image, "#0072B2") > 500 and shows(image, "#D55E00") == 0
    assert sorted(p.name for p in path.parent.iterdir()) == ["curves.png", "metrics.jsonl"]


def test_several_runs_share_panels_and_a_legend(runs, tmp_path):
    assert plot_run.main([*runs, "--out", "both.svg"]) == 0
    said = texts((tmp_path / "both.svg").read_bytes())
    titles = ["loss: total", "loss: heatmap", "loss: depth", "loss: quasi_isometric", "learning rate"]
    titles += ["images per second", "Car 3D moderate AP40"]
    assert [text for text in said if text in titles] == titles
    assert said.count("one") == 1 and said.count("_two$") == 1
    assert plot_run.main(runs) == 0
    image = cv2.imread(str(tmp_path / "curves.png"))
    assert shows(image, "#0072B2") > 500 and shows(image, "#D55E00") > 500
    assert plot_run.main([*runs, "--out", "both.PDF"]) == 0
    assert (tmp_path / "both.PDF").read_bytes().startswith(b"%PDF")


def test_panels_hold_the_records(runs):
    records = {Path(run).name: read_metrics(Path(run) / "metrics.jsonl") for run in runs}
    panels = {panel.title: panel for panel in metric_panels(records)}
    (one, two) = panels["loss: depth"].lines
    assert (one.label, two.label) == ("one", "_two$")
    assert one.x == [1, 2, 3, 4, 5, 6] and two.y == [1.0, 0.5, 1 / 3]
    looks = one.plot_options, two.plot_options
    assert looks[0]["color"] != looks[1]["color"] and looks[0]["linestyle"] != looks[1]["linestyle"]
    (own,) = panels["loss: quasi_isometric"].lines  # only the second run has it; it looks the same in all panels
    assert own.label == "_two$" and own.plot_options == looks[1]
    limits = {panel.x_limits for panel in panels.values()}
    assert len(limits) == 1 and 0.5 < limits.pop()[0] < 1
    (ap,) = panels["Car 3D moderate AP40"].lines
    assert (ap.x, ap.y) == ([2, 4, 6], [6.0, 12.0, 18.0])


def test_many_runs_look_different_from_one_another():
    looks = [Line("", [], [], number).plot_options for number in range(35)]
    assert len({(str(look["color"]), str(look["linestyle"])) for look in looks}) == 35


def test_names_with_other_meanings_to_matplotlib():
    names = ["$x", "$y_{", "_hidden", "a$b$c", "<&>"]
    panels = metric_panels({name: [record(1), record(2)] for name in names})
    assert texts(render_panels(panels, ".svg", shared_legend=True))[-5:] == names
    assert render_panels([Panel("$z_{", [], "$")], columns=1).startswith(b"\x89PNG")


CAR = Object3d("Car", 0.0, 0, 0.0, (500.0, 150.0, 600.0, 260.0), (1.5, 1.6, 4.0), (-1.0, 1.65, 14.0), 1.2)


def test_panels_of_an_evaluation():
    """Three frames with one car each: found, found 2 m too far, missed."""
    found = [[replace(CAR, score=0.9)], [replace(CAR, score=0.8, location_cam=(-1.0, 1.65, 16.0))], []]
    pair = Annotations.from_objects([[CAR]] * 3, False), Annotations.from_objects(found, True)
    result = evaluate_annotations(*pair, ["Car", "Cyclist"])
    panels = precision_panels(result)
    assert [panel.title for panel in panels] == [f"{c}, {m}" for c in ("Car", "Cyclist") for m in ("2D", "BEV", "3D")]
    assert [len(panel.drawn_lines) for panel in panels] == [3, 6, 6, 0, 0, 0]
    labels = [f"{name}, {kind}" for kind in ("official", "loose") for name in DIFFICULTIES]
    assert [line.label.partition(":")[0] for line in panels[2].lines] == labels
    line = panels[2].lines[1]
    assert line.label.endswith(f": {result.ap('Car', '3d'):.2f}") and line.style == "solid"
    assert line.y[0] == 1.0 and line.x == [k / 40 for k in range(len(line.y))] and line.x[-1] < 0.5
    assert precision_panels(result, ["Cyclist"]) == panels[3:]

    errors = depth_error_panels([depth_errors(*pair, "Car")])
    values = {panel.title.partition(" ")[0]: panel.lines[0].y[1] for panel in errors}  # the band from 10 to 20 m
    assert values["median"] == pytest.approx(1.0) and values["found"] == pytest.approx(200 / 3)
    assert errors[0].x_ticks == list(range(0, 80, 10)) and errors[0].lines[0].x[:2] == [5.0, 15.0]
    assert [len(panel.drawn_lines) for panel in errors] == [1, 1, 1, 1]


def test_gaps_and_empty_panels_are_drawn():
    nan, inf = float("nan"), float("inf")
    panels = [
        Panel("gaps", [Line("a", [1, 2, 3, 4], [1.0, nan, inf, 2.0]), Line("b", [1, 2], [nan, nan])], "x"),
        Panel("empty", [Line("b", [1], [nan]), Line("c", [], [])], "x", legend_title="", empty_text="not a thing"),
        *depth_error_panels([]),
    ]
    assert [len(panel.drawn_lines) for panel in panels] == [1, 0, 0, 0, 0, 0]
    said = texts(render_panels(panels, ".svg"))
    assert "not a thing" in said and said.count("nothing was found") == 4
    assert render_panels([]).startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_one_line(runs, tmp_path, capsys):
    def error(*arguments):
        assert plot_run.main(list(arguments)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "nowhere: no such folder of a run" in error(runs[0], "nowhere")
    (tmp_path / "empty").mkdir()
    assert "empty: has no metrics.jsonl; is it the folder of a training" in error("empty")
    (tmp_path / "empty/metrics.jsonl").write_text("")
    assert "empty/metrics.jsonl: no epoch is recorded" in error("empty")
    assert "--out must end in .png, .pdf, .svg, got 'x.gif'" in error(runs[0], "--out", "x.gif")
    assert "is a folder" in error(runs[0], "--out", "empty")
    assert "is given twice" in error(runs[0], runs[0] + "/")
    (tmp_path / "there.png").write_bytes(b"mine")
    assert "there.png exists already; --overwrite replaces it" in error(runs[0], "--out", "there.png")
    assert (tmp_path / "there.png").read_bytes() == b"mine"
    assert plot_run.main([runs[0], "--out", "there.png", "--overwrite"]) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "outputs", "there.png"]


def test_runs_of_the_same_name_are_labelled_with_their_paths():
    assert list(name_runs([Path("a/same"), Path("b/same"), Path("c")])) == ["a/same", "b/same", "c"]


@pytest.mark.parametrize(
    "broken",
    ['{"epoch": 7, "lr": 0.0', "7", '{"epoch": "7", "losses": {}}', '{"epoch": 7, "losses": []}',
     '{"epoch": 7, "losses": {"total": "high"}}', '{"epoch": 7, "losses": {}, "ap": 3}', "\ufffd"],
)  # fmt: skip
def test_a_broken_line_is_left_out_with_a_warning(tmp_path, broken, caplog):
    run = write_run(tmp_path / "run", [record(1), record(2)], broken + "\n" + json.dumps(record(8)))
    assert [r["epoch"] for r in read_metrics(run / "metrics.jsonl")] == [1, 2, 8]
    assert "run/metrics.jsonl, line 3: not a whole record of an epoch; left out" in caplog.text
    (run / "metrics.jsonl").write_text(broken + "\n")
    assert plot_run.main([str(run)]) == 2


def test_a_legend_lies_below_its_axes_and_constant_data_get_a_sensible_axis():
    panel = Panel("p", [Line(f"line {k}", [0, 1], [k, 1]) for k in range(5)], "x", "y", (0, 1), (0, 1), None, "title")
    figure = Figure(figsize=(3.2, 2.4 + panel.legend_height), layout="constrained")
    axes = figure.add_subplot()
    draw_panel(axes, panel)
    figure.draw_without_rendering()
    assert axes.get_legend().get_window_extent().y1 < axes.get_window_extent().y0
    for value, least in ((3.0, 0.5), (0.0, 0.01)):
        axes = Figure().add_subplot()
        draw_panel(axes, Panel("p", [Line("l", [1, 2], [value, value * (1 + 1e-9)])], "x"))
        low, high = axes.get_ylim()
        assert low < value < high and high - low > least
    axes = Figure().add_subplot()
    draw_panel(axes, Panel("p", [], "x"))
    assert len(axes.get_yticks()) == 0
