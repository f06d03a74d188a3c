"""The embedded data set: rendered road scenes in KITTI's own layout, from which depth can be learnt by perspective.

From a random generator (or a KITTI label file) to files: ``street`` and ``traffic`` draw a :class:`Scene` (or
``layouts`` builds it around given poses), ``render`` paints it with ``ground``, ``roadside``, ``shadows`` and
``raster`` and measures the ``labels``, ``dataset`` writes everything.
"""

from .dataset import Plan, make_plan, prepare_folder, render_frame, write_frames
from .layouts import layout_scene, random_scene
from .render import RenderedFrame, render
from .scene import Scene

__all__ = [
    "Plan",
    "RenderedFrame",
    "Scene",
    "layout_scene",
    "make_plan",
    "prepare_folder",
    "random_scene",
    "render",
    "render_frame",
    "write_frames",
]
