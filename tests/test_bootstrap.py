"""Error bars: replicates against brute force, all-point AP against its definition, ties, clusters, differences."""

import math
import tarfile
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.evaluation import (
    AVERAGES,
    DIFFICULTIES,
    METRICS,
    OVERLAPS,
    Annotations,
    Clusters,
    Resampling,
    cluster_frames,
    evaluate_annotations,
    evaluate_kitti,
    evaluate_objects,
    read_folders,
)
from lib.evaluation.clusters import read_clusters
from lib.evaluation.sampling import _add_point, _area
from tests.evaluation_twin import NAMES, car, random_scene, slow_all_points, slow_overlaps

REAL = Path(__file__).resolve().parents[2] / "shared" / "kitti"
KEYS = list(product(OVERLAPS, NAMES, METRICS, DIFFICULTIES, AVERAGES))


def in_clusters(n_frames: int, rng: np.random.Generator) -> Clusters:
    of_frame = np.unique(rng.integers(max(2, n_frames // 2), size=n_frames), return_inverse=True)[1]
    return Clusters(tuple(map(str, range(of_frame.max() + 1))), of_frame, "clusters")


def take_frames(annotations: Annotations, frames: np.ndarray) -> Annotations:
    """The annotations of some frames, one after the other."""
    rows = [np.arange(annotations.offsets[frame], annotations.offsets[frame + 1]) for frame in frames]
    chosen = np.concatenate([np.empty(0, dtype=np.int64), *rows])
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in rows])]).astype(np.int64)
    return Annotations(offsets, annotations.types[chosen], annotations.values[chosen], annotations.type_names)


def worst_difference(labels, detections, clusters: Clusters, n_replicates: int) -> float:
    """Between the replicates and evaluations of the drawn frames, each as often as it was drawn."""
    resampling = Resampling(clusters, n_replicates, seed=5)
    result = evaluate_annotations(labels, detections, NAMES, resampling=resampling)
    worst = 0.0
    for r, weights in enumerate(resampling.draw().weights):
        frames = np.repeat(np.arange(labels.n_frames), weights[clusters.of_frame])
        drawn = evaluate_annotations(take_frames(labels, frames), take_frames(detections, frames), NAMES)
        for overlap, cls, metric, difficulty, recall in KEYS:
            values = result.replicates.values.get((overlap, cls, metric, difficulty, recall))
            if values is not None:
                expected = drawn.ap(cls, metric, difficulty, overlap, recall)
                assert math.isnan(values[r]) == math.isnan(expected), (r, overlap, cls, metric, difficulty, recall)
                worst = max(worst, 0.0 if math.isnan(expected) else abs(values[r] - expected))
    return worst


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(k, marks=pytest.mark.slow) for k in range(4, 20))])
def test_replicates_equal_evaluations_of_the_drawn_frames(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng) for _ in range(2)]
    labels, detections = ([frame for scene in scenes for frame in scene[k]] for k in (0, 1))
    both = Annotations.from_objects(labels, False), Annotations.from_objects(detections, True)
    assert worst_difference(*both, in_clusters(len(labels), rng), 12 if seed < 4 else 50) < 1e-9


def real_folders(tmp_path: Path, name: str) -> tuple[Path, Path]:
    if not (REAL / "labels_calib.tar.xz").is_file():
        pytest.skip(f"{REAL} (real KITTI labels and detections, not to be committed) is missing")
    for archive in (REAL / "labels_calib.tar.xz", REAL / "detections" / f"{name}.tar.xz"):
        with tarfile.open(archive) as files:
            members = [member for member in files.getmembers() if "calib" not in member.name]
            files.extractall(tmp_path, members, filter="data")
    return tmp_path / "training" / "label_2", tmp_path / "data"


@pytest.mark.kitti
def test_real_detections_vary_more_by_drive_than_by_frame(tmp_path: Path) -> None:
    folders = real_folders(tmp_path, "monodle_fork")
    labels, detections = read_folders(*folders, None, NAMES)
    by_drive = cluster_frames(labels.frame_ids, folders[0])
    assert by_drive.describe() == "45 drives (KITTI's)"
    some = np.random.default_rng(0).permutation(labels.n_frames)[:300]
    names, of_frame = np.unique(by_drive.of_frame[some], return_inverse=True)
    clusters = Clusters(tuple(map(str, names)), of_frame, "drives")
    assert worst_difference(take_frames(labels, some), take_frames(detections, some), clusters, 20) < 1e-9
    low, high, n = evaluate_kitti(*folders, classes=["Car"], bootstrap=600).interval("Car", "3d")
    assert (low, high, n) == (pytest.approx(9.9, abs=0.4), pytest.approx(18.6, abs=0.4), 600)
    frames = evaluate_kitti(*folders, classes=["Car"], bootstrap=600, clusters="frames")
    assert frames.interval("Car", "3d")[:2] == (pytest.approx(13.7, abs=0.25), pytest.approx(15.7, abs=0.4))
    assert frames.ap("Car", "3d") == pytest.approx(14.53, abs=0.005)


# ---- all-point AP ----


@pytest.mark.parametrize(("n", "r40", "r11"), [(1, 0.0, 100 / 11), (2, 2.5, 100 / 11), (3, 5.0, 100 / 11)])
def test_all_found_by_the_best_scores(n: int, r40: float, r11: float) -> None:
    labels = [car(100 * k) for k in range(n)]
    found = [replace(label, score=1 - k / 10) for k, label in enumerate(labels)]
    result = evaluate_objects([labels], [[*found, car(900, score=0.1)]], ["Car"])  # the last one is wrong
    for metric in METRICS:
        figures = [result.ap("Car", metric, recall=recall) for recall in AVERAGES]
        assert figures == pytest.approx([r40, r11, 100.0])


def test_all_points_by_hand() -> None:
    """Three objects; right, wrong, right, and one never found: 1/3 * 1 + 1/3 * 2/3."""
    labels = [car(0), car(100), car(200)]
    found = [car(0, score=0.9), car(900, score=0.8), car(100, score=0.7), car(800, score=0.6)]
    assert evaluate_objects([labels], [found], ["Car"]).ap("Car", "bbox", recall="all") == pytest.approx(500 / 9)


@pytest.mark.parametrize("seed", range(10))
def test_all_points_equal_their_definition(seed: int) -> None:
    labels, detections = random_scene(np.random.default_rng(seed))
    overlaps = slow_overlaps(labels, detections)
    result = evaluate_objects(labels, detections, NAMES)
    for (overlap, cls, metric, difficulty), curve in result.curves.items():
        if curve.n_ground_truth:
            minimum = OVERLAPS[overlap][cls][metric]
            expected = slow_all_points(cls, difficulty, metric, minimum, labels, detections, overlaps)
            own = [(metric, "precision"), *([("aos", "orientation")] if curve.orientation is not None else [])]
            for name, kind in own:
                assert result.ap(cls, name, difficulty, overlap, "all") == pytest.approx(expected[kind], abs=1e-9)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=20))
def test_the_hull_of_points_in_any_order(points: list[tuple[int, int]]) -> None:
    hull, n = np.empty((len(points) + 1, 2)), 0
    for recall, value in points:
        n = _add_point(hull, n, recall / 8, value / 8)
    steps = [max((value for recall, value in points if recall > k), default=0) for k in range(8)]
    assert _area(hull, n) == pytest.approx(sum(steps) / 64)


# ---- ties ----


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_lines_does_not_matter_without_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, detections = random_scene(rng)
    detections = [[replace(det, score=float(rng.random())) for det in dets] for dets in detections]
    mixed = [[frame[k] for k in rng.permutation(len(frame))] for frame in detections]
    both = [evaluate_objects(labels, frames, NAMES) for frames in (detections, mixed)]
    for overlap, cls, metric, difficulty, recall in KEYS:
        first, second = (result.ap(cls, metric, difficulty, overlap, recall) for result in both)
        assert first == pytest.approx(second, abs=1e-9, nan_ok=True)


def test_of_equal_scores_the_earlier_line_is_taken() -> None:
    """The first label overlaps both detections. If it takes the only one that the second overlaps, that is missed."""
    labels = [car(0, height=100), replace(car(0, height=100), bbox_img=(30, 100, 110, 200))]
    left = replace(labels[0], bbox_img=(-12, 100, 68, 200), score=0.5)
    middle = replace(labels[0], bbox_img=(14, 100, 94, 200), score=0.5)
    curves = [
        evaluate_objects([labels], [dets], ["Car"], own_overlaps={"Car": (0.6, 0.5)}).curves
        for dets in ([left, middle], [middle, left])
    ]
    assert [len(c["official", "Car", "bbox", "easy"].thresholds) for c in curves] == [2, 1]
    alike = [replace(car(), score=0.5, alpha=alpha) for alpha in (0.0, math.pi)]  # equal overlaps, too
    for dets, similarity in ((alike, 1.0), (alike[::-1], 0.0)):
        orientation = evaluate_objects([[car()]], [dets], ["Car"]).curves["official", "Car", "bbox", "easy"].orientation
        assert orientation is not None and orientation[0] == pytest.approx(similarity / 2)  # the other one is wrong


def test_the_first_of_several_ignored_detections_is_taken() -> None:
    """It absorbs the label; the other one is left for the second label."""
    labels = [car(0, height=26), replace(car(0, height=26), bbox_img=(20, 100, 100, 126))]
    low = [replace(car(0, height=24), bbox_img=(x, 101, x + 80, 125), score=0.9) for x in (0, 10)]
    found = car(300, score=0.5)
    results = [evaluate_objects([[*labels, car(300)]], [[*dets, found]], ["Car"]) for dets in (low, low[::-1])]
    assert [result.ap("Car", "bbox", recall="all") for result in results] == pytest.approx([100.0, 100 / 2])


def test_equal_scores_are_counted() -> None:
    detections = [[car(score=0.5), car(100, score=0.5), car(200, score=0.7)], [car(score=0.7), car(100, score=0.1)]]
    detections[0].append(car(300, score=0.1, type="Cyclist"))
    tree = evaluate_objects([[car()], []], detections, NAMES).to_json()["equal_scores"]
    assert tree["Car"] == {"detections": 5, "sharing_a_score": 4, "sharing_in_one_frame": 2}
    assert tree["Cyclist"] == {"detections": 1, "sharing_a_score": 0, "sharing_in_one_frame": 0}


# ---- intervals and differences ----


def drawn(labels, detections, **options):
    clusters = Clusters(tuple(map(str, range(len(labels)))), np.arange(len(labels)), "frames")
    return evaluate_objects(labels, detections, ["Car"], resampling=Resampling(clusters, **options))


def made_up(n_frames: int = 60, found: float = 0.6, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = [[car(0), car(200)] for _ in range(n_frames)]
    detections = [
        [replace(obj, score=float(rng.random())) for obj in [*frame, car(400)] if rng.random() < found]
        for frame in labels
    ]
    return labels, detections


def test_an_interval_is_a_percentile_of_replicates() -> None:
    result = drawn(*made_up(), n_replicates=400, seed=3)
    values = result.replicates.values["official", "Car", "3d", "moderate", "R40"]
    assert result.interval("Car", "3d") == (*np.percentile(values, [2.5, 97.5]), 400)
    low, high, _ = result.interval("Car", "3d")
    assert low < result.ap("Car", "3d") < high
    tree = result.to_json()["bootstrap"]
    assert tree["official"]["Car"]["3d"]["R40"]["low"][1] == low and tree["n_clusters"] == 60 and tree["seed"] == 3
    assert f"{result.ap('Car', '3d'):.2f} [{low:.2f}, {high:.2f}]" in result.table()
    again = drawn(*made_up(), n_replicates=400, seed=3)
    assert np.array_equal(values, again.replicates.values["official", "Car", "3d", "moderate", "R40"])
    with pytest.raises(ValueError, match="there are no intervals: evaluate with a bootstrap"):
        evaluate_objects(*made_up(3), ["Car"]).interval("Car", "3d")


def test_a_replicate_without_ground_truth_has_no_figure_and_is_counted() -> None:
    labels, detections = made_up(6)
    result = drawn([*labels[:1], *[[]] * 5], detections, n_replicates=300)
    _, _, n = result.interval("Car", "3d")
    assert 0.5 < n / 300 < 0.8  # 1 - (5/6)^6 = 0.67
    said = f"intervals come from {n} at easy, {n} at moderate, {n} at hard"
    assert f"Car: only some of 300 replicates have an AP, so {said}" in result.table()
    assert "note: the intervals are too narrow, since there are only 6 frames" in result.table()


def test_differences_are_paired() -> None:
    labels, good = made_up(found=0.8)
    bad = [[det for det in dets if det.score > 0.3] for dets in good]  # the same with fewer detections
    first, second = (drawn(labels, dets, n_replicates=500) for dets in (good, bad))
    value, low, high, n, share = first.difference(second, "Car", "bbox", recall="all")
    assert value == pytest.approx(first.ap("Car", "bbox", recall="all") - second.ap("Car", "bbox", recall="all"))
    assert 0 < low < value < high and (n, share) == (500, 1.0)
    single = first.interval("Car", "bbox", recall="all")
    assert high - low < single.high - single.low
    assert first.difference(first, "Car", "bbox")[:5] == (0, 0, 0, 500, 0)
    assert f"{value:+.2f} [{low:+.2f}, {high:+.2f}] 100%" in first.difference_table(second)
    tree = first.differences_to_json(second)["official"]["Car"]["bbox"]["all"]
    assert (tree["difference"][1], tree["share_better"][1]) == (value, 1.0)
    names = Clusters(tuple(f"other {k}" for k in range(60)), np.arange(60), "frames")
    resampling = Resampling(names, 500)
    renamed = evaluate_objects(labels, bad, ["Car"], resampling=resampling)
    drawn_again = drawn(labels, bad, n_replicates=500, seed=1)
    for other in (renamed, drawn_again, drawn(labels[:-1], bad[:-1], n_replicates=500)):
        with pytest.raises(ValueError, match="the same frames, clusters, seed and number of replicates"):
            first.difference(other, "Car", "bbox")


def test_refused_draws() -> None:
    labels, detections = made_up(3)
    for options, message in (
        ({"n_replicates": 1}, "expected 2 to 20000 replicates, got 1"),
        ({"n_replicates": 20001}, "got 20001"),
        ({"seed": -1}, "seed: expected 0 or more, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            drawn(labels, detections, **options)
    with pytest.raises(ValueError, match="expected at least 2 clusters, got 1 frame"):
        drawn(labels[:1], detections[:1])
    resampling = Resampling(Clusters(("a", "b"), np.array([0, 1]), "frames"))
    with pytest.raises(ValueError, match="resampling has 2 frames, labels have 3"):
        evaluate_objects(labels, detections, ["Car"], resampling=resampling)


# ---- clusters ----


def test_clusters_of_kittis_frames_are_drives() -> None:
    table = [f"{frame:06d}" for frame in range(7481)]
    drives = cluster_frames(table, "nowhere/training/label_2")
    assert len(drives.names) == 141 and (drives.unit, drives.source) == ("drives", "KITTI's")
    splits = [(Path("data/KITTI/ImageSets") / f"{name}.txt").read_text().split() for name in ("train", "val")]
    of_split = [set(drives.of_frame[[int(frame) for frame in ids]].tolist()) for ids in splits]
    assert not of_split[0] & of_split[1] and sum(map(len, of_split)) == 141
    other = cluster_frames([*table[:3], "a-1"], "nowhere/training/label_2")
    assert other.describe() == "4 frames (not all ids are those of KITTI)"
    with pytest.raises(ValueError, match="KITTI's lacks 1 of 2 frames, the first is 'a-1'"):
        cluster_frames(["000000", "a-1"], "nowhere/training/label_2", "drives")


def test_labels_near_the_root_and_relative_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster_frames(["000000", "000001"], "/labels").source == "KITTI's"
    (tmp_path / "training" / "label_2").mkdir(parents=True)
    (tmp_path / "drives.csv").write_text("000000,a\n")
    monkeypatch.chdir(tmp_path / "training" / "label_2")
    assert cluster_frames(["000000"], "../label_2").source == str(tmp_path / "drives.csv")


@pytest.mark.parametrize("of_frame", [[0, 0, 1, 1], [0, 1, 5, 1], [-1, 0, 1, 2]])
def test_clusters_must_have_frames(of_frame: list[int]) -> None:
    with pytest.raises(ValueError, match="of_frame must contain each of 0 to 2, the indices of names, and no other"):
        Clusters(("a", "b", "c"), np.array(of_frame), "clusters")


def test_clusters_of_files(tmp_path: Path) -> None:
    label_dir, path = tmp_path / "training" / "label_2", tmp_path / "drives.csv"
    path.write_text("id,drive,more\n000000, b,1\n\n000001,a\n000002,b\n")
    own = cluster_frames(["000001", "000002", "000000"], label_dir)
    assert (own.names, own.of_frame.tolist(), own.source) == (("a", "b"), [0, 1, 1], str(path))
    assert cluster_frames(["000001", "7"], label_dir).describe() == f"2 frames (not all ids are those of {path})"
    assert cluster_frames(["000001"], label_dir, "frames").describe() == "1 frame"
    named = cluster_frames(["000001", "000000"], "nowhere", path)
    assert named.describe() == f"2 clusters ({path})"
    with pytest.raises(FileNotFoundError, match="no such file of clusters; accepted are also 'drives' and 'frames'"):
        cluster_frames(["000001"], label_dir, "drive")
    for text in ("000000,a\0b\n", '000000,"a\n', "000000\n", "000000,\n"):
        path.write_text(text)
        with pytest.raises(ValueError, match="line 1: expected 'id,cluster' without quotes"):
            read_clusters(path)
    for text, message in (("1,a\n1,b\n", "line 2: frame '1' is already in the file"), ("id,a\n", "no frames")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            cluster_frames(["000000"], label_dir)
