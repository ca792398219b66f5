"""The lifecycle node around a :class:`Perceiver`; what is published is left to ``Outputs``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import DensePerceptionError
from dense_perception.core.frame import Frame
from dense_perception.core.prediction import Prediction
from dense_perception.ros.camera_input import CameraInput
from dense_perception.ros.declare import DeclaredParameters
from dense_perception.ros.diagnostics import STAGES, Health, diagnostic_array
from dense_perception.ros.params import Parameters
from dense_perception.runtime.mailbox import Worker
from dense_perception.runtime.perceiver import Perceiver
from dense_perception.runtime.timing import StageTimer

_LOG_PERIOD_S = 5.0
# A recorded stamp is not on this machine's clock, and its age says nothing about transport.
_MAX_TRANSPORT_MS = 10_000.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What outputs are made from; ``info`` is the calibration in use, ``None`` without one."""

    frame: Frame
    prediction: Prediction
    header: Header
    info: CameraInfo | None


class Outputs(Protocol):
    """The publishers of one node: created at configure, closed at cleanup."""

    def wanted(self) -> bool:
        """Does anybody subscribe?"""

    def publish(self, answer: Answer) -> None:
        """Publish what somebody subscribes to; called by the worker thread."""

    def close(self) -> None:
        """Destroy the publishers."""


OutputsFactory = Callable[["PerceptionNode[Any]", ModelCard], Outputs]


@dataclass(slots=True)
class _Counts:
    answered: int = 0
    failed: int = 0
    unwanted: int = 0
    answered_before: int = 0
    failed_before: int = 0


class PerceptionNode(LifecycleNode, Generic[Parameters]):
    """Images in, a model's answers out, under lifecycle control.

    configure loads the model and creates the publishers, activate subscribes and starts the
    worker, deactivate and cleanup undo them. The subscription only stores the newest message; the
    worker thread converts, infers and publishes. An error in a frame is counted and logged, and
    the next frame is taken.

    :raises InputError: if the node was started with a wrong parameter value.
    """

    def __init__(
        self, name: str, parameters: type[Parameters], outputs: OutputsFactory, **options: Any
    ) -> None:
        super().__init__(name, **options)
        self._state = "unconfigured"
        self._declared = DeclaredParameters(self, parameters, lambda: self._state != "unconfigured")
        self._make_outputs = outputs
        self._outputs: Outputs | None = None
        self._perceiver: Perceiver | None = None
        self._input: CameraInput | None = None
        self._worker: Worker[tuple[Any, float]] | None = None
        self._times = StageTimer()
        self._counts = _Counts()
        self._last_error = ""
        self._intrinsics = ""
        self._info_problem = ""
        self._active_since = 0.0
        self._last_image: float | None = None
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # On the steady clock, so that a simulation that stands still is still reported on.
        self.create_timer(
            self.parameters.diagnostics_period_s,
            self._publish_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )

    @property
    def parameters(self) -> Parameters:
        """The values now in force; a new object after each change."""
        return self._declared.current

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        wish = self.parameters
        started = time.monotonic()
        try:
            self._perceiver = Perceiver.load(
                wish.model,
                backend=wish.backend,
                precision=wish.precision,
                device=wish.device,
                threads=wish.threads,
                default_hfov_deg=wish.default_hfov_deg,
                output_size=wish.output_size,
                max_output_side=wish.max_output_side,
            )
            self._outputs = self._make_outputs(self, self._perceiver.card)
        except DensePerceptionError as error:
            return self._not_configured(str(error))
        except Exception as error:
            return self._not_configured(f"{type(error).__name__}: {error}")
        self.get_logger().info(
            f"{self._perceiver.card.name} ready in {time.monotonic() - started:.2f} s, "
            f"{self._perceiver.selection.summary()}"
        )
        self._last_error = ""
        self._state = "inactive"
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self._times.reset()
        self._counts = _Counts()
        self._last_image, self._active_since = None, time.monotonic()
        self._worker = Worker(self._answer, self._on_frame_error).start()
        wish = self.parameters
        self._input = CameraInput(
            self, wish.image_transport, wish.input_reliability, self._on_image
        )
        self._state = "active"
        self.get_logger().info(f"waiting for images on {self._input.topic}")
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop_answering()
        self._state = "inactive"
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self._state = "finalized"
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return super().on_error(state)

    def close(self) -> None:
        """Stop the worker and free the model; the node can be destroyed afterwards."""
        self._release()

    def _not_configured(self, reason: str) -> TransitionCallbackReturn:
        self._release()
        self._last_error = reason
        self.get_logger().error(
            f"cannot configure: {reason} (the node stays alive: set its parameters and configure "
            "it again)"
        )
        return TransitionCallbackReturn.FAILURE

    def _stop_answering(self) -> None:
        if self._input is not None:
            self._input.close()
            self._input = None
        if self._worker is not None:
            if not self._worker.stop():
                self.get_logger().error("the worker is still busy with a frame after 10 s")
            self._worker = None

    def _release(self) -> None:
        self._stop_answering()
        if self._outputs is not None:
            self._outputs.close()
            self._outputs = None
        if self._perceiver is not None:
            self._perceiver.close()
            self._perceiver = None
        self._state = "unconfigured"

    def _on_image(self, message: Any) -> None:
        self._last_image = time.monotonic()
        self._times.tick("in")
        if self._worker is not None:
            self._worker.put((message, time.perf_counter()))

    def _answer(self, received: tuple[Any, float]) -> None:
        """One frame, in the worker thread."""
        message, arrived_s = received
        outputs, perceiver, camera = self._outputs, self._perceiver, self._input
        if outputs is None or perceiver is None or camera is None:
            return
        if not outputs.wanted():
            self._counts.unwanted += 1
            return
        taken_s = time.perf_counter()
        image = camera.frame(message, matrix=self.parameters.camera_matrix)
        self._note_calibration(image.info, image.info_problem)
        converted_s = time.perf_counter()
        prediction = perceiver.perceive([image.frame])[0]
        perceived_s = time.perf_counter()
        outputs.publish(Answer(image.frame, prediction, message.header, image.info))
        published_s = time.perf_counter()
        self._counts.answered += 1
        self._times.tick("out")
        age_ms = self.get_clock().now().nanoseconds / 1e6 - image.frame.stamp_ns / 1e6
        transport_ms = age_ms - (published_s - arrived_s) * 1e3
        if 0 <= transport_ms < _MAX_TRANSPORT_MS:
            self._times.add("transport", transport_ms)
        self._times.add_all(
            {
                "wait": (taken_s - arrived_s) * 1e3,
                "convert": (converted_s - taken_s) * 1e3,
                **prediction.timings_ms,
                "publish": (published_s - perceived_s) * 1e3,
            }
        )

    def _on_frame_error(self, error: Exception) -> None:
        self._counts.failed += 1
        known = isinstance(error, DensePerceptionError)
        self._last_error = str(error) if known else f"{type(error).__name__}: {error}"
        self.get_logger().error(
            f"frame not answered: {self._last_error}", throttle_duration_sec=_LOG_PERIOD_S
        )

    def _note_calibration(self, info: CameraInfo | None, problem: str) -> None:
        if info is not None:
            self._intrinsics = "from camera_info"
        else:
            self._intrinsics = f"assumed {self.parameters.default_hfov_deg:g} degrees horizontally"
        if problem and problem != self._info_problem:
            self.get_logger().warning(
                f"camera_info is not used: {problem}", throttle_duration_sec=_LOG_PERIOD_S
            )
        self._info_problem = problem

    def _publish_diagnostics(self) -> None:
        message = diagnostic_array(
            self._health(), self.get_fully_qualified_name(), self.get_clock().now().to_msg()
        )
        self._diagnostics.publish(message)

    def _health(self) -> Health:
        counts, now = self._counts, time.monotonic()
        mailbox = self._worker.mailbox if self._worker is not None else None
        summary = self._times.summary()
        notes: tuple[str, ...] = ()
        if self._info_problem:
            notes = (f"camera_info is not used: {self._info_problem}",)
        elif counts.answered and self._intrinsics.startswith("assumed"):
            notes = (f"no camera_info, field of view {self._intrinsics}",)
        health = Health(
            state=self._state,
            model=self.parameters.model,
            backend=self._perceiver.backend.description if self._perceiver else "",
            backend_reason=self._perceiver.selection.summary() if self._perceiver else "",
            input_topic=self._input.topic if self._input is not None else "",
            wanted=self._outputs is not None and self._outputs.wanted(),
            rate_in_hz=self._times.rate_hz("in"),
            rate_out_hz=self._times.rate_hz("out"),
            received=mailbox.received if mailbox is not None else 0,
            answered=counts.answered,
            dropped=mailbox.dropped if mailbox is not None else 0,
            unwanted=counts.unwanted,
            failed=counts.failed,
            recent_answered=counts.answered - counts.answered_before,
            recent_failed=counts.failed - counts.failed_before,
            latencies_ms={
                stage: (summary[stage].median_ms, summary[stage].p95_ms)
                for stage in STAGES
                if stage in summary
            },
            intrinsics=self._intrinsics,
            seconds_since_image=None if self._last_image is None else now - self._last_image,
            seconds_active=now - self._active_since,
            last_error=self._last_error,
            notes=notes,
        )
        counts.answered_before, counts.failed_before = counts.answered, counts.failed
        return health
