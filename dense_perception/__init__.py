"""Dense perception for ROS 2: metric depth and more from one RGB camera.

Three lines from a picture to metres::

    from dense_perception import Perceiver

    perceiver = Perceiver.load("dpt_tiny_indoor")
    depth_m = perceiver(rgb_hwc).depth.metres()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Perceiver", "__version__"]

if TYPE_CHECKING:
    from dense_perception.runtime.perceiver import Perceiver


def __getattr__(name: str) -> Any:
    """Import ``Perceiver`` on first use, so that ``import dense_perception`` stays light."""
    if name == "Perceiver":
        from dense_perception.runtime.perceiver import Perceiver

        return Perceiver
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
