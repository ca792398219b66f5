"""What a node says about itself: on the console, and on /diagnostics (REP 107)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.impl.rcutils_logger import RcutilsLogger

from dense_perception.core.camera import Frame
from dense_perception.core.errors import DensePerceptionError
from dense_perception.core.prediction import Prediction
from dense_perception.core.printable import printable
from dense_perception.runtime.mailbox import StageTimer

STAGES = ("transport", "wait", "convert", "prepare", "infer", "restore", "publish")
"""Where a frame's time goes, in order: from its stamp to the last output handed over."""

_SILENCE_S = 3.0
# A recorded stamp is not on this machine's clock, and its age says nothing about transport.
_MAX_TRANSPORT_MS = 10_000.0


@dataclass(frozen=True)
class Health:
    """A snapshot of a node; the counts with ``recent_`` are of the last period that had any.

    ``latencies_ms``: median and 95th percentile by stage. ``seconds_since_image`` is ``None``
    before the first image. ``loading`` names the model that is being loaded,
    ``building`` the engine that is being built for later. ``notes`` are further warnings, each a
    sentence.
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
    over_rate: int = 0
    failed: int = 0
    recent_answered: int = 0
    recent_failed: int = 0
    latencies_ms: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    intrinsics: str = ""
    output_size: str = ""
    seconds_since_image: float | None = None
    seconds_active: float = 0.0
    silence: str = ""
    last_error: str = ""
    loading: str = ""
    building: str = ""
    notes: tuple[str, ...] = ()


def judge(health: Health) -> tuple[bytes, str]:
    """The level and one line that says why.

    ERROR: the node cannot do its work. WARN: it works, but somebody should look. OK: it works, or
    has nothing to do.
    """
    if health.state == "unconfigured" and health.last_error and not health.loading:
        return DiagnosticStatus.ERROR, f"not configured: {health.last_error}"
    if health.state != "active" or not health.enabled:
        words = [health.state, *([] if health.enabled else ["disabled"])]
        words += [f"loading {health.loading}"] if health.loading else []
        return DiagnosticStatus.OK, ", ".join(words)
    silence = (
        health.seconds_active if health.seconds_since_image is None else health.seconds_since_image
    )
    if silence > _SILENCE_S:
        why = f": {health.silence}" if health.silence else ""
        return DiagnosticStatus.WARN, f"no image on {health.input_topic} for {silence:.0f} s{why}"
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
        "loading": health.loading,
        "building an engine": health.building,
        "backend": health.backend,
        "backend chosen because": health.backend_reason,
        "input topic": health.input_topic,
        "rate in (Hz)": f"{health.rate_in_hz:.2f}",
        "rate out (Hz)": f"{health.rate_out_hz:.2f}",
        "frames received": str(health.received),
        "frames answered": str(health.answered),
        "frames dropped": str(health.dropped),
        "frames nobody wanted": str(health.unwanted),
        "frames over max_rate_hz": str(health.over_rate),
        "frames failed": str(health.failed),
        "intrinsics": health.intrinsics,
        "output size": health.output_size,
    }
    for stage, (median, p95) in health.latencies_ms.items():
        values[f"latency {stage} median (ms)"] = f"{median:.2f}"
        values[f"latency {stage} p95 (ms)"] = f"{p95:.2f}"
    values["last error"] = health.last_error
    return values


class NodeLog:
    """The console of a node, for the parts below it.

    Names of topics and frames come from others: control characters in them are written out.

    Once ``is_running`` says no, because a signal has ended the node's context, errors and warnings
    are the ending's own and nobody is told: what is published then always fails.
    """

    def __init__(
        self, logger: RcutilsLogger, is_running: Callable[[], bool] = lambda: True
    ) -> None:
        self._logger = logger
        self._is_running = is_running
        self._said: set[str] = set()
        self._last_s: dict[str, float] = {}

    def info(self, text: str) -> None:
        self._logger.info(printable(text))

    def warning(self, text: str, *, topic: str = "", period_s: float = 0.0) -> None:
        """With a period: at most one warning on that topic each ``period_s``."""
        if self._is_running() and self._is_due(topic, period_s):
            self._logger.warning(printable(text))

    def error(self, text: str, *, topic: str = "", period_s: float = 0.0) -> None:
        """With a period: at most one error on that topic each ``period_s``."""
        if self._is_running() and self._is_due(topic, period_s):
            self._logger.error(printable(text))

    def warn_once(self, text: str) -> None:
        """A warning that is not repeated in the node's life."""
        if text not in self._said:
            self._said.add(text)
            self.warning(text)

    def _is_due(self, topic: str, period_s: float) -> bool:
        now = time.monotonic()
        if period_s and now - self._last_s.get(topic, -period_s) < period_s:
            return False
        self._last_s[topic] = now
        return True


class FrameLog:
    """Counts and times since the node became active; written by its threads, read by one timer."""

    def __init__(self) -> None:
        self.last_error = ""
        self.info_problem = self.info_doubt = ""
        self.scale_problem = ""
        self.bits_doubt = ""
        self.silence = ""
        """Why no image comes; empty while images come or nobody looked."""
        self._times = StageTimer()
        self.restart()

    def restart(self) -> None:
        """Forget everything but the last error."""
        self._times.reset()
        self._answered = self._failed = self._unwanted = self.over_rate = 0
        self._counted = (0, 0, 0)
        self._recent = (0, 0)
        self._intrinsics = self.output_size = ""
        self._active_since = time.monotonic()
        self._last_image: float | None = None

    @property
    def has_image(self) -> bool:
        """Whether an image came since the node became active."""
        return self._last_image is not None

    @property
    def seconds_active(self) -> float:
        """Since the node became active."""
        return time.monotonic() - self._active_since

    @property
    def seconds_silent(self) -> float:
        """Since the last image, or since the node became active."""
        return time.monotonic() - (self._last_image or self._active_since)

    def came(self) -> None:
        """An image arrived."""
        self._last_image = time.monotonic()
        self._times.tick("in")

    def unwanted(self) -> None:
        """Nobody subscribed when an image's turn came."""
        self._unwanted += 1

    def failed(self, error: Exception) -> str:
        """An image could not be answered; returns the reason in words."""
        known = isinstance(error, DensePerceptionError)
        self.last_error = str(error) if known else printable(f"{type(error).__name__}: {error}")
        self._failed += 1
        return self.last_error

    def answered(self, stages_ms: Mapping[str, float], age_ms: float) -> None:
        """An image was answered; ``age_ms`` is how old its stamp was then."""
        transport_ms = age_ms - sum(stages_ms.values())
        if age_ms >= 0 and transport_ms < _MAX_TRANSPORT_MS:
            # Simulated time stands still between its ticks, while the stages take real time.
            self._times.add("transport", max(0.0, transport_ms))
        self._times.add_all(stages_ms)
        self._times.tick("out")
        self._answered += 1

    def calibration(
        self,
        assumed_hfov_deg: float | None,
        problem: str,
        doubt: str = "",
        has_lens: bool = False,
    ) -> bool:
        """Which intrinsics an image got; returns whether ``problem`` or ``doubt`` is news."""
        before = (self.info_problem, self.info_doubt)
        self.info_problem, self.info_doubt = problem, doubt
        self._intrinsics = (
            f"from camera_info{', with the distortion of its lens' if has_lens else ''}"
            if assumed_hfov_deg is None
            else f"assumed {assumed_hfov_deg:g} degrees horizontally"
        )
        return bool(problem or doubt) and (problem, doubt) != before

    def size(self, frame: Frame, prediction: Prediction, most: int | None) -> bool:
        """The size of an image's outputs; returns whether their longest side is cut to ``most``.

        ``None`` if the outputs do not follow the image's size.
        """
        self.output_size = f"{prediction.width}x{prediction.height}"
        is_less = most is not None and max(frame.width, frame.height) > most
        if is_less:
            self.output_size += (
                f", scaled down from the image's {frame.width}x{frame.height} by max_output_side"
            )
        return is_less

    def health(self, known: Health) -> Health:
        """``known`` completed with the counts and times.

        A period in which no image's turn came changes nothing about the recent ones: a slow camera
        whose every image fails is not well in between.
        """
        now, summary = time.monotonic(), self._times.summary()
        answered, failed, unwanted = counts = (self._answered, self._failed, self._unwanted)
        if counts != self._counted:
            self._recent = (answered - self._counted[0], failed - self._counted[1])
            self._counted = counts
        return replace(
            known,
            rate_in_hz=self._times.rate_hz("in"),
            rate_out_hz=self._times.rate_hz("out"),
            answered=answered,
            failed=failed,
            unwanted=unwanted,
            over_rate=self.over_rate,
            recent_answered=self._recent[0],
            recent_failed=self._recent[1],
            latencies_ms={
                stage: (summary[stage].median_ms, summary[stage].p95_ms)
                for stage in STAGES
                if stage in summary
            },
            intrinsics=self._intrinsics,
            output_size=self.output_size,
            seconds_since_image=None if self._last_image is None else now - self._last_image,
            seconds_active=now - self._active_since,
            silence=self.silence,
            last_error=self.last_error,
            notes=(*known.notes, *self._notes()),
        )

    def _notes(self) -> tuple[str, ...]:
        said = (self.scale_problem, self.bits_doubt)
        return (*filter(None, said), *self._calibration_notes())

    def _calibration_notes(self) -> tuple[str, ...]:
        if self.info_problem:
            return (f"camera_info is not used: {self.info_problem}",)
        if self.info_doubt:
            return (self.info_doubt,)
        if self._intrinsics.startswith("assumed"):
            return (f"no camera_info, field of view {self._intrinsics}",)
        return ()
