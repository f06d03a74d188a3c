"""Text files as other programs write them: both readers of a file agree, and what cannot be read is named."""

import re

import numpy as np
import pytest

from lib.evaluation import read_annotations
from lib.evaluation.reading import list_ids, read_lines
from lib.structures import Calibration, read_objects, read_split
from tests.conftest import CALIB
from tools import check_dataset, evaluate_kitti, run_onnx

LABEL = "Car 0.00 0 -1.57 100.00 100.00 200.00 160.00 1.50 1.60 4.00 0.00 1.70 20.00 -1.57"
NUMBERS = CALIB.split("P2:")[1].split()[:12]
ROWS = [" ".join(NUMBERS[k : k + 4]) for k in (0, 4, 8)]
K = " ".join(word for k in (0, 4, 8) for word in NUMBERS[k : k + 3])
EXPECTED = np.array(NUMBERS, float).reshape(3, 4)
READ = {
    "P2 among others": f"P0: 1 2\nP2: {' '.join(ROWS)}\nR0_rect: 1 0 0\n",
    "KITTI raw": f"calib_time: 09-Jan-2012 13:57:47\nP_rect_00: 9 9\nP_rect_02: {' '.join(ROWS)}\n",
    "KITTI-360": f"P_rect_00: {' '.join(ROWS)}\nP_rect_01: 1 2\n",
    "three lines": "P2:\t{}\n\t{}\r\n  {}\n\nP3: 1 0 0\n".format(*ROWS),
    "twice the same": f"P2: {' '.join(ROWS)}\n" * 2,
    "a comment": f"# Kamera f\u00fcr Stra\u00dfe\nP2: {' '.join(ROWS)}\n# Ende\n",
    "other lines after it": f"P2: {' '.join(ROWS)}\nR_rect 1 0 0\n1 0 0 0 1 0\n",
    "twice in other words": f"P2: {' '.join(ROWS)}\nP2: {' '.join(ROWS).replace(' 0 ', ' 0.0 ')}\n",
    "a mark": f"\ufeffP2: {' '.join(ROWS)}\n",
    "old ends of lines": f"P0: 1\rP2: {' '.join(ROWS)}\r",
    "a homogeneous factor": f"P2: {' '.join(str(2 * float(n)) for n in NUMBERS)}\n",
}
REFUSED = {
    "no P2": ("P0: 1 2\nP1: 3", "no line 'P2: ...'"),
    "11 numbers": ("P2: " + " ".join(NUMBERS[:11]), "P2 must have 12 numbers"),
    "a number of Python alone": ("P2: 1_0 " + " ".join(NUMBERS[1:]), "P2 must have 12 numbers"),
    "full-width digits": ("P2: \uff17 " + " ".join(NUMBERS[1:]), "P2 must have 12 numbers"),
    "millimetres": (f"P2: {NUMBERS[0]} 0 {NUMBERS[2]} 44857.28 {ROWS[1]} {ROWS[2]}", "more than 2 m"),
    "skew": (f"P2: {NUMBERS[0]} 3.5 {NUMBERS[2]} {NUMBERS[3]} {ROWS[1]} {ROWS[2]}", "rectified camera without skew"),
    "a rotation": (f"P2: {ROWS[0]} {ROWS[1]} 0 0.3 1 0", "rectified camera without skew"),
    "no focal length": (f"P2: 0 0 1 0 {ROWS[1]} {ROWS[2]}", "positive focal lengths"),
    "a negative factor": (f"P2: {ROWS[0]} {ROWS[1]} 0 0 -1 0", "positive focal lengths"),
    "a focal length of 1e308": (f"P2: 1e308 0 1 0 {ROWS[1]} {ROWS[2]}", "in pixels"),
    "not in pixels": (f"P2: 0.58 0 0.49 0 {ROWS[1]} {ROWS[2]}", "in pixels"),
    "not finite": (f"P2: nan 0 1 0 {ROWS[1]} {ROWS[2]}", "must be finite"),
    "twice": (f"P2: {' '.join(ROWS)}\nP2: {K} 1 1 1\n", "differs from that on line 1"),
}


@pytest.mark.parametrize("kind", READ)
def test_calibrations_are_read_alike_by_both_readers(tmp_path, kind):
    path = tmp_path / "a.txt"
    path.write_bytes(READ[kind].encode())
    assert pytest.approx(EXPECTED, rel=1e-12) == Calibration.from_file(path).P2
    assert run_onnx.read_p2(path) == pytest.approx(EXPECTED, rel=1e-6)


def test_a_matrix_without_translation(tmp_path):
    path = tmp_path / "k.txt"
    path.write_text(f"K: {K}\n")
    expected = np.column_stack([EXPECTED[:, :3], np.zeros(3)])
    assert np.array_equal(Calibration.from_file(path).P2, expected)
    assert np.array_equal(Calibration(expected[:, :3]).P2, expected)
    assert run_onnx.read_p2(path) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", REFUSED)
def test_calibrations_are_refused_alike_by_both_readers(tmp_path, kind):
    text, said = REFUSED[kind]
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    for read in (Calibration.from_file, run_onnx.read_p2):
        with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}") as error:
            read(path)
        assert said in str(error.value)


def test_utf16_is_named_by_every_reader(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(f"P2: {K}\n".encode("utf-16"))
    for read in (Calibration.from_file, run_onnx.read_p2, read_lines, read_objects, read_split):
        with pytest.raises(ValueError, match=r"a\.txt.*UTF-16.*save it as UTF-8"):
            read(path)
    with pytest.raises(ValueError, match="UTF-16"):
        read_annotations(tmp_path, ["a"], scored=False)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_marks_ends_of_lines_and_other_scripts(tmp_path, end):
    chinese, odd_spaces = LABEL.replace("Car", "\u6c7d\u8f66"), LABEL.replace(" 0 ", "\v0\f", 1)
    lines = [LABEL, chinese, "", odd_spaces, LABEL.replace("Car", "cAR")]
    (tmp_path / "a.txt").write_bytes(("\ufeff" + end.join(lines)).encode())
    objects = read_objects(tmp_path / "a.txt")
    assert [o.type for o in objects] == ["Car", "\u6c7d\u8f66", "Car", "Car"]
    annotations = read_annotations(tmp_path, ["a"], scored=False)
    assert annotations.count_types() == {"Car": 3, "\u6c7d\u8f66": 1} and len(annotations.values) == 4
    (tmp_path / "b.txt").write_bytes(LABEL.replace("Car", "\u6c7d\u8f66").encode("gbk"))
    for read in (lambda: read_objects(tmp_path / "b.txt"), lambda: read_annotations(tmp_path, ["b"], scored=False)):
        with pytest.raises(ValueError, match=r"b\.txt, line 1: the type .* is not UTF-8 text"):
            read()


def test_own_classes_have_the_given_spelling(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(LABEL.replace("Car", name) for name in ("forkLIFT", "VAN", "Other")))
    assert [o.type for o in read_objects(tmp_path / "a.txt")] == ["forkLIFT", "Van", "Other"]
    types = [o.type for o in read_objects(tmp_path / "a.txt", class_names=("Forklift", "van"))]
    assert types == ["Forklift", "van", "Other"]


def test_a_16th_column_of_a_label_is_kept_and_said(tmp_path, tiny_kitti, capsys):
    for folder, text in (("label_2", LABEL + " 0.70\n"), ("data", LABEL + " 0.90\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "cam-A_7.txt").write_text(text)
    assert read_objects(tmp_path / "label_2/cam-A_7.txt")[0].score == 0.7
    assert evaluate_kitti.main(["--labels", str(tmp_path / "label_2"), "--results", str(tmp_path / "data")]) == 0
    assert "note: the 16th column, a score, of 1 of the labels is not used" in capsys.readouterr().out
    label = tiny_kitti / "training/label_2/000000.txt"
    label.write_text(label.read_text().rstrip("\n") + " 0.5\n")
    check_dataset.main(["--dataroot", str(tiny_kitti)])
    assert "the 16th column, a score, of 1 of the labels is not used" in capsys.readouterr().out


def test_ids_are_letters_digits_and_dashes_for_every_reader(tmp_path):
    for name in ("000010.txt", "cam-A_000002.txt", "._000010.txt", "notes.md"):
        (tmp_path / name).write_text("")
    ids = list_ids(tmp_path)
    assert ids == ["000010", "cam-A_000002"]
    (tmp_path / "train").write_text("\n".join(ids))
    assert list(read_split(tmp_path / "train")) == ids
    (tmp_path / "stra\u00dfe.txt").write_text("")
    with pytest.raises(ValueError, match=r"stra\u00dfe\.txt: not the name of a frame"):
        list_ids(tmp_path)
