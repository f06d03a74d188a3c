"""report.html: the page of a run, as it is written, as a browser shows it, and where parts of a run are missing."""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from lib.config import Config, differences, find_dataroot, load_config, parse_config
from lib.datasets.kitti import KITTI
from lib.pipeline.run_log import read_run_log
from lib.visualization.html_page import Folded, Gallery, Image, Section, Table, build_page
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
    "frames": "Best and worst frames",
    "files": "Files",
}
NO_FIGURES = ["top", "result", "configuration", "environment", "curves", "files"]


class Page(HTMLParser):
    """What a browser would find: headings by id, images, links, all text, and whether tags are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.headings: dict[str, str] = {}
        self.images: list[dict[str, str]] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self._heading: str | None = None
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self._open.append(tag)
        if tag == "img":
            self.images.append(given)
        self.references += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        assert not [name for name in given if name.startswith("on")]
        if tag in ("h1", "h2"):
            self._heading = given["id"]
            self.headings[self._heading] = ""

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag in ("h1", "h2"):
            self._heading = None

    def handle_data(self, data):
        self.text += data
        if self._heading:
            self.headings[self._heading] += data

    def images(self):
        """Decoded, in order."""
        contents = [base64.b64decode(image["src"].partition(",")[2], validate=True) for image in self.images]
        return [cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) for content in contents]


def check(path: Path, headings=tuple(HEADINGS)) -> Page:
    """The rules that hold for every page."""
    content = path.read_text(encoding="utf-8")
    page = Page(content)
    assert list(page.headings) == list(headings)
    ids = re.findall(r'id="([^"]*)"', content)
    assert len(set(ids)) == len(ids)
    for reference in page.references:
        assert reference.startswith("data:image/") or (reference[0] == "#" and reference[1:] in ids), reference[:80]
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(page.tags)
    assert "url(" not in content and "@import" not in content
    assert all(image["alt"] for image in page.images)
    assert all(image is not None and image.shape[0] > 50 for image in page.images())
    assert 0 < len(content) < 5_000_000
    return page


@pytest.fixture(scope="module")
def browser():
    """A real one; headless, with an own profile, without network of its own accord."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")

    def call(url: str, profile: Path, *options: str) -> str:
        switches = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
        switches += " --disable-component-update --disable-sync --allow-file-access-from-files"
        command = [program, *switches.split(), f"--user-data-dir={profile}", *options, url]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    return call


def experiment(folder: Path, data: Path, monkeypatch, *changes: str):
    monkeypatch.chdir(folder)
    (folder / "tiny.yaml").write_text(YAML)
    base = [f"general.dataroot={data}", "general.obj_depth=false", "trainer.max_epoch=2", "trainer.report=true"]
    return train_val.main(["--config", "tiny.yaml", "--set", *base, "tester.images=2", *changes])


@pytest.fixture
def run(tiny_kitti, tmp_path, monkeypatch):
    """The folder of a training that has just ended."""
    assert experiment(tmp_path, tiny_kitti, monkeypatch) == 0
    return tmp_path / "outputs/tiny"


def test_a_training_ends_with_a_page(run, tmp_path, tiny_kitti, browser):
    page = check(run / "report.html")
    assert page.headings["top"] == "Run tiny" and all(HEADINGS[i] == page.headings[i] for i in list(HEADINGS)[1:])
    assert len(page.images) > 15 and "2 of 2 epochs, started 20" in page.text and ", ended 20" in page.text
    assert "dataset.resolution" in page.text and "[1280, 384]" in page.text and "torch" in page.text
    for said in ("Checkpoint checkpoint_epoch_2, split val: 4 frames", "checkpoints/checkpoint_last.pth", str(run)):
        assert said in page.text
    assert "exp_name: tiny" in page.text  # folded, but there
    ap = json.loads((run / "results/checkpoint_epoch_2/val/ap.json").read_text())
    if "Car" in ap["official"]:
        assert f"{ap['official']['Car']['bbox']['R40'][1]:.2f}" in page.text
    frames = [image["alt"] for image in page.images if "frame 00000" in image["alt"]]
    assert 1 <= len(frames) <= 4 and "F1" in frames[0]
    assert (run / "train.log").read_text().count("all on one page: outputs/tiny/report.html") == 1
    assert not list(run.rglob(".*.tmp"))

    images = run / "results/checkpoint_epoch_2/val/images"
    assert sorted(p.name for p in images.iterdir()) == ["000000.jpg", "000003.jpg"]
    assert all(cv2.imread(str(p)).shape == (375, 1242 + 375, 3) for p in images.iterdir())

    # as a browser sees it: the page itself, and in a frame of another page, which counts what was loaded
    dumped = Page(browser(f"file://{run}/report.html", tmp_path / "profile", "--dump-dom"))
    assert dumped.headings == page.headings
    wrapper = tmp_path / "wrapper.html"
    wrapper.write_text(
        f"""<iframe id="f" src="file://{run}/report.html"></iframe><p id="count">none</p><script>
        window.onload = () => {{
            const seen = document.getElementById("f").contentDocument;
            const all = [...seen.images], good = all.filter(i => i.complete && i.naturalWidth > 50);
            document.getElementById("count").textContent =
                `${{good.length}} of ${{all.length}}, ${{seen.querySelectorAll("h2").length}} headings`;
        }};</script>"""
    )
    dom = browser(f"file://{wrapper}", tmp_path / "profile", "--dump-dom", "--virtual-time-budget=20000")
    count = len(page.images)
    assert f">{count} of {count}, {len(HEADINGS) - 1} headings<" in dom
    shot = tmp_path / "shot.png"
    options = ("--window-size=1200,3000", "--hide-scrollbars", f"--screenshot={shot}")
    browser(f"file://{run}/report.html", tmp_path / "profile", *options)
    image = cv2.imread(str(shot))
    assert image.shape == (3000, 1200, 3) and len(np.unique(image.reshape(-1, 3), axis=0)) > 100

    # once more by hand, and after the training's data has gone
    before = (run / "report.html").read_text()
    assert make_report.main([str(run)]) == 0
    again = (run / "report.html").read_text()
    assert again[again.index("<h2") : again.index('<h2 id="files')] in before  # time and size of the log have changed
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
    """An evaluation by another network, put into the run's folder."""
    folder = run / "results" / "checkpoint_best" / "val"
    (folder / "data").mkdir(parents=True)
    for frame_id in ("000000", "000001", "000002", "000003"):
        (folder / "data" / f"{frame_id}.txt").write_text(lines.get(frame_id, ""))
    return folder


@pytest.fixture
def folder(tiny_kitti, tmp_path, monkeypatch):
    """A run's folder with a configuration and nothing else yet."""
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
    """Of the first frame's two cars and one pedestrian one car is found, the last frame's car 2 m too far."""
    write_results(folder, {"000000": PERFECT, "000003": FAR + FAR.replace("Car", "Tram")})
    assert make_report.main([str(folder)]) == 0
    page = check(folder / "report.html")
    assert page.headings["top"] == "Run <b>&'\"<b" and "b" not in page.tags  # escaped
    assert "0 of 4 epochs." in page.text and "metrics.jsonl records no epoch." in page.text
    assert "There is no train.log that tells it." in page.text and "Never detected: Pedestrian." in page.text
    text = re.sub(r"<[^>]+>", " ", (folder / "report.html").read_text())
    assert re.search(r"0-10\s+1\s+100\.0%\s+0\.00\s+0\.00\s+\+0\.00\s+\+0\.00\s+0\.0%", text)
    assert re.search(r"20-30\s+1\s+0\.0%\s+-\s+-", text)
    assert re.search(r"40-50\s+1\s+100\.0%\s+2\.00\s+2\.00\s+\+2\.00\s+\+2\.00\s+4\.8%", text)
    assert re.search(r"Car\s+(\d\S+\s+){4}1\.00\s+66\.7%", text)  # the summary: median error and found share
    captions = [image["alt"] for image in page.images if "frame 0000" in image["alt"]]
    assert captions[0].startswith("Best: frame 000000") and "F1 0.50, 1 right, 0 wrong, 2 missed" in captions[0]
    assert captions[1].startswith("Worst: frame 000003") and "F1 0.00, 0 right, 0 wrong, 1 missed" in captions[1]
    assert len(captions) == 2


def test_a_run_that_detects_nothing(folder):
    write_results(folder, {})
    assert make_report.main([str(folder)]) == 0
    page = check(folder / "report.html")
    assert "Never detected: Car, Pedestrian." in page.text and "Car: no detection is right." in page.text
    assert "No detection is right of Car, Pedestrian; drawn from 0.20 on." in page.text


def test_nothing_was_evaluated_and_results_that_are_broken(folder, capsys):
    assert make_report.main([str(folder)]) == 0
    assert "No checkpoint of this run was evaluated." in check(folder / "report.html", NO_FIGURES).text
    results = write_results(folder, {"000000": "Car 1 2 <script>alert(1)</script>\n"})
    assert make_report.main([str(folder)]) == 0
    said = check(folder / "report.html", NO_FIGURES).text
    assert "It cannot be shown:" in said and "000000.txt, line 1" in said and "<script>" in said
    (results / "data/000000.txt").unlink()
    assert make_report.main([str(folder), "--results", str(results)]) == 0
    assert "no result file for 1 of 4 frames" in check(folder / "report.html", NO_FIGURES).text


def test_figures_that_are_not_numbers(folder):
    """A loss that is NaN, an AP that is null, and an alpha of -10, which leaves the orientation without a figure."""
    records = [{"epoch": k, "lr": 0.1, "losses": {"total": float("nan")}, "ap": {"Car": None}} for k in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    write_results(folder, {"000000": PERFECT.replace("0.0 0 1.55", "0.0 0 -10")})
    assert make_report.main([str(folder)]) == 0
    page = check(folder / "report.html")
    assert "2 of 4 epochs" in page.text
    text = re.sub(r"<[^>]+>", " ", (folder / "report.html").read_text())
    assert re.search(r"AOS\s+official 0\.70\s+-\s+-\s+-", text)


def test_the_newest_evaluation_is_shown_unless_told(folder, capsys):
    write_results(folder, {"000000": PERFECT})
    other = folder / "results/checkpoint_epoch_4/val"
    shutil.copytree(folder / "results/checkpoint_best/val", other)
    os.utime(other / "data", (1, 1))
    assert make_report.newest_evaluation(folder) == folder / "results/checkpoint_best/val"
    assert make_report.main([str(folder), "--results", str(other)]) == 0
    assert "Checkpoint checkpoint_epoch_4, split val" in check(folder / "report.html").text


def errors(capsys, *arguments):
    status = make_report.main(list(map(str, arguments)))
    said = capsys.readouterr().err
    assert status == 2 and said.startswith("error: ") and said.count("\n") == 1, said
    return said


def test_mistakes_are_one_line(folder, tmp_path, capsys):
    assert "nowhere: no such folder of a run" in errors(capsys, "nowhere")
    (tmp_path / "empty").mkdir()
    assert "empty: has no config.yaml; is it the folder of a run" in errors(capsys, "empty")
    assert "--out " in errors(capsys, folder, "--out", tmp_path / "empty")
    assert "has no data/; expected RUN/results/" in errors(capsys, folder, "--results", folder)
    assert "--out must end in .html, got 'r.pdf'" in errors(capsys, folder, "--out", tmp_path / "r.pdf")
    (tmp_path / "there.html").write_text("mine")
    assert "exists already; --overwrite replaces it" in errors(capsys, folder, "--out", tmp_path / "there.html")
    assert (tmp_path / "there.html").read_text() == "mine"
    assert make_report.main([str(folder), "--out", str(tmp_path / "there.html"), "--overwrite"]) == 0
    check(tmp_path / "there.html", NO_FIGURES)
    (folder / "config.yaml").write_text("trainer: {max_epoch: 0}")
    assert "trainer.max_epoch must be >= 1" in errors(capsys, folder)


def test_a_page_that_fails_is_a_warning(folder, monkeypatch, caplog):
    """At the end of a training any error is one; called by hand, it is an error."""
    def broken(*_):
        raise KeyError("no such thing")

    results = write_results(folder, {})
    frames = KITTI(find_dataroot(load_config(folder / "config.yaml")), "val")
    make_report.report_after_training(folder, results, frames)
    assert (folder / "report.html").is_file() and not caplog.records[-1].levelno > logging.INFO
    (folder / "report.html").unlink()
    monkeypatch.setattr(make_report, "build_page", broken)
    make_report.report_after_training(folder, results, frames)
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.getMessage().endswith("report.html was not written: KeyError: 'no such thing'")
    assert not (folder / "report.html").exists()
    with pytest.raises(KeyError):
        make_report.main([str(folder)])


# ---- the parts ----


def png():
    return cv2.imencode(".png", np.zeros((60, 60, 3), np.uint8))[1].tobytes()


def test_everything_is_escaped(tmp_path):
    evil = "</title></pre></style><script>x</script><img src=x onerror='y'>\"&'"
    image = Image(png(), evil, evil)
    parts = [evil, Table([evil], [[evil, evil]], evil), Table([evil, evil], [], text=True), Folded(evil, evil)]
    path = tmp_path / "evil.html"
    path.write_text(build_page(evil, evil, [Section("a", evil, [*parts, Gallery([image]), Gallery([], True)])]))
    page = check(path, ["top", "a"])
    assert page.tags.count("img") == 1 and page.images[0]["alt"] == evil and page.headings["a"] == evil
    assert page.text.count(evil) == 15


def test_images_must_be_images():
    with pytest.raises(ValueError, match="image 'seven': expected the content of a PNG or JPEG"):
        build_page("", "", [Section("a", "", [Gallery([Image(b"GIF89a", "seven")])])])


def test_a_log_tells_when_and_with_what(tmp_path):
    log = tmp_path / "train.log"
    assert read_run_log(log).starts == 0 and not read_run_log(log).duration
    log.write_text("no line of a log\n")
    assert read_run_log(log).started is None
    system = "system Linux 6.1, 2 cores, no GPU"
    log.write_text(
        f"2026-01-31 23:59:58,100 INFO lib.system.environment: code 0.1.0 (abc), Python 3.10.1, torch 2.2, {system}\n"
        "Traceback (most recent call last):\n"
        f"2026-02-01 08:00:00,000 INFO lib.system.environment: code 0.1.0 (def), Python 3.11.2, torch 2.3, {system}\n"
        "2026-02-01 09:00:00,900 INFO lib.engine.trainer: epoch 1/1\n"
    )
    found = read_run_log(log)
    assert found.starts == 2 and str(found.started) == "2026-01-31 23:59:58" and str(found.duration) == "9:00:02"
    assert found.versions["code"] == "0.1.0 (def)" and found.versions["system"] == "Linux 6.1, 2 cores, no GPU"


def test_what_differs_from_the_defaults():
    config = parse_config({"dataset": {"resolution": [640, 192]}, "trainer": {"max_epoch": 140}})
    assert differences(config, Config()) == {"dataset.resolution": ([640, 192], [1280, 384])}
    assert differences(Config(), Config()) == {}
