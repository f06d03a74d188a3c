"""Checks of an installed copy, by hand-computed figures: ``python -m unittest kitti_ap.selftest``."""

import contextlib
import csv
import io
import json
import tempfile
import unittest
from pathlib import Path

from . import evaluate_kitti
from .command import main

_BOX = "100.00 {y1} 180.00 150.00 1.50 1.60 4.00 {x} 1.70 20.00 0.00"


class Folders(unittest.TestCase):
    """Three frames; cars right at 0.9, wrong at 0.8, right at 0.7, and one that is never found."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.labels, self.results = self.root / "label_2", self.root / "data"
        right, wrong = _BOX.format(y1=100, x=0.0), _BOX.format(y1=110, x=30.0).replace("100.00", "500.00", 1)
        detections = (f"{right} 0.9", f"{wrong.replace('180.00', '580.00')} 0.8\nCar 0.0 0 0.0 {right} 0.7", None)
        for frame, detection in enumerate(detections):
            for path, text in ((self.labels, right), (self.results, detection)):
                path.mkdir(exist_ok=True)
                line = "" if text is None else f"Car 0.0 0 0.0 {text}\n"
                (path / f"{frame:06d}.txt").write_text(line)

    def test_all_points(self) -> None:
        result = evaluate_kitti(self.labels, self.results, classes=["Car"])
        for metric in ("bbox", "bev", "3d"):
            self.assertAlmostEqual(result.ap("Car", metric, recall="all"), 100 / 3 * (1 + 2 / 3))
            self.assertAlmostEqual(result.ap("Car", metric), 100 / 40 * 2 / 3)  # two scores: recall 0 and 1/40
            self.assertAlmostEqual(result.ap("Car", metric, recall="R11"), 100 / 11)

    def test_intervals(self) -> None:
        result = evaluate_kitti(self.labels, self.results, classes=["Car"], bootstrap=200, clusters="frames")
        low, high, replicates = result.interval("Car", "3d", recall="all")
        self.assertEqual((low, high, replicates), (0.0, 100.0, 200))  # one frame can be drawn three times
        self.assertEqual(result.difference(result, "Car", "3d").difference, 0)

    def test_drives(self) -> None:
        result = evaluate_kitti(self.labels, self.results, classes=["Car"], bootstrap=2, clusters="drives")
        assert result.replicates is not None
        names = result.replicates.resampling.clusters.names
        self.assertEqual(names[0], "2011_09_26_drive_0086")  # that of frame 000002

    def test_command(self) -> None:
        out, dump = self.root / "ap.json", self.root / "dump.csv"
        with contextlib.redirect_stdout(io.StringIO()) as text:
            paths = ["--labels", str(self.labels), "--results", str(self.results)]
            status = main([*paths, "--json", str(out), "--dump", str(dump)])
        self.assertEqual(status, 0)
        self.assertIn("official  3D   > 0.70", text.getvalue())
        self.assertAlmostEqual(json.loads(out.read_text())["official"]["Car"]["3d"]["all"][1], 500 / 9)
        with dump.open() as file:
            states = [(row["kind"], row["3D_easy"]) for row in csv.DictReader(file)]
        expected = [("detection", "tp"), ("detection", "fp"), ("detection", "tp"), ("missed label", "fn")]
        self.assertEqual(states, expected)
        with contextlib.redirect_stderr(io.StringIO()) as text:
            self.assertEqual(main(["--labels", str(self.labels), "--results", str(self.root / "none")]), 2)
        self.assertIn("no such folder", text.getvalue())


if __name__ == "__main__":
    unittest.main()
