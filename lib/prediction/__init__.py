"""Images and videos without labels -> detections, by a checkpoint alone."""

from .detector import Detection, Detector, load_detector

__all__ = ["Detection", "Detector", "load_detector"]
