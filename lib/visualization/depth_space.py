"""The depth space of one or more networks as an image: pairs against the bounds, read-out errors, descriptors.

Colours are viridis and Okabe & Ito's palette, which are distinct with every kind of colour vision.
"""

import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ..analysis.depth_error import DEPTH_BANDS
from ..analysis.depth_readout import READOUTS
from ..analysis.depth_report import PAIR_SETS, SHARES, DepthSpace
from ..analysis.depth_space import principal_components
from .panels import Line, Panel, draw_panel

_BOUND_COLOUR = "#D55E00"
_PERCENTILE = 99.5  # of the feature distances, that the axes include


def depth_spaces_png(spaces: Sequence[DepthSpace], dpi: int = 110) -> bytes:
    """A PNG with a column of four panels for each network.

    The same panels of several networks have the same axes and colours, except for the principal components, which have
    a different meaning in each.
    """
    # sizes that binary fractions represent exactly: versions of matplotlib round a part of a pixel differently
    figure = Figure(figsize=(7 * len(spaces), 18), layout="constrained")
    with matplotlib.rc_context({"text.parse_math": False}):  # for titles: the name of a network may contain $
        rows = figure.subplots(4, len(spaces), squeeze=False)
    for row, key in zip(rows, PAIR_SETS, strict=False):
        limits = _pair_limits(spaces, key)
        cells = [_draw_pairs(axes, space, key, *limits) for axes, space in zip(row, spaces, strict=True)]
        norm = LogNorm(0.7, np.concatenate([[2.0], *(np.asarray(c.get_array()) for c in cells)]).max())
        for axes, cell in zip(row, cells, strict=True):
            cell.set_norm(norm)
            figure.colorbar(cell, ax=axes, label="pairs", pad=0.01)
    farthest = max(float(space.objects.depths.max()) for space in spaces)
    highest = max(np.nanmax(space.mean_errors(name)) for space in spaces for name in READOUTS)
    for space, readout_axes, plane_axes in zip(spaces, *rows[2:], strict=True):
        draw_panel(readout_axes, _readout_panel(space, 1.1 * highest))
        _draw_components(plane_axes, space, farthest)
    content = io.BytesIO()
    figure.savefig(content, dpi=dpi, format="png")
    return content.getvalue()


def _pair_limits(spaces: Sequence[DepthSpace], key: str) -> tuple[float, float]:
    """Ends of the axes: at most three times rad; nearly all feature distances, and the lower bound at rad."""
    bounds = [space.figures["bounds"] for space in spaces]
    rad = max(b["rad"] for b in bounds)
    farthest = max(float(space.pairs[key].depth_distance.max(initial=0.0)) for space in spaces)
    right = min(max(1.5 * rad, 1.05 * farthest), 3 * rad)
    tops = [b["rad"] / b["K"] - b["B"] for b in bounds]
    for pairs in (space.pairs[key] for space in spaces):
        shown = pairs.feature_distance[pairs.depth_distance <= right]
        tops += [float(np.percentile(shown, _PERCENTILE))] if len(shown) else []
    return right, 1.1 * max(tops) if max(tops) > 0 else 1.0


def _draw_pairs(axes: Axes, space: DepthSpace, key: str, right: float, top: float) -> PolyCollection:
    """Returns the coloured cells."""
    pairs, figures = space.pairs[key], space.figures["pairs"][key]
    x, y = pairs.depth_distance, pairs.feature_distance
    shown = (x <= right) & (y <= top)
    window = (0, right, 0, top)
    cells = axes.hexbin(x[shown], y[shown], gridsize=(48, 24), extent=window, mincnt=1, cmap="viridis_r")
    K, B, rad = space.figures["bounds"].values()
    outline = [withStroke(linewidth=4.5, foreground="white")]
    for ends, style, width, name in (
        ((0, rad), "-", 2.5, f"bounds, up to rad = {rad:g} m"),
        ((rad, right), ":", 1.5, "beyond rad, not used by the loss"),
    ):
        both = [[K * d_z + B, d_z / K - B] for d_z in ends]
        axes.plot(ends, both, style, color=_BOUND_COLOUR, linewidth=width, path_effects=outline, label=[name, "_"])
    axes.axvline(rad, color="black", linewidth=0.8, linestyle="--")
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False)
    axes.set(xlim=(0, right), ylim=(0, top), xlabel="depth distance of two objects [m]", ylabel="feature distance")
    hidden = f", {1 - shown.mean():.0%} of them beyond the axes" if len(shown) else ""
    shares = ", ".join(f"{figures[share]:.0%} {title}" for share, title in SHARES.items())
    summary = f"up to rad: {shares}; rank correlation {figures['spearman_within_rad']:.2f}"
    axes.set_title(f"{space.name}\n{PAIR_SETS[key]} ({len(shown)}{hidden})\n{summary}", fontsize=9)
    return cells


def _readout_panel(space: DepthSpace, top: float) -> Panel:
    middles, edges = [(near + far) / 2 for near, far in DEPTH_BANDS], [near for near, _ in DEPTH_BANDS]
    lines = [Line(title, middles, space.mean_errors(name), k) for k, (name, title) in enumerate(READOUTS.items())]
    title = f"{space.name}\ndepth read from descriptors of held-out frames"
    labels = "true depth [m]", "mean absolute error [m]"
    limits = (0, DEPTH_BANDS[-1][1]), (0, top)
    return Panel(title, lines, *labels, *limits, x_ticks=edges, legend_title="")


def _draw_components(axes: Axes, space: DepthSpace, farthest: float) -> None:
    depths = space.objects.depths
    components, shares = principal_components(space.objects.descriptors, depths)
    order = np.argsort(-depths)  # near objects on top
    x, y = components[order].T
    points = axes.scatter(x, y, c=depths[order], s=16, cmap="viridis", vmin=0, vmax=farthest)
    points.set(edgecolor="0.3", linewidth=0.3)
    axes.figure.colorbar(points, ax=axes, label="depth [m]", pad=0.01)
    names = [f"component {k + 1} ({share:.0%} of the variance)" for k, share in enumerate(shares)]
    axes.set(xlabel=names[0], ylabel=names[1])
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(alpha=0.3)
    axes.set_title(f"{space.name}\nprincipal components of the descriptors", fontsize=9)
