"""cv_bridge as a fallback for encodings this package does not know, where it is safe to use."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from typing import Any

_PROBE = """
from cv_bridge import CvBridge
from sensor_msgs.msg import Image
image = Image(height=1, width=1, step=3, encoding="bgr8", data=bytes(3))
assert CvBridge().imgmsg_to_cv2(image, "rgb8").shape == (1, 1, 3)
"""


@cache
def image_bridge() -> Any:
    """A ``CvBridge``, or ``None`` where there is none or it does not work.

    A cv_bridge that was built against NumPy 1 ends the process when NumPy 2 calls it, so it is
    tried in another process first.
    """
    if find_spec("cv_bridge") is None:
        return None
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, timeout=30, check=False
        )
        if probe.returncode != 0:
            return None
        from cv_bridge import CvBridge

        return CvBridge()
    except Exception:
        return None
