"""The depth space of one or more models as an image: pairs against the bounds, read-out errors, descriptors.

Colours are viridis and Okabe & Ito's palette: told apart with every kind of colour vision, and lines by dashes and
markers besides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PolyCollection

READOUT_STYLES = {
    "median": ("median depth", "#999999", ":", ""),
    "nearest_1": ("1 neighbour", "#E69F00", "--", "s"),
    "nearest_5": ("5 neighbours", "#D55E00", "--", "o"),
    "linear": ("linear, depth", "#56B4E9", "-.", "v"),
    "linear_log": ("linear, log depth", "#0072B2", "-.", "^"),
    "depth_head": ("depth head", "#000000", "-", "D"),
}
"""read-out -> label, colour, dashes, marker"""
_BOUND_COLOUR = "#D55E00"
_PERCENTILE = 99.5


@dataclass(frozen=True, eq=False)
class PairCloud:
    """Pairs of objects, and what is said about those with d_z <= rad."""

    title: str
    depth_distance: np.ndarray
    """(P,) [m]"""
    feature_distance: np.ndarray
    """(P,)"""
    shares: Mapping[str, float]
    """label -> share of the pairs"""
    correlation: float


@dataclass(frozen=True, eq=False)
class DepthSpace:
    """What is drawn of one model."""

    name: str
    bounds: tuple[float, float, float]
    """K, B and rad [m]"""
    clouds: tuple[PairCloud, PairCloud]
    readout_errors: Mapping[str, np.ndarray]
    """by the names of ``READOUT_STYLES``: mean absolute error (D,) [m] of each distance band, NaN where empty"""
    band_edges: np.ndarray
    """(D + 1,) [m]"""
    components: np.ndarray
    """(N, 2), the descriptors' first two principal components"""
    component_shares: np.ndarray
    """(2,), their shares of the variance"""
    depths: np.ndarray
    """(N,) [m]"""


def draw_depth_spaces(spaces: Sequence[DepthSpace], file: IO[bytes], dpi: int = 110) -> None:
    """A PNG: four panels for one model, a column of four for each of several.

    The same panels of several models have the same axes and colours, except for the principal components, which mean
    something else in each.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = (2, 2) if len(spaces) == 1 else (4, len(spaces))
    # sizes that binary fractions hold exactly: versions of matplotlib round a part of a pixel differently
    figure = Figure(figsize=(7 * columns, 4.5 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    panels = grid.reshape(1, 4) if len(spaces) == 1 else grid.T
    farthest = max(float(space.depths.max()) for space in spaces)
    errors = [np.stack([space.readout_errors[name] for name in READOUT_STYLES]) for space in spaces]
    highest = max(float(values[np.isfinite(values)].max(initial=1.0)) for values in errors)
    for k in (0, 1):
        limits = _limits([space.clouds[k] for space in spaces], spaces)
        row = panels[:, k]
        _share_colours(
            [(axes, _draw_pairs(axes, s, s.clouds[k], *limits)) for axes, s in zip(row, spaces, strict=True)]
        )
    for space, (readout, plane) in zip(spaces, panels[:, 2:], strict=True):
        _draw_readout(readout, space, farthest, highest)
        _draw_components(plane, space, farthest)
    FigureCanvasAgg(figure).print_figure(file, dpi=dpi, format="png")


def _limits(clouds: Sequence[PairCloud], spaces: Sequence[DepthSpace]) -> tuple[float, float]:
    """Ends of the axes: at most three times rad; what nearly all feature distances need, and the lower bound at rad."""
    rad = max(space.bounds[2] for space in spaces)
    farthest = max(float(cloud.depth_distance.max(initial=0.0)) for cloud in clouds)
    right = min(max(1.5 * rad, 1.05 * farthest), 3 * rad)
    seen = [cloud.feature_distance[cloud.depth_distance <= right] for cloud in clouds]
    tops = [float(np.percentile(values, _PERCENTILE)) for values in seen if len(values)]
    tops += [reach / K - B for K, B, reach in (space.bounds for space in spaces)]
    highest = max(tops)
    return right, 1.1 * highest if highest > 0 else 1.0


def _draw_pairs(axes: Axes, space: DepthSpace, cloud: PairCloud, right: float, top: float) -> PolyCollection | None:
    """Returns the coloured cells, if there are pairs to see."""
    from matplotlib.patheffects import withStroke

    shown = (cloud.depth_distance <= right) & (cloud.feature_distance <= top)
    cells = None
    if shown.any():
        x, y = cloud.depth_distance[shown], cloud.feature_distance[shown]
        cells = axes.hexbin(x, y, gridsize=(48, 24), extent=(0, right, 0, top), mincnt=1, cmap="viridis_r")
    else:
        axes.text(0.5, 0.5, "no pairs", ha="center", va="center", transform=axes.transAxes)
    K, B, rad = space.bounds
    outline = [withStroke(linewidth=4.5, foreground="white")]
    for reach, line, width, name in (
        (np.array([0, rad]), "-", 2.5, f"bounds, up to rad = {rad:g} m"),
        (np.array([rad, right]), ":", 1.5, "beyond, where the loss does not look"),
    ):
        both = np.stack([K * reach + B, reach / K - B], axis=1)
        axes.plot(reach, both, line, color=_BOUND_COLOUR, linewidth=width, path_effects=outline, label=[name, "_"])
    axes.axvline(rad, color="black", linewidth=0.8, linestyle="--")
    axes.legend(fontsize=8, loc="upper right")
    axes.set(xlim=(0, right), ylim=(0, top), xlabel="depth distance of two objects [m]", ylabel="feature distance")
    hidden = f", {1 - shown.mean():.0%} of them beyond the axes" if len(shown) else ""
    shares = ", ".join(f"{share:.0%} {label}" for label, share in cloud.shares.items() if np.isfinite(share))
    correlation = f"{cloud.correlation:.2f}" if np.isfinite(cloud.correlation) else "undefined"
    said = f"up to rad: {shares}; rank correlation {correlation}" if shares else "none of them up to rad"
    _title(axes, f"{space.name}\n{cloud.title} ({len(shown)}{hidden})\n{said}")
    return cells


def _share_colours(drawn: Sequence[tuple[Axes, PolyCollection | None]]) -> None:
    """One scale for the numbers of pairs of all models; by logarithm where they are many."""
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import MaxNLocator

    seen = [(axes, cells) for axes, cells in drawn if cells is not None]
    most = max((float(np.max(np.asarray(cells.get_array()))) for _, cells in seen), default=1.0)
    for axes, cells in seen:
        many = most > 30
        cells.set_norm(LogNorm(0.7, most) if many else Normalize(0, most))
        ticks = None if many else MaxNLocator(integer=True)
        axes.figure.colorbar(cells, ax=axes, label="pairs", pad=0.01, ticks=ticks)


def _draw_readout(axes: Axes, space: DepthSpace, farthest: float, highest: float) -> None:
    middles = (space.band_edges[1:] + space.band_edges[:-1]) / 2
    for name, (label, colour, line, marker) in READOUT_STYLES.items():
        axes.plot(middles, space.readout_errors[name], line, color=colour, marker=marker, markersize=5, label=label)
    last = min(int(np.searchsorted(space.band_edges, farthest, "right")), len(space.band_edges) - 1)
    axes.set(xlim=(space.band_edges[0], space.band_edges[last]), ylim=(0, 1.45 * highest), xticks=space.band_edges)
    axes.set_xlim(space.band_edges[0], space.band_edges[last])  # again: ticks beyond it widen the axis
    axes.set(xlabel="true depth [m]", ylabel="mean absolute error [m]")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9, loc="upper center", ncols=3)
    _title(axes, f"{space.name}\ndepth read from descriptors of held-out frames")


def _draw_components(axes: Axes, space: DepthSpace, farthest: float) -> None:
    order = np.argsort(-space.depths)  # near objects on top
    first, second = space.components[order].T
    points = axes.scatter(first, second, c=space.depths[order], s=16, cmap="viridis", vmin=0, vmax=farthest)
    points.set(edgecolor="0.3", linewidth=0.3)
    axes.figure.colorbar(points, ax=axes, label="depth [m]", pad=0.01)
    names = [f"component {k + 1} ({share:.0%} of the variance)" for k, share in enumerate(space.component_shares)]
    axes.set(xlabel=names[0], ylabel=names[1])
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(alpha=0.3)
    _title(axes, f"{space.name}\nprincipal components of the descriptors")


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=9, parse_math=False)  # a name may hold a dollar sign
