"""Comparing arms: the statistics, the arms, and whole comparisons, most of them with a stand-in for the training."""

import csv
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats

from lib.analysis.depth_error import depth_errors
from lib.comparison import execution, planning
from lib.comparison import run as comparison_run
from lib.comparison.figures import ap_figures, depth_figures, main_figures
from lib.comparison.planning import plan_runs, read_arms
from lib.comparison.plot import plot_comparison
from lib.comparison.statistics import summarize
from lib.comparison.table import Comparison
from lib.config import load_config
from lib.evaluation import evaluate_kitti, read_annotations
from lib.system.lock import lock
from tests.conftest import PATIENCE, PROJECT, descendants, is_running, wait_until
from tools import compare

YAML = """
general: {{random_seed: 3, dataroot: {root}}}
dataset: {{batch_size: 2, num_workers: 0, resolution: [96, 64], writelist: [Car, Pedestrian], obj_depth_source: labels}}
model: {{backbone: dla34_narrow, pretrained: false}}
trainer: {{max_epoch: 1, save_interval_minutes: 1.0e-9}}
tester: {{threshold: 0.0, topk: 5, map_to_image: exact, checkpoint: checkpoint_epoch_140.pth}}
"""
ARMS = """
plain: {general.qi: false}
qi: {general.qi: true, general.qi_weight: 0.5}
strong: {general.qi: true, general.qi_weight: 2}
"""
STAND_IN = f"""
# Writes the files that train_val.py writes, without a training. Files in its working directory make it fail or wait.
import json, os, signal, sys, time, zlib
from pathlib import Path
sys.path.insert(0, {str(PROJECT)!r})
import yaml
from lib.config import dump_config, load_config
from lib.system.lock import lock
config = load_config(sys.argv[sys.argv.index("--config") + 1], sys.argv[sys.argv.index("--set") + 1 :])
name, epochs = config.general.exp_name, config.trainer.max_epoch
def end(*_):
    print("saved", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
with open("started.txt", "a") as file:
    file.write(f"{{name}} {{os.environ.get('OMP_NUM_THREADS')}} {{os.environ.get('CUDA_VISIBLE_DEVICES')}}\\n")
if Path("fail_" + name).exists():
    sys.exit(print("\\repoch 1: 10%\\rerror: it does not work") or 2)
run = Path("outputs") / name
with lock(run):
    (run / "config.yaml").write_text(yaml.safe_dump(dump_config(config)))
    while Path("wait_" + name).exists():
        time.sleep(0.02)
    record = {{"epoch": epochs, "losses": {{"depth": config.general.random_seed / 8, "total": 1.0}}}}
    record["zero_share"] = {{"depth": config.general.random_seed / 4}}
    earlier = [{{**record, "epoch": 0, "zero_share": share}} for share in ({{}}, {{"depth": 0.25}})]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in [*earlier, record]))
    results = run / f"results/checkpoint_epoch_{{epochs}}/{{config.tester.split}}"
    (results / "data").mkdir(parents=True, exist_ok=True)
    for label in (Path(config.general.dataroot) / "training/label_2").glob("*.txt"):
        lines = [line for line in label.read_text().splitlines() if line.startswith("Car")]
        (results / "data" / label.name).write_text("".join(f"{{line}} 0.9\\n" for line in lines))
    (results / "config.yaml").write_text(yaml.safe_dump(dump_config(config)))
    value = zlib.crc32(name.encode()) % 2000 / 100
    three = {{m: {{"R40": [value, value / 2, value / 4]}} for m in ("bbox", "aos", "bev", "3d")}}
    never = name == "qi_seed2"  # a run that never detected a Pedestrian
    figures = {{"Car": three}} if never else {{"Car": three, "Pedestrian": three}}
    ap = {{"classes": ["Car", "Pedestrian"], "official": figures, "loose": figures}}
    total = {{"median_absolute": value / 10, "mean_absolute": value / 5, "mean_relative": 0.25, "recall": 0.5}}
    bands = [{{"near": 0.0, "far": 10.0, "median_absolute": None}}]
    depth = [{{"class": "Car", "total": total, "bands": bands}}]
    (results / "depth_error.json").write_text(json.dumps(depth))
    (results / "ap.tmp").write_text(json.dumps(ap))
    (results / "ap.tmp").rename(results / "ap.json")  # whole or not at all, as train_val.py writes it
"""
FIRST = "Car 3D moderate AP40"


# ---------------------------------------------------------------------------------------------------------- statistics


# the machine may be busy; the same examples in every run
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.lists(st.floats(-100, 100), min_size=2, max_size=12))
def test_a_sample_has_scipys_interval(values):
    sample = summarize(values)
    assert (sample.n, sample.left_out) == (len(values), 0)
    assert sample.mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9)
    assert sample.deviation == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-9)
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), max(stats.sem(values), 1e-300))
    assert (sample.low, sample.high) == pytest.approx((low, high), rel=1e-9, abs=1e-7)


def test_fewer_than_two_values_have_no_interval():
    one = summarize([math.nan, 7.0, math.nan])
    assert one[:3] == (1, 2, 7.0) and all(map(math.isnan, one[3:]))
    nothing = summarize([math.nan])
    assert nothing[:2] == (0, 1) and math.isnan(nothing.mean)


def test_intervals_over_drives_are_those_of_means_over_seeds():
    rng = np.random.default_rng(0)
    comparison = made_up()
    drawn = {key: {FIRST: rng.normal(run[FIRST], 1, 200)} for key, run in comparison.runs.items()}
    comparison = Comparison(comparison.arms, comparison.seeds, comparison.runs, drawn, "drives")
    low, high, n = comparison.interval("a", FIRST)
    assert (low, high) == tuple(np.percentile(sum(drawn["a", s][FIRST] for s in (1, 2, 3)) / 3, [2.5, 97.5]))
    changes = [drawn["b", s][FIRST] - drawn["a", s][FIRST] for s in (1, 3)]  # b has no figure with seed 2
    low, high, n = comparison.interval_of_difference("b", FIRST)
    assert (low, high) == pytest.approx(np.percentile(np.mean(changes, axis=0), [2.5, 97.5])) and n == 200
    table = comparison.table([FIRST]).splitlines()
    assert table[1].split() == "n mean sd 95%, drives pairs difference 95%, seeds 95%, drives".split()
    assert table[3].endswith(f"{low:+.2f} .. {high:+.2f}")
    row = list(csv.DictReader(comparison.to_csv().splitlines()))[1]
    assert float(row["difference_bootstrap_low"]) == pytest.approx(low)
    del drawn["b", 3]  # a run whose result files are lost
    assert math.isnan(comparison.interval("b", FIRST).low) and comparison.interval("a", FIRST).replicates == 200


# ------------------------------------------------------------------------------------------------------------- figures


def test_figures_are_those_of_the_evaluation(tiny_kitti, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    for path in (tiny_kitti / "training/label_2").iterdir():
        lines = [line for line in path.read_text().splitlines() if line.startswith("Car")]
        (results / path.name).write_text("".join(f"{line} 0.9\n" for line in lines))
    result = evaluate_kitti(tiny_kitti / "training/label_2", results, None, ["Pedestrian", "Car"])
    figures = ap_figures(result.to_json())
    assert len(figures) == 2 * 15
    for metric, title in (("3d", "3D"), ("bev", "BEV"), ("bbox", "2D")):
        assert figures[f"Car {title} moderate AP40"] == result.ap("Car", metric, "moderate")
    assert figures[f"{FIRST} loose"] == result.ap("Car", "3d", overlap="loose") > 0
    assert figures["Pedestrian 3D moderate AP40"] == 0  # there are Pedestrians, and none is detected
    ids = ["000000", "000001"]
    annotations = read_annotations(tiny_kitti / "training/label_2", ids, False), read_annotations(results, ids, True)
    depth = depth_figures([depth_errors(*annotations, name).to_json() for name in ("Car", "Pedestrian")])
    assert depth["Car depth error: median, 20-30 m [m]"] == 0
    assert depth["Car found in the image [%]"] == 100 and depth["Pedestrian found in the image [%]"] == 0
    assert math.isnan(depth["Pedestrian depth error: mean [m]"]) and len(depth) == 2 * (4 + 7)
    assert set(main_figures(["Car"])) <= set(figures | depth)


def made_up() -> Comparison:
    """Three arms, three seeds; one run is missing, one has no figure, and arm c always has the same gain of 1."""
    values = {"a": (10.0, 12.0, 14.5), "b": (11.0, math.nan, 15.0), "c": (11.0, 13.0)}
    runs = {(arm, k + 1): {FIRST: value} for arm, row in values.items() for k, value in enumerate(row)}
    return Comparison(("a", "b", "c"), (1, 2, 3), runs)


def test_the_table_worked_out_by_hand():
    table = [line.split() for line in made_up().table([FIRST]).splitlines()]
    assert table[0][-3:] == ["difference", "to", "a"]
    assert table[2] == ["a", "3", "12.17", "2.25"]
    # b - a: 1.0 and 0.5; half the width is 12.7062 * 0.35355 / sqrt(2) = 3.1766
    assert table[3] == "b 2 of 3 13.00 2.83 2 of 3 +0.75 -2.43 .. +3.93".split()
    assert table[4] == "c 2 12.00 1.41 2 +1.00 +1.00 .. +1.00".split()
    for runs, row in (({"b": 2.0}, "b 1 2.00 - 1 -1.00 -"), ({}, "b 0 - - 0 - -")):
        few = Comparison(("a", "b"), (1,), {(arm, 1): {FIRST: value} for arm, value in ({"a": 3.0} | runs).items()})
        assert few.table([FIRST]).splitlines()[-1].split() == row.split()


def test_the_image_has_a_dot_for_each_value():
    def dots(*values):
        comparison = Comparison(("a",), (1, 2, 3), {("a", k + 1): {"$x$ in %": v} for k, v in enumerate(values)})
        image = cv2.imdecode(np.frombuffer(plot_comparison(comparison, ["$x$ in %"] * 2), np.uint8), cv2.IMREAD_COLOR)
        return int((np.abs(image.astype(int) - (233, 180, 86)) < 12).all(axis=2).sum())

    legend = dots()
    assert dots(math.nan) == legend > 20
    assert dots(3.0, math.nan, 9.0) == pytest.approx(5 * legend, rel=0.1)  # two panels


# ---------------------------------------------------------------------------------------------------------------- arms


@pytest.fixture
def folder(tiny_kitti, tmp_path, monkeypatch):
    """A working directory with an experiment, arms, and stand-ins for the training and for drawing, which is slow."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(YAML.format(root=tiny_kitti))
    (tmp_path / "arms.yaml").write_text(ARMS)
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.setattr(compare, "TRAIN_VAL", tmp_path / "stand_in.py")
    monkeypatch.setattr(comparison_run, "plot_comparison", lambda comparison, figures: b"")
    monkeypatch.setattr(execution, "POLL_SECONDS", 0.02)
    return tmp_path


def call(*arguments, arms=("plain", "qi"), seeds=2):
    given = ["--config", "base.yaml", "--arms-file", "arms.yaml", "--out", "out", "--seeds", str(seeds)]
    return compare.main([*given, "--arms", *arms, *arguments])


def started(folder) -> list[str]:
    path = folder / "out/started.txt"
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize(
    ("arms", "text", "output"),
    [
        (["plain", "qii"], ARMS, "--arms: arms.yaml has no arm 'qii'; did you mean 'qi'?"),
        (["plain", "plain"], ARMS, "--arms: 'plain' is given twice"),
        (["plain"], "", "arms.yaml: expected a mapping of arms"),
        (["plain"], "plain: {general.qi: true, general.qi: true}", "key 'general.qi' is written twice"),
        (["plain"], "plain: general.qi=true", "arm 'plain': expected a mapping such as {general.qi: false}"),
        (["plain"], "plain: {general.K: 2026-01-01}", "arm 'plain': expected numbers, texts, true, false"),
        (["plain"], "plain: {general.random_seed: 3}", "arm 'plain': general.random_seed=3: the comparison sets"),
        (["../x"], "../x: {}", "the name of an arm may have letters, digits and _ . + -, got '../x'"),
        (["plain", "same"], "plain: {}\nsame: {general.K: 1.5}", "arms 'plain' and 'same' have the same configuration"),
    ],
)
def test_mistakes_in_arms_are_reported_before_anything_starts(folder, capsys, arms, text, output):
    (folder / "arms.yaml").write_text(text)
    assert call(arms=arms) == 2
    error = capsys.readouterr().err
    assert output in error and error.count("\n") == 1
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["--arms-file", "no.yaml"], "no.yaml: no such file of arms"),
        (["--config", "no.yaml"], "no.yaml: no such config file"),
        (["--seeds", "0"], "--seeds must be a number >= 1, or the first and the last seed, such as 6-10, got 0"),
        (["--seeds", "9-6"], "such as 6-10, got 9-6"),
        (["--jobs", "0"], "--jobs must be >= 1, got 0"),
        (["--bootstrap", "-3"], "--bootstrap must be 0 (none) or 2 to 20000, got -3"),
        (["--out", "base.yaml"], "--out must be a folder, base.yaml is a file"),
        (["--report-only"], "no such folder of a comparison"),
        (["--set", "general.qi=true"], "--set: general.qi=true: arm 'plain' sets this key"),
        (["--jobs", "2", "--set", "trainer.gpu_ids=1"], "trainer.gpu_ids=1: the comparison sets this key itself"),
        (["--config", "resuming.yaml"], "trainer.resume_model must be empty"),
        (["--set", "tester.split=test"], "tester.split must have labels, got 'test'"),
        (["--set", "general.dataroot=nowhere"], "general.dataroot='nowhere': no folder ImageSets"),
        (["--set", "general.obj_depth=true", "dataset.obj_depth_source=files"], "obj_depth_all: 1 of"),
    ],
)
def test_mistakes_on_the_command_line(folder, capsys, arguments, output):
    (folder / "resuming.yaml").write_text("trainer: {resume_model: x.pth}")
    assert call(*arguments) == 2
    error = capsys.readouterr().err
    assert output in error and error.count("\n") == 1
    assert not (folder / "out").exists()


@pytest.mark.parametrize("base", sorted((PROJECT / "experiments").glob("*/kitti_*.yaml")), ids=lambda p: p.stem)
def test_the_arms_of_the_project(base, tmp_path):
    names = ["monodle", "qi", "obj_depth", "ddml", "ddml_corrected", "ddml_scaled", "ddml_bf16"]
    runs = plan_runs(base, read_arms(compare.ARMS_FILE, names), [1, 2], [], [], tmp_path)
    assert [run.name for run in runs[:8]] == [*(f"{name}_seed1" for name in names), "monodle_seed2"]
    for run in runs:
        general = run.config.general
        assert general.qi == (run.arm not in ("monodle", "obj_depth"))
        assert general.obj_depth == (run.arm not in ("monodle", "qi"))
        assert (general.qi_lower_bound == "corrected") == (run.arm in ("ddml_corrected", "ddml_scaled"))
        assert general.qi_fit_scale == (run.arm == "ddml_scaled")
        assert (run.config.trainer.amp == "bf16") == (run.arm == "ddml_bf16")
        assert load_config(base, run.overrides) == run.config
        assert run.config.tester.checkpoint == "" and general.random_seed == run.seed


def test_relative_files_are_found_from_the_runs(folder):
    (folder / "weights.pth").write_bytes(b"")
    runs = plan_runs(Path("base.yaml"), {"a": []}, [1], ["trainer.pretrain_model=weights.pth"], [], folder / "out")
    assert runs[0].config.trainer.pretrain_model == str(folder / "weights.pth")
    (folder / "README.md").touch()
    with pytest.raises(ValueError, match=r"trainer.pretrain_model: 'README.md' may mean"):
        plan_runs(Path("base.yaml"), {"a": []}, [1], ["trainer.pretrain_model=README.md"], [], folder / "out")
    assert load_config("base.yaml", runs[0].overrides) == runs[0].config


# --------------------------------------------------------------------------------------------------- whole comparisons


def tables(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in ("comparison.txt", "comparison.csv", "runs.csv")}


def table_rows(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    return {(row["figure"], row["arm"]): row for row in csv.DictReader(path.read_text().splitlines())}


def test_a_comparison_and_the_same_again(folder, monkeypatch, capsys):
    with monkeypatch.context() as undone:
        undone.setattr(comparison_run, "plot_comparison", plot_comparison)
        assert call() == 0
    output = capsys.readouterr().out
    assert started(folder) == ["plain_seed1", "qi_seed1", "plain_seed2", "qi_seed2"]
    assert "finished: 4 of 4 runs" in output and "comparison.txt (all 39 figures)" in output
    out = folder / "out"
    text = (out / "comparison.txt").read_text()
    assert "plain: general.qi=false" in text and "final loss: depth" in text and "missing" not in text
    assert (out / "logs/qi_seed2.log").read_text().startswith("--- ") and "plain_seed1: started" in output
    runs = {(r["arm"], r["seed"]): r for r in csv.DictReader((out / "runs.csv").read_text().splitlines())}
    values = {key: float(run[FIRST]) for key, run in runs.items()}
    assert len(set(values.values())) == 4 and runs["qi", "2"]["Pedestrian 3D easy AP40"] == ""
    rows = table_rows(out / "comparison.csv")
    gains = [values["qi", seed] - values["plain", seed] for seed in "12"]
    assert float(rows[FIRST, "qi"]["difference"]) == pytest.approx(sum(gains) / 2, rel=1e-12)
    assert rows["Pedestrian 3D easy AP40", "qi"]["without_figure"] == "1"
    assert "1000 replicates of 4 drives (KITTI's), seed 0" in text and "95%, drives" in text
    equal = rows[FIRST, "qi"]  # the files of all runs are equal
    assert equal["difference_bootstrap_low"] == equal["difference_bootstrap_high"] == "0.0"
    assert float(rows["final loss: depth", "plain"]["mean"]) == 1.5 / 8
    assert float(rows["steps with loss 0 [%]: depth", "qi"]["mean"]) == pytest.approx(100 * (0 + 0.25 + 1.5 / 4) / 3)
    assert float(rows["Car depth error: median [m]", "qi"]["difference"]) == pytest.approx(sum(gains) / 10, rel=1e-12)
    assert rows["Car depth error: median, 0-10 m [m]", "qi"]["without_figure"] == "2"
    assert cv2.imread(str(out / "comparison.png")) is not None

    before = tables(out)
    assert call() == 0 and len(started(folder)) == 4
    assert "4 runs, 4 of them finished" in capsys.readouterr().out
    assert call("--report-only") == 0 and tables(out) == before
    # keys without influence may change; a further seed is trained, and a further arm
    assert call("--set", "dataset.num_workers=3", "trainer.report=false") == 0 and len(started(folder)) == 4
    assert call(seeds=3, arms=("plain", "qi", "strong")) == 0
    assert started(folder)[4:] == ["strong_seed1", "strong_seed2", "plain_seed3", "qi_seed3", "strong_seed3"]


def test_arms_on_different_frames_have_no_common_replicates(folder, capsys):
    (folder / "arms.yaml").write_text("plain: {}\nother: {tester.split: train}\n")
    lists = Path(load_config(folder / "base.yaml").general.dataroot) / "ImageSets"
    (lists / "train.txt").write_text("".join((lists / "val.txt").read_text().splitlines(True)[:2]))
    assert call(arms=("plain", "other"), seeds="1-1") == 0
    assert "draws for all runs; none: the runs have different frames" in capsys.readouterr().out
    assert call("--bootstrap", "0", arms=("plain", "other"), seeds=1) == 0
    assert "draws for all runs; none\n" in capsys.readouterr().out


def test_runs_of_another_configuration_are_refused(folder, capsys):
    assert call() == 0
    before = tables(folder / "out")
    for changed in ([], ["--report-only"]):
        assert call("--set", "dataset.batch_size=4", *changed) == 2
        error = capsys.readouterr().err
        assert "plain_seed1 was made with another configuration: dataset.batch_size=2 (now 4); choose another" in error
    path = folder / "out/outputs/qi_seed2/results/checkpoint_epoch_1/val/config.yaml"
    path.write_text(path.read_text().replace("topk: 5", "topk: 9"))  # evaluated again, otherwise
    assert call() == 2
    assert "qi_seed2 was made with another configuration: tester.topk=9 (now 5)" in capsys.readouterr().err
    assert tables(folder / "out") == before and len(started(folder)) == 4


def test_half_finished(folder, capsys):
    (folder / "out").mkdir()
    assert call("--report-only") == 0
    assert "finished: 0 of 4 runs" in capsys.readouterr().out
    assert not (folder / "out/comparison.png").exists()
    for name in ("qi_seed1", "plain_seed2"):
        (folder / f"out/fail_{name}").touch()
    assert call() == 1
    output = capsys.readouterr()
    assert len(started(folder)) == 4  # the other runs are not affected
    assert "2 runs failed; the same command tries them again" in output.err
    assert "qi_seed1: status 2: error: it does not work (all output: " in output.err
    assert call("--report-only") == 0
    output = capsys.readouterr().out
    assert "finished: 2 of 4 runs" in output
    assert "missing: qi_seed1 (0 of 1 epoch), plain_seed2 (0 of 1 epoch)" in output
    runs = csv.DictReader((folder / "out/runs.csv").read_text().splitlines())
    assert [run["state"] for run in runs] == ["finished", "missing", "missing", "finished"]
    for failing in (folder / "out").glob("fail_*"):
        failing.unlink()
    assert call() == 0
    assert started(folder)[4:] == ["qi_seed1", "plain_seed2"]


def test_files_of_figures_that_are_broken_or_missing(folder, capsys):
    assert call() == 0
    results = folder / "out/outputs/qi_seed1/results/checkpoint_epoch_1/val"
    for text in ("[", "{", "[{}]", '[{"class": "Car", "total": {"median_absolute": "x"}}]', "3"):
        (results / "depth_error.json").write_text(text)
        assert call("--report-only") == 2
        assert f"{results / 'depth_error.json'}: " in capsys.readouterr().err
    (results / "depth_error.json").unlink()  # a run of an older version
    assert call("--report-only") == 0
    rows = table_rows(folder / "out/comparison.csv")
    assert [rows["Car depth error: mean [m]", "qi"][key] for key in ("n", "without_figure")] == ["1", "1"]
    for text in ("{", "{}", "[]", '{"classes": ["Car"], "official": {"Car": 3}, "loose": {}}'):
        (results / "ap.json").write_text(text)
        assert call("--report-only") == 2
        assert f"{results / 'ap.json'}: " in capsys.readouterr().err


def test_an_experiment_that_changes_meanwhile_fails_its_runs(folder, monkeypatch, capsys):
    def change(_):
        base = folder / "base.yaml"
        base.write_text(base.read_text().replace("batch_size: 2", "batch_size: 4"))

    monkeypatch.setattr(comparison_run, "check_data", change)
    assert call() == 1 and started(folder) == []
    error = capsys.readouterr().err
    assert "4 runs failed" in error and "base.yaml has changed since this command was started" in error


def test_several_jobs_share_the_cores(folder, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (folder / "out").mkdir()
    for name in ("plain_seed1", "qi_seed1", "plain_seed2"):
        (folder / "out" / f"wait_{name}").touch()
    process = compare_in_a_process(folder, "--jobs", "3")
    wait_until(lambda: len(started(folder)) == 3, process)
    (folder / "out/wait_plain_seed2").unlink()
    wait_until(lambda: len(started(folder)) == 4, process)  # the third place is free again, the first two are not
    for path in (folder / "out").glob("wait_*"):
        path.unlink()
    assert process.wait(PATIENCE) == 0
    assert {line.split()[1] for line in (folder / "out/started.txt").read_text().splitlines()} == {"2"}
    assert load_config(folder / "out/outputs/qi_seed1/config.yaml").trainer.gpu_ids == ()
    assert call() == 0 and len(started(folder)) == 4  # one process on whatever device is one process


def test_gpus_are_those_that_the_process_sees(monkeypatch, tmp_path):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    def slots(gpus=(), jobs=None, **environment):
        files = {name: tmp_path for name in ("config", "arms_file", "out", "train_script")}
        options = comparison_run.CompareOptions(**files, arms=["a"], environment=environment, gpus=gpus, jobs=jobs)
        return [slot.environment for slot in comparison_run.slots_for(options)]

    first, *others = slots([1, 0, 0], A="b", OMP_NUM_THREADS="5")
    assert first == {"A": "b", "OMP_NUM_THREADS": "5", "CUDA_VISIBLE_DEVICES": "1"}
    assert [each["CUDA_VISIBLE_DEVICES"] for each in others] == ["0", "0"]
    chosen = slots([0, 1], CUDA_VISIBLE_DEVICES="3, GPU-8f")
    assert [each["CUDA_VISIBLE_DEVICES"] for each in chosen] == ["3", "GPU-8f"]
    for wrong in (2, -1):
        with pytest.raises(ValueError, match=f"--gpus: no GPU {wrong}; this process sees 2, counted from 0"):
            slots([wrong])
    assert len(slots()) == 1 and len(slots(jobs=3)) == 3


# ------------------------------------------------------------------------------------------- -- interruption


def compare_in_a_process(folder: Path, *arguments: str, wait_inside: str | None = None) -> subprocess.Popen:
    """As from a shell, with the stand-in; or with real training, which waits inside "run epoch" where that is given."""
    code = "import sys\nfrom pathlib import Path\nfrom lib.comparison import run\nfrom tools import compare\n"
    code += "run.available_cores = lambda: 8\n"
    if wait_inside:
        code += f"compare.TRAIN_VAL = Path({str(PROJECT / 'tests/waiting_train_val.py')!r})\n"
    elif wait_inside is None:
        code += f"compare.TRAIN_VAL = Path({str(folder / 'stand_in.py')!r})\nrun.plot_comparison = lambda *_: b''\n"
    code += "sys.exit(compare.main(sys.argv[1:]))"
    given = ["--config", "base.yaml", "--arms-file", "arms.yaml", "--out", "out", "--seeds", "2"]
    command = [sys.executable, "-c", code, *given, "--arms", "plain", "qi", *arguments]
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "WAIT_INSIDE": wait_inside or ""}
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)


def kill_tree(process: subprocess.Popen) -> None:
    """As in a power cut: no process can react."""
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)  # it has stopped, and starts no other process
    pids = [process.pid, *descendants(process.pid)]
    for pid in reversed(pids):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(map(is_running, pids)))  # a process that still ends holds its locks


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_after_a_signal_the_runs_save(folder, signum, status):
    (folder / "out").mkdir()
    (folder / "out/wait_qi_seed1").touch()
    process = compare_in_a_process(folder)
    wait_until(lambda: "qi_seed1" in started(folder), process)
    process.send_signal(signum)
    assert process.wait(PATIENCE) == status
    output = (folder / "output.txt").read_text()
    assert "run the same command again to continue" in output and "Traceback" not in output
    assert (folder / "out/logs/qi_seed1.log").read_text().splitlines()[-1] == "saved"
    assert started(folder) == ["plain_seed1", "qi_seed1"]
    (folder / "out/wait_qi_seed1").unlink()
    assert call() == 0
    assert started(folder)[2:] == ["qi_seed1", "plain_seed2", "qi_seed2"]


def test_killed_inside_a_run_and_between_two(folder):
    assert call("--out", "whole") == 0
    (folder / "out").mkdir()
    waits = {name: folder / "out" / f"wait_{name}" for name in ("plain_seed1", "qi_seed1")}
    for wait in waits.values():
        wait.touch()
    for name, wait in waits.items():
        process = compare_in_a_process(folder)
        wait_until(lambda name=name: name in started(folder), process)
        kill_tree(process)
        wait.unlink()
    assert call() == 0
    assert started(folder) == ["plain_seed1", "plain_seed1", "qi_seed1", "qi_seed1", "plain_seed2", "qi_seed2"]
    assert tables(folder / "out") == tables(folder / "whole")


def test_a_run_that_another_process_trains_fails(folder, capsys):
    with lock(folder / "out/outputs/plain_seed1"):
        assert call() == 1
    assert "plain_seed1: status 1: " in (error := capsys.readouterr().err) and "another run is writing there" in error
    assert call() == 0
    assert started(folder) == ["plain_seed1", "qi_seed1", "plain_seed2", "qi_seed2", "plain_seed1"]


# ------------------------------------------------------------------------------------------------------- real training


@pytest.mark.slow
def test_real_runs_killed_in_between_give_the_same_tables(folder, tiny_kitti):
    """Real trainings: killed inside the first epoch and between the second run and the third, then ended by SIGTERM."""
    training = tiny_kitti / "training"
    for k in range(4, 16):
        for name, suffix in (("image_2", "png"), ("calib", "txt"), ("label_2", "txt")):
            shutil.copy(training / name / f"{k % 4:06d}.{suffix}", training / name / f"{k:06d}.{suffix}")
    (tiny_kitti / "ImageSets/train.txt").write_text("".join(f"{k:06d}\n" for k in range(16)))

    def finish(out):
        status = compare_in_a_process(folder, "--out", out, wait_inside="").wait(PATIENCE)
        assert status == 0, (folder / "output.txt").read_text()

    finish("whole")
    outputs = folder / "out/outputs"
    parts = ("plain_seed1/checkpoints/checkpoint_last.pth", "qi_seed1/results/checkpoint_epoch_1/val/ap.json")
    for part, wait_inside in zip(parts, ("plain_seed1 0", "plain_seed2 0"), strict=True):
        process = compare_in_a_process(folder, wait_inside=wait_inside)
        wait_until((outputs / part).is_file, process)
        kill_tree(process)
    output = folder / "output.txt"
    before = len(output.read_text())  # the one killed last may have started plain_seed2 too
    process = compare_in_a_process(folder, wait_inside="plain_seed2 0")
    wait_until(lambda: "plain_seed2: started" in output.read_text()[before:], process)
    wait_until((outputs / "plain_seed2/checkpoints/checkpoint_last.pth").is_file, process)
    process.terminate()
    assert process.wait(PATIENCE) == 143
    finish("out")
    assert tables(folder / "out") == tables(folder / "whole")
    assert "resuming from" in (folder / "out/logs/plain_seed1.log").read_text()
    runs = list(csv.DictReader((folder / "out/runs.csv").read_text().splitlines()))
    assert [run["state"] for run in runs] == ["finished"] * 4
    assert runs[0]["final loss: total"] != runs[2]["final loss: total"]  # another seed is another run
    assert [bool(run["final loss: quasi_isometric"]) for run in runs] == [False, True] * 2


def test_a_run_without_a_usable_detection_counts_as_0():
    counts = {"Car": {"bbox": {"valid_ground_truth": [3, 5, 0]}}}
    present = {"bbox": {"R40": [1.0, 2.0, None]}}
    ap = {"classes": ["Car", "Cyclist"], "official": {"Car": present}, "loose": {}, "counts": {"official": counts}}
    figures = ap_figures(ap)
    assert [figures[f"Car 3D {name} AP40"] for name in ("easy", "moderate")] == [0.0, 0.0]
    assert figures["Car 2D moderate AP40"] == 2.0 and math.isnan(figures["Car 3D hard AP40"])
    assert math.isnan(figures["Cyclist 3D moderate AP40"])


def test_arms_may_have_sections(tmp_path):
    (tmp_path / "arms.yaml").write_text("a: {general: {qi: false, K: 2}}\nb: {general.qi: true}\n")
    expected = {"a": ["general.qi=false", "general.K=2"], "b": ["general.qi=true"]}
    assert read_arms(tmp_path / "arms.yaml", ["a", "b"]) == expected


def test_an_arm_for_each_value_of_a_key(folder, capsys):
    given = ["--config", "base.yaml", "--out", "out", "--seeds", "2", "--over"]
    assert compare.main([*given, "general.K=1.25,1.5, 2"]) == 0
    assert started(folder) == [f"K_{value}_seed{seed}" for seed in (1, 2) for value in ("1.25", "1.5", "2")]
    assert load_config(folder / "out/outputs/K_1.25_seed2/config.yaml").general.K == 1.25
    for over, message in (
        ("general.K", "expected a key and two or more values"),
        ("general.K=1", "expected a key and two or more values"),
        ("general.K=1,1", "two values would both be named K_1"),
        ("general.Q=1,2", "Q"),
    ):
        assert compare.main([*given, over]) == 2
        assert message in capsys.readouterr().err
    arms = planning.arms_over("dataset.resolution=[640, 192],[960, 288]")
    assert list(arms) == ["resolution_640_192", "resolution_960_288"]


def test_tables_for_papers_have_the_cells_of_the_text(folder):
    assert call() == 0
    text, markdown, latex = ((folder / "out" / f"comparison.{suffix}").read_text() for suffix in ("txt", "md", "tex"))
    assert "difference: the arm minus the first arm (plain)" in markdown
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    rows = {row[1]: row[2:] for row in table if row[0] == FIRST}
    for arm, row in rows.items():
        line = next(line for line in text.splitlines() if line.startswith(f"{arm} "))
        assert line.split()[1:] == " ".join(row).split()
    assert set(rows) == {"plain", "qi"} and len({len(row) for row in table}) == 1
    assert "\n\\begin{tabular}" in latex and latex.startswith("% base.yaml")
    assert "\\bottomrule" in latex and f"{FIRST} " in latex
