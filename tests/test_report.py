"""report.html: its content, in a browser too, and runs of which parts are missing."""

import json
import logging
import os
import re
import shutil
import subprocess
from datetime import datetime
from pathlib import Path

import cv2
import pytest
import yaml

from lib.config import load_config
from lib.datasets import build_dataset
from lib.pipeline import report
from lib.pipeline.report_sections import find_evaluations
from tests.conftest import PATIENCE
from tests.test_html_page import Page, check
from tests.test_train_val import YAML
from tools import make_report, train_val

HEADINGS = {
    "top": "Run",
    "result": "Result",
    "configuration": "Configuration",
    "environment": "Environment",
    "curves": "Training curves",
    "ap": "Average precision",
    "precision": "Precision over recall",
    "distance": "Average precision by distance",
    "depth": "Depth error by distance",
    "frames": "Detections",
    "files": "Files",
}
NO_FIGURES = ["top", "result", "configuration", "environment", "curves", "files"]


def make(folder: Path, headings=HEADINGS, *options) -> Page:
    """Call the command and check what it writes."""
    assert make_report.main([str(folder), *map(str, options)]) == 0
    return check(folder / "report.html", headings)


def experiment(folder: Path, data: Path, monkeypatch, *changes: str):
    monkeypatch.chdir(folder)
    (folder / "tiny.yaml").write_text(YAML)
    base = [f"general.dataroot={data}", "general.obj_depth=false", "trainer.max_epoch=2", "trainer.report=true"]
    return train_val.main(["--config", "tiny.yaml", "--set", *base, "tester.images=2", *changes])


@pytest.fixture
def run(tiny_kitti, tmp_path, monkeypatch):
    """The folder of a finished training."""
    assert experiment(tmp_path, tiny_kitti, monkeypatch) == 0
    return tmp_path / "outputs/tiny"


def test_a_training_ends_with_a_page(run, tmp_path, tiny_kitti):
    page = check(run / "report.html", HEADINGS)
    assert page.headings["top"] == "Run tiny" and all(HEADINGS[i] == page.headings[i] for i in list(HEADINGS)[1:])
    assert len(page.images) > 15
    for text in (
        *("2 of 2 epochs, started 20", ", ended 20", "in all.", "dataset.resolution", "[1280, 384]", "torch"),
        *("Checkpoint checkpoint_epoch_2, split val: 4 frames", "checkpoints/checkpoint_last.pth", str(run)),
    ):
        assert text in page.text
    assert "exp_name: tiny" in page.text  # in the folded part
    ap = json.loads((run / "results/checkpoint_epoch_2/val/ap.json").read_text())
    if "Car" in ap["official"]:
        assert f"{ap['official']['Car']['bbox']['R40'][1]:.2f}" in page.text
    frames = [image["alt"][:13] for image in page.images if "Frame" in image["alt"]]
    assert frames == [f"Frame 00000{k}:" for k in range(4)]
    assert (run / "train.log").read_text().count("all on one page: outputs/tiny/report.html") == 1
    assert not list(run.rglob(".*.tmp"))

    images = run / "results/checkpoint_epoch_2/val/images"
    assert sorted(p.name for p in images.iterdir()) == ["000000.jpg", "000003.jpg"]
    assert all(cv2.imread(str(p)).shape == (375, 1242 + 375, 3) for p in images.iterdir())

    # written again by the command; then after the data set was moved
    before = (run / "report.html").read_text()
    assert make_report.main([str(run)]) == 0
    again = (run / "report.html").read_text()
    assert again[again.index("<h2") : again.index('<h2 id="files')] in before  # except the size of the log
    tiny_kitti.rename(tmp_path / "moved")
    assert make_report.main([str(run), "--out", str(tmp_path / "new/page.html")]) == 0
    said = check(tmp_path / "new/page.html", NO_FIGURES).text
    assert "split val. It cannot be shown: general.dataroot=" in said


def test_detections_of_the_test_split_are_drawn_without_labels(tiny_kitti, tmp_path, monkeypatch):
    changes = ("tester.split=test", "trainer.max_epoch=1", "trainer.eval_frequency=1")
    assert experiment(tmp_path, tiny_kitti, monkeypatch, *changes) == 0
    run = tmp_path / "outputs/tiny"
    page = check(run / "report.html", [*NO_FIGURES[:-1], "frames", "files"])
    assert "The split has no labels, so there are no figures." in page.text
    assert sum("Frame 00000" in image["alt"] for image in page.images) == 2
    folder = run / "results/checkpoint_epoch_1/test/images"
    assert sorted(p.name for p in folder.iterdir()) == ["000000.jpg", "000001.jpg"]


def write_results(run: Path, lines: dict[str, str]) -> Path:
    """Result files in the folder of a run."""
    folder = run / "results" / "checkpoint_best" / "val"
    (folder / "data").mkdir(parents=True)
    for frame_id in ("000000", "000001", "000002", "000003"):
        (folder / "data" / f"{frame_id}.txt").write_text(lines.get(frame_id, ""))
    return folder


@pytest.fixture
def folder(tiny_kitti, tmp_path, monkeypatch):
    """The folder of a run with a configuration and nothing else."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "outputs" / "made"
    run.mkdir(parents=True)
    config = yaml.safe_load(YAML)
    config["general"] |= {"dataroot": str(tiny_kitti), "exp_name": "<b>&'\"</b".replace("/", "")}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


PERFECT = "Car 0.0 0 1.55 837.17 167.59 1005.44 328.39 1.67 1.67 3.48 3.91 1.62 9.44 1.94 0.90\n"
FAR = "Car 0.0 0 -1.91 626.71 177.29 676.63 203.69 1.42 1.62 3.99 2.31 1.69 43.67 -1.86 0.80\n"


def test_figures_of_known_detections(folder):
    """One of the two cars and one pedestrian of the first frame is detected; the car of the last frame 2 m too far."""
    write_results(folder, {"000000": PERFECT, "000003": FAR + FAR.replace("Car", "Tram")})
    page = make(folder)
    assert page.headings["top"] == "Run <b>&'\"<b" and "b" not in page.tags  # escaped
    assert "0 of 4 epochs." in page.text and "metrics.jsonl has no epoch." in page.text
    assert "there is no environment.json" in page.text and "Never detected: Pedestrian." in page.text
    text = re.sub(r"<[^>]+>", " ", (folder / "report.html").read_text())
    assert re.search(r"0-10\s+1\s+100\.0%\s+0\.00\s+0\.00\s+\+0\.00\s+\+0\.00\s+0\.0%", text)
    assert re.search(r"20-30\s+1\s+0\.0%\s+-\s+-", text)
    assert re.search(r"40-50\s+1\s+100\.0%\s+2\.00\s+2\.00\s+\+2\.00\s+\+2\.00\s+4\.8%", text)
    assert re.search(r"Car\s+(\d\S+\s+){4}1\.00\s+66\.7%", text)  # the summary: median error and found share
    captions = [image["alt"] for image in page.images if "Frame 0000" in image["alt"]]
    counts = [re.match(r"Frame \d+: (\d) of (\d) detection", caption).groups() for caption in captions]
    assert counts == [("1", "1"), ("0", "0"), ("0", "0"), ("2", "2")]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium (Debian: apt-get install chromium)")
def test_a_browser_loads_all_images(folder, tmp_path):
    """In a frame of another page, whose script counts them."""
    write_results(folder, {"000000": PERFECT})
    page = make(folder)
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(
        f"""<iframe id="f" src="file://{folder}/report.html"></iframe><p id="count">none</p><script>
        window.onload = () => {{
            const seen = document.getElementById("f").contentDocument;
            const all = [...seen.images], good = all.filter(i => i.complete && i.naturalWidth > 50);
            document.getElementById("count").textContent =
                `${{good.length}} of ${{all.length}}, ${{seen.querySelectorAll("h2").length}} headings`;
        }};</script>"""
    )
    options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    options += " --disable-component-update --disable-sync --allow-file-access-from-files"
    options += f" --user-data-dir={tmp_path / 'profile'} --dump-dom --virtual-time-budget=20000"
    command = ["chromium", *options.split(), f"file://{wrapper}"]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    count = len(page.images)
    assert f">{count} of {count}, {len(HEADINGS) - 1} headings<" in dom


def test_runs_without_evaluation_without_detections_and_with_broken_results(folder, capsys):
    assert "No checkpoint of this run was evaluated." in make(folder, NO_FIGURES).text
    results = write_results(folder, {})
    page = make(folder)
    assert "Never detected: Car, Pedestrian." in page.text
    assert "Car: none of its objects was detected." in page.text
    assert sum(": 0 of 0 detections" in image["alt"] for image in page.images) == 4
    (results / "data/000000.txt").write_text("Car 1 2 <script>alert(1)</script>\n")
    before = (folder / "report.html").read_bytes()
    assert make_report.main([str(folder)]) == 2  # a page with figures is not replaced by one without
    assert (folder / "report.html").read_bytes() == before
    assert "report.html is kept, since the evaluation cannot be shown now" in capsys.readouterr().err
    said = make(folder, NO_FIGURES, "--overwrite").text
    assert "It cannot be shown:" in said and "000000.txt, line 1" in said and "<script>" in said
    (results / "data/000000.txt").unlink()
    assert "no result file for 1 of 4 frames" in make(folder, NO_FIGURES, "--overwrite", "--results", results).text


def test_figures_that_are_not_numbers(folder):
    """A loss that is NaN, an AP that is null, and an alpha of -10, which leaves the orientation without a figure."""
    records = [{"epoch": k, "lr": 0.1, "losses": {"total": float("nan")}, "ap": {"Car": None}} for k in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    write_results(folder, {"000000": PERFECT.replace("0.0 0 1.55", "0.0 0 -10")})
    page = make(folder)
    assert "2 of 4 epochs" in page.text
    text = re.sub(r"<[^>]+>", " ", (folder / "report.html").read_text())
    assert re.search(r"AOS\s+official 0\.70\s+-\s+-\s+-", text)


def test_the_newest_evaluation_is_the_default(folder):
    write_results(folder, {"000000": PERFECT})
    other = folder / "results/checkpoint_epoch_4/val"
    shutil.copytree(folder / "results/checkpoint_best/val", other)
    os.utime(other / "data", (1, 1))
    assert find_evaluations(folder) == [other, folder / "results/checkpoint_best/val"]
    assert "Checkpoint checkpoint_epoch_4, split val" in make(folder, HEADINGS, "--results", other).text


def test_mistakes_are_one_line(folder, tmp_path, capsys):
    def error(*arguments):
        assert make_report.main([str(argument) for argument in arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "nowhere: no such folder of a run" in error("nowhere")
    (tmp_path / "empty").mkdir()
    assert "empty: has no config.yaml; is it the folder of a run" in error("empty")
    assert "--out " in error(folder, "--out", tmp_path / "empty")
    assert "has no data/; expected RUN/results/" in error(folder, "--results", folder)
    assert "--out must end in .html, got 'r.pdf'" in error(folder, "--out", tmp_path / "r.pdf")
    (tmp_path / "there.html").write_text("mine")
    assert "exists already; --overwrite replaces it" in error(folder, "--out", tmp_path / "there.html")
    assert (tmp_path / "there.html").read_text() == "mine"
    assert make_report.main([str(folder), "--out", str(tmp_path / "there.html"), "--overwrite"]) == 0
    check(tmp_path / "there.html", NO_FIGURES)
    (folder / "config.yaml").write_text("trainer: {max_epoch: 0}")
    assert "trainer.max_epoch must be >= 1" in error(folder)


def test_a_page_that_fails_is_a_warning(folder, monkeypatch, caplog):
    """After a training; the command raises the error."""
    caplog.set_level(logging.INFO)
    results, frames = write_results(folder, {}), build_dataset(load_config(folder / "config.yaml"), "val")
    report.report_after_training(folder, results, frames)
    assert (folder / "report.html").is_file() and not caplog.records[-1].levelno > logging.INFO
    (folder / "report.html").unlink()
    monkeypatch.setattr(report, "build_page", None)
    report.report_after_training(folder, results, frames)
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.getMessage().endswith("report.html was not written: TypeError: 'NoneType' object is not callable")
    assert not (folder / "report.html").exists()
    with pytest.raises(TypeError):
        make_report.main([str(folder)])


def test_the_environment_is_that_of_the_last_start(folder):
    starts = [
        {"started": f"2026-0{month}-01 08:00:00", "versions": {"code": f"0.{month}.0", "system": "Linux 6.1, 2 cores"}}
        for month in (1, 2)
    ]
    (folder / "environment.json").write_text(json.dumps(starts))
    (folder / "metrics.jsonl").write_text('{"epoch": 1, "losses": {"total": 1.0}}\n')
    os.utime(folder / "metrics.jsonl", (datetime(2026, 2, 1, 9, 0, 2).timestamp(),) * 2)
    text = make(folder, NO_FIGURES).text
    assert "1 of 4 epochs, started 2026-01-01 08:00:00, last epoch ended 2026-02-01 09:00:02, 31 days, 1:00:02" in text
    assert "in 2 starts, pauses included." in text and "0.2.0" in text and "0.1.0" not in text
