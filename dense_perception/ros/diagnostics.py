"""What a node says about itself on /diagnostics (REP 107)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

STAGES = ("transport", "wait", "convert", "prepare", "infer", "restore", "publish")
"""Where a frame's time goes, in order: from its stamp to the last output handed over."""

_SILENCE_S = 3.0


@dataclass(frozen=True)
class Health:
    """A snapshot of a node; the counts with ``recent_`` are of the last period that had any.

    ``latencies_ms``: median and 95th percentile by stage. ``seconds_since_image`` is ``None``
    before the first image. ``notes`` are further warnings, each a sentence.
    """

    state: str
    model: str
    backend: str = ""
    backend_reason: str = ""
    input_topic: str = ""
    wanted: bool = False
    enabled: bool = True
    rate_in_hz: float = 0.0
    rate_out_hz: float = 0.0
    received: int = 0
    answered: int = 0
    dropped: int = 0
    unwanted: int = 0
    failed: int = 0
    recent_answered: int = 0
    recent_failed: int = 0
    latencies_ms: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    intrinsics: str = ""
    seconds_since_image: float | None = None
    seconds_active: float = 0.0
    last_error: str = ""
    notes: tuple[str, ...] = ()


def judge(health: Health) -> tuple[bytes, str]:
    """The level and one line that says why.

    ERROR: the node cannot do its work. WARN: it works, but somebody should look. OK: it works, or
    has nothing to do.
    """
    if health.state == "unconfigured" and health.last_error:
        return DiagnosticStatus.ERROR, f"not configured: {health.last_error}"
    if health.state != "active" or not health.enabled:
        return DiagnosticStatus.OK, health.state if health.enabled else f"{health.state}, disabled"
    silence = (
        health.seconds_active if health.seconds_since_image is None else health.seconds_since_image
    )
    if silence > _SILENCE_S:
        return DiagnosticStatus.WARN, f"no image on {health.input_topic} for {silence:.0f} s"
    if health.recent_failed and not health.recent_answered:
        return DiagnosticStatus.ERROR, f"every frame fails: {health.last_error}"
    if health.recent_failed:
        return DiagnosticStatus.WARN, f"{health.recent_failed} frames failed: {health.last_error}"
    if health.notes:
        return DiagnosticStatus.WARN, "; ".join(health.notes)
    if not health.wanted:
        return DiagnosticStatus.OK, "idle: nobody subscribes to an output"
    return DiagnosticStatus.OK, f"{health.rate_out_hz:.1f} of {health.rate_in_hz:.1f} Hz answered"


def diagnostic_array(healths: Mapping[str, Health], node_name: str, stamp: Time) -> DiagnosticArray:
    """The message for /diagnostics: one status by camera, whose name is empty where there is one.

    ``node_name`` is fully qualified.
    """
    message = DiagnosticArray(
        status=[_status(health, node_name, camera) for camera, health in healths.items()]
    )
    message.header.stamp = stamp
    return message


def _status(health: Health, node_name: str, camera: str) -> DiagnosticStatus:
    level, summary = judge(health)
    return DiagnosticStatus(
        level=level,
        name=f"{node_name}: {camera or 'perception'}",
        message=summary,
        hardware_id=health.backend,
        values=[KeyValue(key=key, value=value) for key, value in _values(health).items()],
    )


def _values(health: Health) -> dict[str, str]:
    values = {
        "state": health.state,
        "model": health.model,
        "backend": health.backend,
        "backend chosen because": health.backend_reason,
        "input topic": health.input_topic,
        "rate in (Hz)": f"{health.rate_in_hz:.2f}",
        "rate out (Hz)": f"{health.rate_out_hz:.2f}",
        "frames received": str(health.received),
        "frames answered": str(health.answered),
        "frames dropped": str(health.dropped),
        "frames nobody wanted": str(health.unwanted),
        "frames failed": str(health.failed),
        "intrinsics": health.intrinsics,
    }
    for stage, (median, p95) in health.latencies_ms.items():
        values[f"latency {stage} median (ms)"] = f"{median:.2f}"
        values[f"latency {stage} p95 (ms)"] = f"{p95:.2f}"
    values["last error"] = health.last_error
    return values
