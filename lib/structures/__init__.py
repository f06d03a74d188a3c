"""What a KITTI file holds: objects (labels and results) and calibration."""

from lib.structures.calibration import Calibration
from lib.structures.camera import focal_net
from lib.structures.frame_info import FrameInfo
from lib.structures.object3d import Object3d, read_objects
from lib.structures.split import read_split

__all__ = ["Calibration", "FrameInfo", "Object3d", "focal_net", "read_objects", "read_split"]
