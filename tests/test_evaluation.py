"""The evaluator as a whole: official numbers, ways to call it, broken files, the command, the folder on its own."""

import json
import math
import shutil
import subprocess
import sys
import tarfile
from itertools import product
from pathlib import Path

import numba
import pytest

import lib.evaluation
from lib.evaluation import (
    METRIC_TITLES,
    METRICS,
    OVERLAPS,
    RECALLS,
    TYPE_NAMES,
    Annotations,
    KittiResult,
    compilation,
    evaluate_annotations,
    evaluate_kitti,
    evaluate_objects,
    read_annotations,
)
from lib.evaluation.compilation import compiled
from lib.evaluation.protocol import DIFFICULTIES, MAX_OCCLUDED, MAX_TRUNCATED, MIN_HEIGHT
from lib.structures import KITTI_TYPES, read_objects
from lib.structures.object3d import TRAINING_DIFFICULTIES
from tests.evaluation_twin import NAMES, car
from tools.evaluate_kitti import main

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT / "tests" / "data" / "ap"
SHARED = ROOT.parent / "shared" / "kitti"
JUDGED = sorted(path.stem for path in CASES.glob("*.json") if path.stem != "det_without_score")


# ---- the numbers of the C++ evaluator ----


def unpack(name: str, folder: Path) -> Path:
    with tarfile.open(CASES / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / name


def worst_difference(expected: dict, result: KittiResult) -> tuple[float, int]:
    """Largest |AP - expected AP| and the number of figures; a class or metric that is missing counts as 0.

    Where no ground truth counts the devkit writes 0; here there is no AP.
    """
    trees, worst, count = (expected, result.to_json()), 0.0, 0
    for overlap, cls, metric, recall in product(OVERLAPS, NAMES, METRICS, RECALLS):
        theirs, ours = (tree[overlap].get(cls, {}).get(metric, {}).get(recall, [0, 0, 0]) for tree in trees)
        for difficulty, a, b in zip(DIFFICULTIES, theirs, ours, strict=True):
            count += 1
            curve = result.curves.get((overlap, cls, "bbox" if metric == "aos" else metric, difficulty))
            if curve is not None and curve.n_ground_truth == 0:
                assert b is None and not a
                continue
            worst = max(worst, math.inf if (a is None) != (b is None) else 0.0 if a is None else abs(a - b))
    return worst, count


@pytest.mark.parametrize("name", JUDGED)
def test_conformance(name: str, tmp_path: Path) -> None:
    expected = json.loads((CASES / f"{name}.json").read_text())
    case = unpack(name, tmp_path)
    result = evaluate_kitti(case / "label_2", case / "data", None, NAMES)
    assert result.n_frames == expected["frames"]
    assert worst_difference(expected, result) == (pytest.approx(0, abs=1e-6), 144)


def test_all_cases_are_there() -> None:
    assert len(JUDGED) == 27


@pytest.mark.kitti
def test_real_detections(tmp_path: Path) -> None:
    if not (SHARED / "labels_calib.tar.xz").is_file():
        pytest.skip(f"{SHARED} (real KITTI labels and detections, not to be committed) is missing")
    for archive in (SHARED / "labels_calib.tar.xz", SHARED / "detections" / "frustum_pointnet_car.tar.xz"):
        with tarfile.open(archive) as files:
            members = [member for member in files.getmembers() if "calib" not in member.name]
            files.extractall(tmp_path, members, filter="data")
    expected = json.loads((SHARED / "detections" / "frustum_pointnet_car.json").read_text())
    result = evaluate_kitti(tmp_path / "training" / "label_2", tmp_path / "data", None, NAMES)
    assert result.n_frames == 3769
    assert worst_difference(expected, result) == (pytest.approx(0, abs=1e-6), 144)


# ---- files, objects and rows ----


def test_files_objects_and_rows_agree(tmp_path: Path) -> None:
    case = unpack("realistic_50", tmp_path)
    ids = [path.stem for path in sorted((case / "data").glob("*.txt"))]
    by_file = evaluate_kitti(case / "label_2", case / "data", ids, NAMES).to_json()
    frames = [[read_objects(case / part / f"{frame}.txt") for frame in ids] for part in ("label_2", "data")]
    assert evaluate_objects(*frames, NAMES).to_json() == by_file
    rows = [[[(o.type, (o.truncated, o.occluded, o.alpha, *o.bbox_img, *o.dimensions, *o.location_cam, o.rotation_y,
                        *(() if o.score is None else (o.score,)))) for o in objects] for objects in part]
            for part in frames]  # fmt: skip
    assert evaluate_annotations(*map(Annotations.from_rows, rows), NAMES).to_json() == by_file
    backwards = evaluate_kitti(case / "label_2", case / "data", ids[::-1], NAMES)
    assert worst_difference(by_file, backwards)[0] <= 1e-9


def test_refused_arguments(tmp_path: Path) -> None:
    for name in ("DontCare", "two words", "Straßenbahn", ""):
        with pytest.raises(ValueError, match="cannot be evaluated; a class is one ASCII word and not DontCare"):
            evaluate_objects([[]], [[]], [name])
    with pytest.raises(ValueError, match="labels have 1 frames, detections have 2"):
        evaluate_objects([[]], [[], []])
    with pytest.raises(ValueError, match="frame 0, detection 0: score is missing"):
        evaluate_objects([[]], [[car()]])
    with pytest.raises(ValueError, match="frame 0, object 0: alpha must be a finite number, got nan"):
        evaluate_objects([[]], [[car(score=1, alpha=math.nan)]])
    for nothing in ([], "000001"):
        with pytest.raises(ValueError, match="ids must be a sequence with at least one frame"):
            evaluate_kitti(tmp_path, tmp_path, nothing)
    with pytest.raises(ValueError, match="'000001' is listed twice"):
        evaluate_kitti(tmp_path, tmp_path, ["000001", "000002", "000001"])


# ---- files ----

LABEL = "Car 0.00 0 -1.57 100.00 100.00 200.00 160.00 1.50 1.60 4.00 0.00 1.70 20.00 -1.57"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for part, line in (("label_2", LABEL), ("data", f"{LABEL} 0.9")):
        (tmp_path / part).mkdir()
        for frame in range(3):
            (tmp_path / part / f"{frame:06d}.txt").write_text(f"{line}\n{line}\n")
    return tmp_path / "label_2", tmp_path / "data"


BROKEN = {
    "word": (b"Car 0.0 0 high 1 2 3 4 5 6 7 8 9 10 11 0.5", "alpha must be a finite number, got 'high'"),
    "nan": (b"Car 0.0 0 1 1 2 3 4 5 6 7 8 NaN 10 11 0.5", "y must be a finite number, got 'NaN'"),
    "inf": (b"Car 0.0 0 1 1 2 3 4 5 6 7 8 9 10 11 -inf", "score must be a finite number, got '-inf'"),
    "overflow": (b"Car 0.0 0 1 1 2 3 4 5 6 7 8 9 10 11 1e999", "score must be a finite number, got '1e999'"),
    "underscore": (b"Car 0.0 0 1 1 2 3 4 5 6 7 8 9 10 11 1_0", "score must be a finite number, got '1_0'"),
    "14 columns": (b"Car 0.0 0 1 1 2 3 4 5 6 7 8 9 10", r"expected 16 columns \(a detection with its score\), got 14"),
    "15 columns": (b"Car 0.0 0 1 1 2 3 4 5 6 7 8 9 10 11", "15 columns: the score is missing"),
    "17 columns": (b"Car 0.0 0 1 1 2 3 4 5 6 7 8 9 10 11 0.5 1", "got 17"),
    "binary": (b"\x89PNG\x00\x01", "not a text file"),
    "latin": (b"Car\xe9 0.0 0 1 1 2 3 4 5 6 7 8 9 10 11 0.5", r"the type 'Car\\xe9' is not UTF-8 text"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_result_file(kind: str, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    content, message = BROKEN[kind]
    broken = folders[1] / "000001.txt"
    broken.write_bytes(f"{LABEL} 0.9\n\n".encode() + content + b"\n")
    with pytest.raises(ValueError, match=message) as error:
        evaluate_kitti(*folders)
    assert str(error.value).startswith(f"{broken}, line 3: ")
    assert main(["--labels", str(folders[0]), "--results", str(folders[1])]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == f"error: {error.value}\n"


def test_broken_label_file(folders: tuple[Path, Path]) -> None:
    for content, message in (
        (LABEL.replace(" 0 ", " 0.5 ", 1), r"line 1: occluded must be a whole number .* got '0.5'"),
        (f"{LABEL}\n{LABEL[:30]}\n", r"line 2: expected 15 columns \(label\) or 16 \(with a score\), got 6: 'Car"),
    ):
        (folders[0] / "000002.txt").write_text(content)
        with pytest.raises(ValueError, match=rf"000002.txt, {message}"):
            evaluate_kitti(*folders)


def test_missing_and_odd_files(folders: tuple[Path, Path]) -> None:
    labels, results = folders
    (results / "._000001.txt").write_text("of macOS, hidden")
    (results / "000001.txt").write_text("")  # a frame without detections
    (results / "000002.txt").unlink()  # not evaluated unless listed
    assert evaluate_kitti(labels, results).n_frames == 2
    assert evaluate_kitti(labels, results, ["000000"]).n_detections == 2
    ids = [f"{frame:06d}" for frame in range(7)]
    message = r"no result file for 5 of 7 frames: 000002.txt, 000003.txt, 000004.txt, \.\."
    with pytest.raises(FileNotFoundError, match=message):
        evaluate_kitti(labels, results, ids)
    (labels / "000000.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no label file for 1 of 2 frames: 000000.txt"):
        evaluate_kitti(labels, results)
    (results / "000003.txt").mkdir()
    with pytest.raises(ValueError, match=r"000003.txt: is a folder; expected a text file"):
        evaluate_kitti(labels, results, ["000003"])
    with pytest.raises(FileNotFoundError, match="no such folder"):
        evaluate_kitti(labels, results / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no result files .* did you mean .*data\?"):
        evaluate_kitti(labels, results.parent)
    (results / "read me.txt").write_text("")
    with pytest.raises(ValueError, match=r"read me.txt: not the name of a frame; expected letters, digits, _ and -"):
        evaluate_kitti(labels, results)


def test_a_file_without_score_is_refused(tmp_path: Path) -> None:
    case = unpack("det_without_score", tmp_path)
    with pytest.raises(ValueError, match=r"000000.txt, line 1: 15 columns: the score is missing"):
        evaluate_kitti(case / "label_2", case / "data")


def test_separators_and_numbers(tmp_path: Path) -> None:
    tokens = ["0", "-0", "+1.5", ".5", "5.", "007.50", "1e3", "-2.5E-3", "1e23", "9007199254740993", "1e308", "1e308"]
    content = "\r\n".join(f"Person_sitting\t{'  '.join(tokens)}\v1e-320 1 0.5" for _ in range(2))
    (tmp_path / "000000.txt").write_bytes(content.encode())
    read = read_annotations(tmp_path, ["000000"], scored=True)
    assert read.values.tolist() == [[*map(float, tokens), 1e-320, 1, 0.5]] * 2 and read.types.tolist() == [4, 4]
    assert read_objects(tmp_path / "000000.txt")[1].location_cam == (1e308, 1e308, 1e-320)


def test_without_a_place_for_its_cache_numba_compiles_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a read-only container."""

    def refuse_cache(function):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(compilation, "_Cache", refuse_cache)

    @compiled
    def double(value):
        return 2 * value

    assert double(21) == 42 and double.signatures


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_a_damaged_file_of_numbas_cache_is_made_anew(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))

    def square(value):
        return value * value

    qualified = square.__qualname__
    for cut in (False, True, False):
        square.__qualname__ = qualified
        for path in tmp_path.rglob(f"*{suffix}") if cut else ():
            path.write_bytes(path.read_bytes()[:-20])
        caplog.clear()
        assert compiled(square)(7) == 49
        assert ("compiling anew" in caplog.text) == cut, caplog.text


# ---- the command ----


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = unpack("realistic_50", tmp_path)
    expected = json.loads((CASES / "realistic_50.json").read_text())
    ids = tmp_path / "val.txt"
    ids.write_text("".join(f"{path.stem}\n" for path in sorted((case / "data").glob("*.txt"))))
    out, image = tmp_path / "new" / "ap.json", tmp_path / "curves.png"
    args = ["--labels", str(case / "label_2"), "--results", str(case / "data"), "--ids", str(ids)]
    args += ["--json", str(out), "--curves", str(image), "--by-distance", "--classes", "Car", "Cyclist"]
    assert main(args) == 0
    written = json.loads(out.read_text())
    for cls in ("Car", "Cyclist"):
        assert written["official"][cls]["3d"]["R40"] == pytest.approx(expected["official"][cls]["3d"]["R40"], abs=1e-6)
    assert set(written["official"]) == {"Car", "Cyclist"} and list(written["by_distance"]) == ["0-30", "30-50", "50-70"]
    counts = written["counts"]["official"]["Car"]["3d"]
    assert all(tp <= n for tp, n in zip(counts["true_positives"], counts["valid_ground_truth"], strict=True))
    assert image.read_bytes().startswith(b"\x89PNG")
    table = capsys.readouterr().out
    assert f"{expected['official']['Car']['3d']['R40'][1]:.2f}" in table and "Depth 30-50 m" in table
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "new", "realistic_50", "val.txt"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("000000\n\n000000\n", "line 3: frame 000000 is already on line 1"), (None, "no such split file"),
     ("000000\n000009\n", "no result file for 1 of 2 frames: 000009.txt")],
)  # fmt: skip
def test_command_with_a_broken_list(
    text: str | None, message: str, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ids = folders[0].parent / "ids.txt"
    if text is not None:
        ids.write_text(text)
    assert main(["--labels", str(folders[0]), "--results", str(folders[1]), "--ids", str(ids)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and captured.out == ""


# ---- the folder on its own ----


def test_a_copy_of_the_folder_evaluates(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    copy = tmp_path / "alone" / "evaluation"
    assert evaluate_kitti(*folders).n_labels == 6  # fills numba's cache in __pycache__, which is copied as well
    shutil.copytree(ROOT / "lib" / "evaluation", copy)
    code = f"""
import sys
from evaluation import CLASSES
from evaluation.reading import parse_line
assert not {{"numpy", "numba"}} & set(sys.modules)
from evaluation import evaluate_kitti
assert evaluate_kitti({str(folders[0])!r}, {str(folders[1])!r}, None, CLASSES[:1]).n_labels == 6
assert not {{"torch", "cv2", "matplotlib", "lib"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=copy.parent, check=True)


def test_structures_do_not_load_numba() -> None:
    code = "import sys, lib.structures; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_one_fact_in_one_place() -> None:
    assert {name for name in dir(lib.evaluation) if not name.startswith("_")} >= set(lib.evaluation.__all__)
    assert all(getattr(lib.evaluation, name) is not None for name in lib.evaluation.__all__)
    with pytest.raises(AttributeError, match=r"module 'lib\.evaluation' has no attribute 'nothing'"):
        _ = lib.evaluation.nothing
    assert set(TYPE_NAMES) <= set(KITTI_TYPES) and set(METRIC_TITLES) == set(METRICS)
    limits = [(name.lower(), *numbers) for name, *numbers in TRAINING_DIFFICULTIES]
    assert limits == [(name, MIN_HEIGHT[name], MAX_TRUNCATED[name], MAX_OCCLUDED[name]) for name in DIFFICULTIES]
