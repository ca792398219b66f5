"""Dense perception for ROS 2: metric depth and more from one RGB camera.

Three lines from a picture to metres::

    from dense_perception import Perceiver

    perceiver = Perceiver.load("dpt_tiny_indoor")
    depth_m = perceiver(rgb_hwc).depth.metres()
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

__all__ = ["Perceiver", "__version__"]

if TYPE_CHECKING:
    from dense_perception.runtime.perceiver import Perceiver

    __version__: str


def __getattr__(name: str) -> Any:
    """Find ``Perceiver`` and the version on first use, so that the import itself stays light."""
    if name == "Perceiver":
        from dense_perception.runtime.perceiver import Perceiver

        return Perceiver
    if name == "__version__":
        return _version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _switch_telemetry_off() -> None:
    """Have ONNX Runtime send nothing to its maker, unless ``ORT_DISABLE_TELEMETRY`` has a value.

    Since 1.29 its wheels report each process, model and error on Linux, too, and keep an identifier
    of the machine in the cache folder. It reads the variable when it is imported, and so does each
    child process. If it has been imported before this package, only later events can be held back.
    """
    if not os.environ.get("ORT_DISABLE_TELEMETRY"):  # with an empty one ONNX Runtime reports
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    if os.environ["ORT_DISABLE_TELEMETRY"] != "1":
        return
    imported = sys.modules.get("onnxruntime")
    if imported is not None and hasattr(imported, "disable_telemetry_events"):
        imported.disable_telemetry_events()


_switch_telemetry_off()


def _version() -> str:
    """The version that package.xml states, from the installed package or the source tree."""
    from importlib.metadata import PackageNotFoundError, version
    from pathlib import Path
    from xml.etree import ElementTree

    manifest = Path(__file__).resolve().parents[1] / "package.xml"
    try:
        # A source tree beside which an older copy is installed speaks for itself.
        stated = ElementTree.parse(manifest).findtext("version") if manifest.is_file() else None
        return stated or version(__name__)
    except PackageNotFoundError:
        return "unknown"
