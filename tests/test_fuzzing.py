"""Parsers on malformed input: any content gives a result or the documented error.

The slow test makes 20,000 inputs for each parser: arbitrary bytes, and valid files with a few changes. Two readers of
the same file must agree.
"""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lib.config import load_config
from lib.datasets.images import read_size_table
from lib.evaluation import read_annotations
from lib.preparation.file_checks import check_calibration, check_label, check_split
from lib.structures import Calibration, read_objects, read_split
from tests.conftest import CALIB, LABELS, PROJECT
from tools import run_onnx

LABEL = "".join(line + "\n" for line in LABELS["000000"])
RESULT = "".join(f"{line} 0.87\n" for line in LABELS["000000"][:3])
SPLIT = "".join(f"{k:06d}\n" for k in range(12))
ALL = list(HealthCheck)
YAML = (PROJECT / "experiments/example/kitti_example.yaml").read_text()
NASTY = (
    *("nan", "-inf", "1e999", "-1e-999", "1_000", "0x1F", "1,5", "--1", "+", ".", "-", "e", "1e", "9" * 400, "-0"),
    *("\u0661\u0662", "\uff11", "\x00", "\x1a", "\ufeff", "\u2028", "\x85", "\r", "\t", "\n\n", "#", ":", "- ", "? "),
    *("{", "}", "[", "]", "&a", "*a", "!!python/object/apply:os.system", "!!binary", "<<: 1", "|", ">", "%", "@", "`"),
    *("null", "~", "true", "2026-13-45", "12:30:45", "0o17", "''", '"', "\\", "...", "---", "P2:", "Car", "DontCare"),
    *("\v", "\f", "\x1c", "\r\r", "P_rect_02:", "K:", "2.0", "car", "Car:", "\u00fc", "id,width,height\n"),
)


@st.composite
def broken(draw, text):
    """A valid file in which up to four words or pieces are replaced, removed, doubled or cut off."""
    content = text.encode()
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 12))
        kind = draw(st.sampled_from(("replace", "insert", "remove", "double", "bytes", "cut")))
        piece = content[start : start + length]
        if kind == "replace":
            word_end = start + len(content[start:].split(b" ")[0].split(b"\n")[0])
            content = content[:start] + draw(st.sampled_from(NASTY)).encode() + content[word_end:]
        elif kind == "insert":
            content = content[:start] + draw(st.sampled_from(NASTY)).encode() + content[start:]
        elif kind == "remove":
            content = content[:start] + content[start + length :]
        elif kind == "double":
            content = content[:start] + piece * 2 + content[start + length :]
        elif kind == "bytes":
            content = content[:start] + draw(st.binary(max_size=6)) + content[start:]
        else:
            content = content[:start]
    return content


def content_of(text):
    utf16 = broken(text).map(lambda content: content.decode(errors="replace").encode("utf-16"))
    other = st.one_of(st.binary(max_size=200), st.text(max_size=80).map(str.encode), utf16)
    return st.one_of(broken(text), broken(text), other)


def read_label(path):
    """Reading and checking must agree on what can be read."""
    faults, objects = check_label(path, (1242, 375))
    assert all(str(path) in str(fault) for fault in faults)
    unreadable = [f for f in faults if f.kind in ("malformed line", "not a finite number")]
    try:
        assert read_objects(path) == objects and not unreadable
    except ValueError:
        assert unreadable
        with pytest.raises(ValueError, match=re.escape(str(path))):
            read_annotations(path.parent, [path.stem], scored=False)
        raise
    annotations = read_annotations(path.parent, [path.stem], scored=False)
    assert annotations.count_types() == Counter(obj.type for obj in objects)
    assert [tuple(row) for row in annotations.values.tolist()] == [
        (o.truncated, o.occluded, o.alpha, *o.bbox_img, *o.dimensions, *o.location_cam, o.rotation_y, o.score or 0.0)
        for o in objects
    ]


def read_calibration(path):
    faults, _ = check_calibration(path)
    try:
        calibration = Calibration.from_file(path)
        assert not any(fault.kind == "malformed calibration" for fault in faults)
    except ValueError:
        assert [fault.kind for fault in faults] == ["malformed calibration"]
        with pytest.raises(ValueError, match=re.escape(str(path))):
            run_onnx.read_p2(path)
        raise
    assert np.array_equal(run_onnx.read_p2(path), calibration.P2.astype(np.float32))


def read_frames(path):
    faults, ids = check_split(path)
    try:
        assert list(read_split(path)) == list(ids) and not faults
    except ValueError:
        assert faults
        raise


PARSERS = {
    "label": (read_label, LABEL, "000000.txt"),
    "calibration": (read_calibration, CALIB, "000000.txt"),
    "split": (read_frames, SPLIT, "train.txt"),
    "result": (lambda path: read_annotations(path.parent, [path.stem], scored=True), RESULT, "000000.txt"),
    "size table": (read_size_table, "id,width,height\n000000,1224,370\ncam-A_1, 640 , 360\n", "sizes.csv"),
    "yaml": (load_config, YAML, "x.yaml"),
}


def fuzz(name, folder, examples, derandomize):
    """Returns how many inputs there were, and how many of them were refused."""
    read, text, file_name = PARSERS[name]
    path = folder / file_name
    path.write_text(text)
    read(path)  # the valid file is accepted
    counts = [0, 0]

    @settings(max_examples=examples, deadline=None, derandomize=derandomize, database=None, suppress_health_check=ALL)
    @given(content_of(text))
    def one(content):
        path.write_bytes(content)
        counts[0] += 1
        try:
            read(path)
        except ValueError as error:
            assert str(path) in str(error), f"the error does not name the file: {error}"
            assert "\n" not in str(error)
            counts[1] += 1

    one()
    return counts


@pytest.mark.parametrize("name", PARSERS)
def test_broken_files_raise_the_documented_error(tmp_path, name):
    inputs, refused = fuzz(name, tmp_path, 300, derandomize=True)
    assert inputs >= 300 and refused > 50


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
def test_twenty_thousand_broken_files(tmp_path, name):
    inputs, refused = fuzz(name, tmp_path, 20_000, derandomize=False)
    print(f"{name}: {inputs} inputs, {refused} refused, the others accepted")
    assert inputs >= 20_000 and 1000 < refused < inputs
