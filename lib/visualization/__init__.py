"""Results as images: 3D boxes, bird's-eye view, heatmaps and depth maps over an image, plots, an HTML page."""

from .birds_eye import draw_birds_eye
from .drawing import draw_boxes_3d, draw_comparison, draw_detections
from .overlay import draw_heatmap, draw_object_depth
from .style import DETECTION_STYLE, LABEL_STYLE, Style, encode_image

__all__ = [
    "DETECTION_STYLE",
    "LABEL_STYLE",
    "Style",
    "draw_birds_eye",
    "draw_boxes_3d",
    "draw_comparison",
    "draw_detections",
    "draw_heatmap",
    "draw_object_depth",
    "encode_image",
]
