"""What a Jetson's own ``tegrastats`` says while something is measured: load, power, temperature."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

_INTERVAL_MS = 200
_PATIENCE_S = 2.0
# As JetPack 5 and 6 print them: GR3D_FREQ 63%@[305] or 63%@305, VDD_IN 4500mW/4480mW, tj@47.5C.
_GPU = re.compile(r"GR3D_FREQ (\d+)%")
_RAM = re.compile(r"\bRAM (\d+)/(\d+)MB")
_POWER = re.compile(r"\b(VDD_IN|VIN_SYS_5V0|POM_5V_IN) (\d+)mW")
_HEAT = re.compile(r"\btj@(-?[\d.]+)C", re.IGNORECASE)


@dataclass(frozen=True)
class Jetson:
    """Medians while it was watched, the highest temperature; ``None`` where nothing was said.

    ``power_w`` is of the whole module (VDD_IN), ``heat_c`` of its hottest sensor (tj), ``mode``
    what nvpmodel calls the power mode.
    """

    samples: int
    gpu_percent: float | None
    power_w: float | None
    ram_mb: float | None
    heat_c: float | None
    mode: str

    def __str__(self) -> str:
        parts = [
            f"GPU {self.gpu_percent:.0f} %" if self.gpu_percent is not None else "",
            f"{self.power_w:.1f} W" if self.power_w is not None else "",
            f"{self.ram_mb:.0f} MB of memory in use" if self.ram_mb is not None else "",
            f"up to {self.heat_c:.0f} degrees" if self.heat_c is not None else "",
            f"power mode {self.mode}" if self.mode else "",
        ]
        return f"tegrastats, {self.samples} samples: {', '.join(part for part in parts if part)}"


@dataclass
class Watch:
    """The lines so far."""

    lines: list[str] = field(default_factory=list)

    def result(self) -> Jetson | None:
        """``None`` where there is no tegrastats, or it said nothing."""
        if not self.lines:
            return None
        return Jetson(
            samples=len(self.lines),
            gpu_percent=self._median(_GPU, 1),
            power_w=self._median(_POWER, 2, 1e-3),
            ram_mb=self._median(_RAM, 1),
            heat_c=max(self._values(_HEAT, 1), default=None),
            mode=power_mode(),
        )

    def _values(self, pattern: re.Pattern[str], group: int) -> list[float]:
        found = (pattern.search(line) for line in self.lines)
        return [float(match[group]) for match in found if match]

    def _median(self, pattern: re.Pattern[str], group: int, scale: float = 1.0) -> float | None:
        values = self._values(pattern, group)
        return round(float(np.median(values)) * scale, 3) if values else None


@contextmanager
def watched() -> Iterator[Watch]:
    """Runs tegrastats beside what is measured; on other machines nothing is started."""
    watch, program = Watch(), shutil.which("tegrastats")
    if program is None:
        yield watch
        return
    process = subprocess.Popen(
        [program, "--interval", str(_INTERVAL_MS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        errors="replace",
    )

    def read() -> None:
        assert process.stdout is not None
        watch.lines.extend(line.strip() for line in process.stdout)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield watch
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_S)
        process.kill()
        reader.join(_PATIENCE_S)


def power_mode() -> str:
    """What ``nvpmodel -q`` calls the power mode, such as ``15W``; empty where it does not say."""
    program = shutil.which("nvpmodel")
    if program is None:
        return ""
    try:
        said = subprocess.run(
            [program, "-q"], capture_output=True, text=True, errors="replace", timeout=_PATIENCE_S
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"NV Power Mode:\s*(\S+)", said)
    return found[1] if found else ""
