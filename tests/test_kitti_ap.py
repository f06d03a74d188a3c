"""The evaluator's command, its rows for each detection, and the distribution kitti-ap."""

import csv
import json
import math
import os
import subprocess
import sys
import unittest
import zipfile
from dataclasses import replace
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest

import lib.evaluation
from lib.evaluation import DIFFICULTIES, OVERLAPS, Annotations, command, dump_matches, evaluate_kitti, selftest
from lib.evaluation.reading import list_ids
from tests.conftest import PROJECT
from tests.evaluation_twin import NAMES, car, random_scene, slow_frame, slow_overlaps
from tools.evaluate_kitti import main

TITLES = {"bbox": "2D", "bev": "BEV", "3d": "3D"}


def rows_of(labels, detections, classes=("Car",)) -> list[dict[str, str]]:
    both = Annotations.from_objects(labels, False), Annotations.from_objects(detections, True)
    return list(csv.DictReader(dump_matches(*both, classes).splitlines()))


@pytest.mark.parametrize("seed", range(6))
def test_rows_have_the_counts_of_the_slow_twin(seed: int) -> None:
    labels, detections = random_scene(np.random.default_rng(seed))
    rows = rows_of(labels, detections, NAMES)
    assert len([row for row in rows if row["kind"] == "detection"]) == sum(
        det.type.lower() in ("car", "pedestrian", "cyclist") for dets in detections for det in dets
    )
    frames = list(zip(labels, detections, slow_overlaps(labels, detections), strict=True))
    for cls, metric, difficulty in product(NAMES, TITLES, DIFFICULTIES):
        minimum = OVERLAPS["official"][cls][metric]
        slow = [slow_frame(cls, difficulty, metric, minimum, *frame, -math.inf) for frame in frames]
        expected = [sum(len(found) for found, *_ in slow), sum(w for _, w, *_ in slow), sum(m for *_, m in slow)]
        states = [row[f"{TITLES[metric]}_{difficulty}"] for row in rows if row["class"] == cls]
        assert [states.count(state) for state in ("tp", "fp", "fn")] == expected


def test_rows_of_odd_numbers_of_frames_and_without_labels() -> None:
    assert [row["3D_easy"] for row in rows_of([[], []], [[car(score=1)], []])] == ["fp"]
    assert rows_of([[]], [[]]) == []
    for labels, detections in (([[car()]] * 4000, [[car(score=1)]]), ([[car()]], [[car(score=1)]] * 4)):
        with pytest.raises(ValueError, match=f"labels have {len(labels)} frames, detections have {len(detections)}"):
            rows_of(labels, detections)
    with pytest.raises(ValueError, match="'Tram' is not among the type_names"):
        rows_of([[car()]], [[car(score=1)]], ["Tram"])


def test_rows_by_hand() -> None:
    label, missed, hidden = car(0, height=50), car(200), car(400, occluded=3)
    near = replace(label, location_cam=(0.4, 1.7, 20.5), score=0.9)  # overlaps in the image, not enough in 3D
    wrong, ignored = car(900, score=0.5), replace(hidden, score=0.4)
    rows = rows_of([[], [label, missed, hidden]], [[wrong], [near, replace(wrong, type="Van"), ignored]])
    assert [(row["frame"], row["kind"], row["index"]) for row in rows] == [
        ("0", "detection", "0"), ("1", "detection", "0"), ("1", "detection", "2"),
        ("1", "missed label", "0"), ("1", "missed label", "1"),
    ]  # fmt: skip
    assert rows[0]["2D_easy"] == "fp" and rows[0]["label_index"] == rows[0]["depth_error"] == ""
    found = rows[1]
    shown = [found[name] for name in ("label_index", "overlap_2D", "depth_error", "score")]
    assert shown == ["0", "1.0", "0.5", "0.9"]
    assert (found["2D_hard"], found["3D_hard"]) == ("tp", "fp") and 0.4 < float(found["overlap_3D"]) < 0.7
    assert (rows[2]["2D_hard"], rows[2]["label_index"]) == ("ignored", "2")
    assert (rows[3]["2D_easy"], rows[3]["3D_easy"]) == ("", "fn") and rows[4]["2D_moderate"] == "fn"
    assert (rows[4]["bbox_x1"], rows[4]["z"], rows[4]["score"]) == ("200.0", "20.0", "")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Labels, and results of two detectors in data and other."""
    line = "Car 0.00 0 0.00 {x}.00 100.00 {x2}.00 160.00 1.50 1.60 4.00 {z} 1.70 20.00 0.00"
    for part in ("label_2", "data", "other"):
        (tmp_path / part).mkdir()
    for frame in range(20):
        cars = [line.format(x=100 * k, x2=100 * k + 80, z=10 * k) for k in range(3)]
        scored = [f"{text} {0.9 - frame / 50 - k / 100:.2f}\n" for k, text in enumerate(cars)]
        for part, lines in (("label_2", [f"{text}\n" for text in cars]), ("data", scored), ("other", scored[:2])):
            (tmp_path / part / f"{frame:06d}.txt").write_text("".join(lines[: 3 - frame % 2]))
    return tmp_path / "label_2", tmp_path / "data"


@pytest.mark.parametrize("run", [main, command.main])
def test_command_with_a_bootstrap(run, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    labels, results = folders
    root = labels.parent
    paths = ["--labels", str(labels), "--results", str(results), "--classes", "Car"]
    options = ["--bootstrap", "50", "--seed", "3", "--against", str(root / "other")]
    files = ["--json", str(root / "new" / "ap.json"), "--dump", str(root / "rows.csv")]
    assert run([*paths, *options, *files]) == 0
    text = capsys.readouterr().out
    assert "[95% interval]: 50 replicates of 16 drives (KITTI's), seed 3" in text
    assert f"first: {results}\nsecond: {root / 'other'}\nfirst minus second [points], its interval" in text
    tree = json.loads((root / "new" / "ap.json").read_text())
    result, other = (evaluate_kitti(labels, root / p, None, ["Car"], bootstrap=50, seed=3) for p in ("data", "other"))
    expected = result.difference(other, "Car", "3d", "hard")
    own = {key: own[2] for key, own in tree["against"]["official"]["Car"]["3d"]["R40"].items()}
    assert own == expected._asdict() and own["difference"] > 0 and own["share_better"] == 1
    low = tree["bootstrap"]["official"]["Car"]["3d"]["all"]["low"][0]
    assert low == result.interval("Car", "3d", "easy", recall="all").low
    assert tree["equal_scores"]["Car"]["sharing_in_one_frame"] == 0
    assert len((root / "rows.csv").read_text().splitlines()) == 1 + 50
    assert sorted(path.name for path in root.iterdir()) == ["data", "label_2", "new", "other", "rows.csv"]
    assert run([*paths, "--bootstrap", "--clusters", "frames"]) == 0
    assert "1000 replicates of 20 frames, seed 0" in capsys.readouterr().out


@pytest.mark.parametrize("run", [main, command.main])
def test_mistakes_on_the_command_line(run, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    paths = ["--labels", str(folders[0]), "--results", str(folders[1])]
    root = folders[0].parent
    (root / "table.csv").write_text("000000,a\n")
    (root / "short").mkdir()
    os.mkfifo(root / "pipe")
    (root / "short" / "000000.txt").touch()
    for options, message in (
        (["--clusters", "frames"], "--clusters needs --bootstrap or --against"),
        (["--bootstrap", "--clusters", "drive"], "drive: no such file of clusters; accepted are also 'drives'"),
        (["--bootstrap", "--clusters", str(root / "table.csv")], "lacks 19 of 20 frames, the first is '000001'"),
        (["--bootstrap", "1"], "expected 2 to 20000 replicates, got 1"),
        (["--bootstrap", "--seed", "-1"], "seed: expected 0 or more, got -1"),
        (["--against", str(root / "nowhere")], "nowhere: no such folder"),
        (["--against", str(root / "short")], "no result file for 19 of 20 frames: 000001.txt"),
        (["--dump", str(root)], "is a folder; give the name of a file"),
        (["--json", str(root / "table.csv" / "ap.json")], "table.csv is a file, not a folder"),
        (["--json", str(root / "pipe")], "pipe: is a device; give the name of a file"),
        (["--json", str(root / "x"), "--dump", str(root / "x")], "x: two outputs have this name"),
        (["--against", str(root / "other"), "--bootstrap", "0"], "--against needs replicates"),
        (["--seed", "3"], "--seed needs --bootstrap or --against"),
        (["--classes", "Car,Cyclist"], "--classes: separate the names by spaces, got 'Car,Cyclist'"),
        (["--ids", str(root / "table.csv")], "line 1: expected one frame id"),
    ):
        assert run([*paths, *options]) == 2, options
        captured = capsys.readouterr()
        assert message in captured.err and captured.err.count("\n") == 1 and captured.out == "", options
    assert list_ids(root / "data") == [f"{frame:06d}" for frame in range(20)]


def test_nobody_reads_the_output(folders: tuple[Path, Path]) -> None:
    code = "import sys; from lib.evaluation.command import main; sys.exit(main(sys.argv[1:]))"
    options = ["--labels", str(folders[0]), "--results", str(folders[1])]
    reader, writer = os.pipe()
    os.close(reader)
    command_line = [sys.executable, "-c", code, *options]
    done = subprocess.run(command_line, cwd=PROJECT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_intervals_are_drawn(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    root = folders[0].parent
    paths = ["--labels", str(folders[0]), "--results", str(folders[1])]
    for name, options in (("one.png", ["--bootstrap", "20"]), ("two.png", ["--against", str(root / "other")])):
        assert main([*paths, *options, "--intervals", str(root / name)]) == 0
    one, two = (cv2.imread(str(root / name)) for name in ("one.png", "two.png"))
    assert one.shape == two.shape == (690, 1080, 3)  # of the three classes the detected one
    second = [(image == (0, 94, 213)).all(axis=-1).sum() for image in (one, two)]  # drawn in this colour
    assert second[0] == 0 < second[1]
    capsys.readouterr()
    assert main([*paths, "--intervals", str(root / "none.png")]) == 2
    assert main([*paths, "--bootstrap", "--intervals", str(root / "none.bmp")]) == 2
    errors = capsys.readouterr().err
    assert "--intervals needs --bootstrap or --against" in errors and "--intervals must end in .png" in errors


def test_own_tests_of_the_distribution() -> None:
    suite = unittest.defaultTestLoader.loadTestsFromModule(selftest)
    assert unittest.TextTestRunner().run(suite).wasSuccessful() and suite.countTestCases() == 4


def test_the_wheel_evaluates_without_the_repository(tmp_path: Path) -> None:
    """Built without a network; numpy and numba are those of this environment."""
    source, site = PROJECT / "lib" / "evaluation", tmp_path / "site"
    before = sorted(path.name for path in source.iterdir())
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("kitti_ap-*.whl")
    assert wheel.name == f"kitti_ap-{lib.evaluation.__version__}-py3-none-any.whl"
    assert sorted(path.name for path in source.iterdir()) == before  # the build leaves nothing
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        names = set(archive.namelist())
    assert (source / "LICENSE").read_bytes() == (PROJECT / "LICENSE").read_bytes()  # a copy, which goes into the wheel
    modules = {f"kitti_ap/{path.name}" for path in source.glob("*.py")}
    assert modules | {"kitti_ap/py.typed", "kitti_ap/drives.csv"} <= names
    code = "import sys, unittest, kitti_ap.selftest as tests; unittest.main(tests, exit=False, argv=['x']);"
    code += " assert not {'torch', 'cv2', 'lib', 'matplotlib'} & set(sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(site), "NUMBA_CACHE_DIR": str(tmp_path / "numba")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "Ran 4 tests" in done.stderr and "OK" in done.stderr, done.stderr
