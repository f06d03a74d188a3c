"""What a KITTI file holds: objects (labels and results) and calibration."""

from .calibration import Calibration
from .camera import focal_net
from .frame_info import FrameInfo
from .object3d import Object3d, read_objects
from .split import read_split

__all__ = ["Calibration", "FrameInfo", "Object3d", "focal_net", "read_objects", "read_split"]
