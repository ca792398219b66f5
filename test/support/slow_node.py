"""depth_node in which models whose file is named ``slow...`` take DENSE_PERCEPTION_LOAD_S to load.

As the build of an engine does: in native code that nothing interrupts and that holds no lock of
Python.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from dense_perception.ros.processes import end_at_once_on_interrupt


def main() -> int:
    end_at_once_on_interrupt()

    from dense_perception.ros import depth_node
    from dense_perception.runtime.perceiver import Perceiver

    original = Perceiver.load.__func__  # type: ignore[attr-defined]
    seconds = float(os.environ["DENSE_PERCEPTION_LOAD_S"])

    def load(cls: type[Perceiver], model: str, **settings: Any) -> Perceiver:
        if Path(model).name.startswith("slow"):
            ctypes.CDLL(None).usleep(int(seconds * 1e6))
        return original(cls, model, **settings)

    Perceiver.load = classmethod(load)  # type: ignore[assignment,method-assign]
    return depth_node.main()


if __name__ == "__main__":
    raise SystemExit(main())
