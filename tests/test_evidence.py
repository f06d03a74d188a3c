"""The judgement of the experiment in docs/evidence.md: statistics with independent answers, files, rules."""

import hashlib
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from lib.comparison import run as comparison_run
from lib.comparison.table import Comparison
from tests.test_compare import STAND_IN, YAML
from tools import compare
from tools.bench import evidence
from tools.bench.evidence import ARMS, JUDGED, holm, pairs_needed, power, read_runs, verdicts, write_runs

AP, ERROR = JUDGED


def test_power_is_that_of_simulated_tests():
    rng = np.random.default_rng(0)
    for pairs, level in ((8, 0.05), (16, 0.005)):
        differences = rng.normal(2.0, 2.2, (20_000, pairs))
        significant = stats.ttest_1samp(differences, 0, axis=1).pvalue < level
        assert power(pairs, 2.2, 2.0, level) == pytest.approx(significant.mean(), abs=0.012)
    needed = pairs_needed(2.2, 2.0, 0.05)
    assert power(needed, 2.2, 2.0, 0.05) >= 0.8 > power(needed - 1, 2.2, 2.0, 0.05)


def test_two_looks_have_the_level_of_one():
    """Normal differences without an effect are called significant at one of the two looks in 5 % of the cases."""
    rng = np.random.default_rng(1)
    (first, early), (last, late) = evidence.LOOKS.items()
    sums = rng.normal(size=(400_000, 2)) * np.sqrt([first, last - first])
    z = np.cumsum(sums, axis=1) / np.sqrt([first, last])
    found = (2 * stats.norm.sf(np.abs(z)) < [early, late]).any(axis=1).mean()
    assert found == pytest.approx(0.05, abs=0.0015)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def made_up(seeds: int = 16, shift: dict[str, tuple[float, float]] | None = None):
    """Runs and replicates with a common effect of the seed; ``shift``: arm -> what it adds to the two figures."""
    rng, runs, replicates = np.random.default_rng(2), {}, {}
    for seed in range(1, seeds + 1):
        common, frames = rng.normal(size=2), rng.normal(size=(2, 50))
        for arm in ARMS:
            value = np.array([20.0, 0.8]) + common * [2, 0.05] + rng.normal(size=2) * [0.5, 0.01]
            value += (shift or {}).get(arm, (0.0, 0.0))
            runs[arm, seed] = {AP: float(value[0]), ERROR: float(value[1]), "other": math.nan}
            drawn = value[:, None] + frames * [[0.3], [0.005]]
            replicates[arm, seed] = dict(zip(JUDGED, drawn.astype(np.float32), strict=True))
    return runs, replicates


def answers(shift, seeds=16):
    runs, replicates = made_up(seeds, shift)
    found = verdicts(Comparison(ARMS, tuple(range(1, seeds + 1)), runs, replicates, "frames"), evidence.LOOKS[seeds])
    return {(each.arm, each.figure): each.answer for each in found}


def test_the_rules():
    found = answers({"qi": (3.0, 0.2), "ddml": (-3.0, -0.2), "ddml_scaled": (2.0, 0.05)})
    assert (found["qi", AP], found["qi", ERROR]) == ("better", "worse")
    assert (found["ddml", AP], found["ddml", ERROR]) == ("worse", "better")
    assert (found["ddml_scaled", AP], found["ddml_scaled", ERROR]) == ("better", "worse")
    assert (found["obj_depth", AP], found["obj_depth", ERROR]) == ("no difference that matters",) * 2
    runs, replicates = made_up(shift={"qi": (3.0, 0.0)})
    wide = dict(replicates)
    for seed in range(1, 17):
        wide["qi", seed] = {name: v + np.linspace(-9, 9, 50) for name, v in replicates["qi", seed].items()}
    comparison = Comparison(ARMS, tuple(range(1, 17)), runs, wide, "frames")
    first = next(v for v in verdicts(comparison, 0.048) if (v.arm, v.figure) == ("qi", AP))
    assert first.p < 0.001 and first.answer == "undecided"  # it may be these frames only
    without = Comparison(ARMS, tuple(range(1, 17)), made_up(shift={"qi": (-3.0, 0.0)})[0])  # without replicates
    assert verdicts(without, 0.048)[0].answer == "undecided"
    assert answers({"qi": (1.0, 0.0)})["qi", AP] == "better, by less than matters"


ABOUT = {"unit": "drives", "draws": "50 replicates"}


def test_files_are_read_as_they_were_written_and_judged(tmp_path, capsys):
    arguments = ["judge", "--page", str(tmp_path), "--out", str(tmp_path / "out")]
    runs, replicates = made_up(9, shift={"ddml": (3.0, 0.0)})
    without = {key: figures for key, figures in runs.items() if key != ("qi", 3)}
    write_runs(tmp_path, without, replicates, ABOUT)
    again, drawn, about = read_runs(tmp_path)
    assert again.keys() == drawn.keys() == without.keys() and about == ABOUT
    for key, figures in without.items():
        assert {name: again[key][name] for name in JUDGED} == {name: figures[name] for name in JUDGED}
        assert all(np.array_equal(drawn[key][name], replicates[key][name]) for name in JUDGED)
    # the look is at seeds 1 to 8, although eight other seeds are complete
    assert evidence.main(arguments) == 2
    assert "the look at 8 seeds needs 1 more runs: qi_seed3" in capsys.readouterr().err
    write_runs(tmp_path, runs, replicates, ABOUT)
    assert evidence.main(arguments) == 0
    table = capsys.readouterr().out
    assert (tmp_path / "out/table.md").read_text() == table and "Look at 16" not in table and "95 %, drives" in table
    assert (tmp_path / "out/arms.png").stat().st_size > 5000
    runs, replicates = made_up(16, shift={"ddml": (3.0, 0.0)})
    runs["ddml", 16] |= {ERROR: math.nan}
    write_runs(tmp_path, runs, replicates, ABOUT)
    assert evidence.main(arguments) == 0
    table = capsys.readouterr().out
    assert table.count(f"| {AP} | ddml | 8 |") == table.count(f"| {AP} | ddml | 16 |") == 1
    assert f"| {ERROR} | ddml | 15 of 16 |" in table


def test_first_weights_have_a_hash(tmp_path):
    torch.save({"model_state": {"a": torch.arange(3.0)}}, tmp_path / "w.pth")
    run = SimpleNamespace(config=SimpleNamespace(trainer=SimpleNamespace(pretrain_model=str(tmp_path / "w.pth"))))
    assert evidence.hash_weights(run) == hashlib.sha256(np.arange(3, dtype=np.float32).tobytes()).hexdigest()[:16]


def test_a_broken_row_is_named(tmp_path, capsys):
    (tmp_path / "runs.csv").write_text(f"arm,seed,state,{AP}\nqi,1,finished,20.5\nqi,x,finished,20.5\n")
    assert evidence.main(["judge", "--page", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "runs.csv:3: not a row of runs.csv" in capsys.readouterr().err


def test_epochs_are_added(tmp_path):
    path = tmp_path / "epochs.csv"
    evidence.add_epochs(path, [["qi", 1, 1, 0.5, *range(9)], ["qi", 1, 2, 0.25, *range(9)]])
    evidence.add_epochs(path, [["qi", 1, 1, 0.75, *range(9)], ["ddml", 1, 1, 0.0, *range(9)]])
    rows = [line.split(",") for line in path.read_text().splitlines()]
    assert [row[:4] for row in rows[1:]] == [["qi", "1", "1", "0.75"], ["ddml", "1", "1", "0.0"]]
    assert rows[0][:3] == ["arm", "seed", "epoch"] and len(rows[0]) == 4 + 9


def test_power_on_the_command_line(capsys):
    assert evidence.main(["power", "--deviation", "2", "--difference", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith(f"one test: {pairs_needed(2, 2, 0.048)} pairs of seeds")
    for deviation, difference in ((0, 2), (2, "nan"), (2, 0.01)):
        assert evidence.main(["power", "--deviation", str(deviation), "--difference", str(difference)]) == 2


def test_finished_runs_are_collected_once(tiny_kitti, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "batch16.yaml").write_text(YAML.format(root=tiny_kitti))
    (tmp_path / "arms.yaml").write_text("monodle: {general.qi: false}\nqi: {general.qi: true}\n")
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.setattr(compare, "TRAIN_VAL", tmp_path / "stand_in.py")
    monkeypatch.setattr(comparison_run, "plot_comparison", lambda comparison, figures: b"")
    monkeypatch.setattr(evidence, "EXPERIMENT", tmp_path)
    monkeypatch.setattr(evidence, "ARMS", ("monodle", "qi"))

    def train(seeds):
        given = ["--config", "batch16.yaml", "--arms-file", "arms.yaml", "--arms", "monodle", "qi", "--jobs", "1"]
        assert compare.main([*given, "--out", "out", "--seeds", seeds]) == 0

    def collect(seeds):
        return evidence.main(["collect", "out", "--seeds", seeds, "--page", str(tmp_path / "page")])

    train("1-2")
    (tmp_path / "out/outputs/qi_seed2/metrics.jsonl").unlink()  # not finished
    assert collect("2") == 2  # the stand-in's AP is made up
    assert "ap.json of 3 runs has other figures than their result files" in capsys.readouterr().err
    assert not (tmp_path / "page").exists()
    resample_runs = evidence.resample_runs
    monkeypatch.setattr(evidence, "resample_runs", lambda *args: resample_runs(*args)._replace(description="draws"))
    assert collect("2") == 0
    assert f"3 of 4 runs are finished; {tmp_path / 'page/runs.csv'} has 3" in capsys.readouterr().out
    train("2-3")
    assert collect("2-3") == 0
    runs, replicates, about = read_runs(tmp_path / "page")
    assert about["unit"] == "drives" and about["weights of seed 3"] == ""  # random ones
    assert set(runs) == {(arm, seed) for arm in ("monodle", "qi") for seed in (1, 2, 3)}
    ap = json.loads((tmp_path / "out/outputs/qi_seed3/results/checkpoint_epoch_1/val/ap.json").read_text())
    assert runs["qi", 3][AP] == ap["loose"]["Car"]["3d"]["R40"][1]
    assert replicates["qi", 3][AP].shape == (evidence.N_REPLICATES,)
    epochs = (tmp_path / "page/epochs.csv").read_text().splitlines()
    assert len(epochs) == 1 + 6 * 3 and sum(line.startswith("qi,2,") for line in epochs) == 3

    with monkeypatch.context() as patch:  # a further seed, after an arm was changed
        train("4-4")
        (tmp_path / "arms.yaml").write_text("monodle: {general.qi: false}\nqi: {general.qi: true, general.T: 10.0}\n")
        capsys.readouterr()
        assert collect("4-4") == 2 and "replicates.npz: other settings" in capsys.readouterr().err
        patch.setattr(evidence, "hash_weights", lambda run: run.arm)  # arms of one seed from different weights
        (tmp_path / "arms.yaml").write_text("monodle: {general.qi: false}\nqi: {general.qi: true}\n")
        assert collect("4-4") == 2 and "other weights of seed 4" in capsys.readouterr().err

    path = tmp_path / "out/outputs/monodle_seed1/results/checkpoint_epoch_1/val/ap.json"
    path.write_text(path.read_text().replace('"R40": [', '"R40": [1, 2, 3], "was": ['))
    capsys.readouterr()
    assert collect("1") == 2 and "runs.csv has other figures of monodle_seed1" in capsys.readouterr().err
    settings = (tmp_path / "batch16.yaml").read_text()
    (tmp_path / "batch16.yaml").write_text(settings.replace("max_epoch: 1", "max_epoch: 2"))
    assert collect("5-5") == 2 and "none of the 2 runs is finished" in capsys.readouterr().err
    for line, error in (("17", "the plan has seeds 1 to 16, got 17"), ("x", "--seeds must be")):
        assert collect(line) == 2 and error in capsys.readouterr().err
