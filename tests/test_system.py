"""lib/system: files. Signals and locks are in test_interruption.py, threads in test_ops.py."""

import json
import math

import numpy as np

from lib.system.files import without_nan, write_json


def test_json_files_have_null_for_nan(tmp_path):
    tree = {"a": [1, np.float32(0.5), math.inf], "b": ({"c": math.nan, "d": np.int64(3)}, "x", None, True)}
    expected = {"a": [1, 0.5, None], "b": [{"c": None, "d": 3}, "x", None, True]}
    assert without_nan(tree) == expected
    path = tmp_path / "new" / "a.json"
    write_json(path, tree)
    assert json.loads(path.read_text()) == expected and path.read_text().endswith("\n")
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]
