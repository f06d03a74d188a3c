"""lib/system: files. Signals and locks are in test_interruption.py, threads in test_ops.py."""

import json
import math
import os

import numpy as np

from lib.system.files import link_file, without_nan, write_file, write_json


def test_json_files_have_null_for_nan(tmp_path):
    tree = {"a": [1, np.float32(0.5), math.inf], "b": ({"c": math.nan, "d": np.int64(3)}, "x", None, True)}
    expected = {"a": [1, 0.5, None], "b": [{"c": None, "d": 3}, "x", None, True]}
    assert without_nan(tree) == expected
    path = tmp_path / "new" / "a.json"
    write_json(path, tree)
    assert json.loads(path.read_text()) == expected and path.read_text().endswith("\n")
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]


def test_a_linked_file_takes_no_space_and_survives_a_new_one(tmp_path, monkeypatch):
    source, target = tmp_path / "last", tmp_path / "epoch"
    source.write_bytes(b"first")
    target.write_bytes(b"old")
    link_file(source, target)
    assert target.samefile(source) and target.read_bytes() == b"first"
    link_file(source, target)  # the same file already
    write_file(source, b"second")
    assert target.read_bytes() == b"first"

    def refuse(*_):
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    link_file(source, target)
    assert target.read_bytes() == b"second" and not target.samefile(source)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch", "last"]
