"""The judgement of the experiment in docs/evidence.md: statistics with independent answers, files, rules."""

import math

import numpy as np
import pytest
from scipy import stats

from lib.comparison.table import Comparison
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


def test_files_are_read_as_they_were_written(tmp_path, capsys):
    runs, replicates = made_up(8)
    del runs["qi", 3]
    write_runs(tmp_path, runs, replicates)
    again, drawn = read_runs(tmp_path)
    assert again.keys() == drawn.keys() == runs.keys()
    for key, figures in runs.items():
        assert {name: again[key][name] for name in JUDGED} == {name: figures[name] for name in JUDGED}
        assert all(np.array_equal(drawn[key][name], replicates[key][name]) for name in JUDGED)
    # seven seeds have all arms: before the first look
    assert evidence.main(["judge", "--page", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "7 seeds of all arms are finished; the plan's first look is at 8" in capsys.readouterr().err
    write_runs(tmp_path, *made_up(8))
    assert evidence.main(["judge", "--page", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out/table.md").read_text() == capsys.readouterr().out
    assert (tmp_path / "out/arms.png").stat().st_size > 5000


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
    assert evidence.main(["power", "--deviation", "0", "--difference", "2"]) == 2
