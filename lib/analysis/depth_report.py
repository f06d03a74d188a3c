"""All measures of a network's depth space, and those of several networks as a table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import General
from ..evaluation import DISTANCE_BANDS
from ..ops.text import text_table
from .depth_error import DEPTH_BANDS
from .depth_readout import READOUTS, measure_readouts
from .depth_space import BoundCounts, DescribedObjects, Pairs, draw_batches, draw_pairs, measure_batches, measure_pairs

SHARES = {"inside": "inside both bounds", "above": "too far apart", "below": "too close"}
PAIR_SETS = {"within_frames": "pairs within a frame", "within_batches": "pairs within a random batch"}


@dataclass(frozen=True, eq=False)
class DepthSpace:
    """Everything measured of one network."""

    name: str
    figures: Mapping[str, Any]  # nested figures for JSON, NaN where undefined
    pairs: Mapping[str, Pairs]  # by ``PAIR_SETS``, of the held-out objects
    objects: DescribedObjects  # held out

    def mean_errors(self, readout: str) -> list[float]:
        """Mean absolute error of a read-out [m] in each of ``DEPTH_BANDS``, NaN where there is no object."""
        by_distance = self.figures["readout"]["errors"][readout]["by_distance"]
        return [by_distance[f"{near:g}-{far:g}"]["mean"] for near, far in DEPTH_BANDS]


def measure_depth_space(
    name: str,
    held_out: DescribedObjects,
    fit: DescribedObjects,
    batches: Sequence[BoundCounts],
    bounds: General,
    batch_size: int,
) -> DepthSpace:
    """Measure pairs, training batches and read-outs.

    Pairs are those of one frame, and those of one batch if the frames form batches of ``batch_size`` in random order
    (which include the former). ``batches``: counts of training batches. ``bounds`` also has the random seed.
    """
    seed = bounds.random_seed
    batch_groups = draw_batches(held_out.frames, held_out.n_frames, batch_size, seed)
    groups = {"within_frames": held_out.frames, "within_batches": batch_groups}
    pairs = {key: draw_pairs(held_out.descriptors, held_out.depths, group, seed) for key, group in groups.items()}
    figures = {
        "name": name,
        "frames": {"split": held_out.n_frames, "fit_split": fit.n_frames},
        "objects": {"split": len(held_out.depths), "fit_split": len(fit.depths)},
        "bounds": {"K": bounds.K, "B": bounds.B, "rad": bounds.rad},
        "batch_size": batch_size,
        "seed": seed,
        "pairs": {key: measure_pairs(some, bounds) for key, some in pairs.items()},
        "training_batches": measure_batches(batches),
        "readout": measure_readouts(fit, held_out, (*DISTANCE_BANDS, *DEPTH_BANDS)),
    }
    return DepthSpace(name, figures, pairs, held_out)


def depth_space_table(spaces: Sequence[DepthSpace]) -> str:
    """One table with a column for each network, and one table of read-outs for each."""
    columns = [_column(space.name, space.figures) for space in spaces]
    rows = [[title, *(column[k][1] for column in columns)] for k, (title, _) in enumerate(columns[0])]
    return "\n\n".join([text_table(rows), *map(_readout_table, spaces)])


def _column(name: str, figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(title, cell) of each row."""
    rows = [("", name)]
    numbers = "{split} / {fit_split}"
    rows += [(f"{key}, split / fit split", numbers.format(**figures[key])) for key in ("frames", "objects")]
    rows.append(("bounds: K, B, rad", "{K:g}, {B:g}, {rad:g} m".format(**figures["bounds"])))
    for key, title in PAIR_SETS.items():
        pairs = figures["pairs"][key]
        measured, total = pairs["measured"], pairs["total"]
        rows += [("", ""), (title, f"{measured} of {total}" if measured < total else str(total))]
        rows.append(("  with d_z <= rad", str(pairs["within_rad"])))
        rows += [(f"    {title}", _percent(pairs[share])) for share, title in SHARES.items()]
        rows.append(("    rank correlation of d_f and d_z", _number(pairs["spearman_within_rad"], 3)))
        rows.append(("  rank correlation over all depth distances", _number(pairs["spearman"], 3)))
    batches = figures["training_batches"]
    rows += [("", ""), ("training batches", str(batches["batches"]))]
    for key, title in (
        ("both_bounds_violated", "official loss is not 0: both bounds violated"),
        ("only_above", "it is 0: all violators are too far apart"),
        ("only_below", "it is 0: all violators are too close"),
        ("none_violated", "it is 0: no violator"),
        ("no_pairs", "it is 0: no pair with d_z <= rad"),
    ):
        rows.append((f"  {title}", _percent(batches[key])))
    rows.append(("  pairs with d_z <= rad in a batch", _number(batches["pairs_per_batch"], 1)))
    return rows + [(f"    {title}", _percent(batches[share])) for share, title in SHARES.items()]


def _readout_table(space: DepthSpace) -> str:
    errors = space.figures["readout"]["errors"]
    bands = [f"{near:g}-{far:g}" for near, far in DISTANCE_BANDS]
    counts = [f"{band} m ({errors['mean']['by_distance'][band]['count']})" for band in bands]
    rows = [["", "mean", "median", "relative", *counts]]
    for key, title in READOUTS.items():
        e = errors[key]
        means = [_number(e["by_distance"][band]["mean"], 2, "-") for band in bands]
        rows.append([f"  {title}", _number(e["mean"], 2), _number(e["median"], 2), _percent(e["relative"]), *means])
    title = "absolute error of read-outs [m]; by distance its mean (and the number of objects)"
    return f"{space.name}: {title}\n{text_table(rows)}"


def _percent(share: float) -> str:
    return "undefined" if math.isnan(share) else f"{100 * share:.1f} %"


def _number(value: float, digits: int, missing: str = "undefined") -> str:
    return missing if math.isnan(value) else f"{value:.{digits}f}"
