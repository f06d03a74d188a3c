"""Images of results: boxes on a photograph, the scene from above, both beside each other, maps over the image."""

from .birds_eye import draw_birds_eye
from .drawing import draw_boxes_2d, draw_boxes_3d, draw_comparison, draw_detections
from .overlay import draw_heatmap, draw_object_depth
from .style import DETECTION_STYLE, LABEL_STYLE, Style

__all__ = [
    "DETECTION_STYLE",
    "LABEL_STYLE",
    "Style",
    "draw_birds_eye",
    "draw_boxes_2d",
    "draw_boxes_3d",
    "draw_comparison",
    "draw_detections",
    "draw_heatmap",
    "draw_object_depth",
]
