"""The lifecycle node around a :class:`Perceiver`; what is published is left to output groups."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Generic, TypeAlias

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import BackendError, DensePerceptionError, InputError
from dense_perception.core.machine import return_freed_memory
from dense_perception.core.registry import find_model
from dense_perception.ros.batch import PATIENCE_S, ModelSlot, Received, answer_batch
from dense_perception.ros.bond import Bond
from dense_perception.ros.camera import AnyImage, Camera, Settings, check_topics_differ
from dense_perception.ros.declare import DeclaredParameters
from dense_perception.ros.diagnostics import Health, NodeLog, diagnostic_array
from dense_perception.ros.engine_building import EngineBuilder
from dense_perception.ros.model_loading import Failures, ModelLoader, load_model
from dense_perception.ros.node_graph import NodeGraph
from dense_perception.ros.outputs import OutputGroup
from dense_perception.ros.parameter_table import model_changes, with_model_of
from dense_perception.ros.params import PerceptionParameters
from dense_perception.ros.topics import TopicSpec
from dense_perception.runtime.mailbox import Worker
from dense_perception.runtime.perceiver import Perceiver

# Parameters that are set one after the other, as from a file, load one model.
_SETTLE_S = 0.1
# How soon a transition that waits for a model sees that it has come.
_POLL_S = 0.05
_LAST_PATIENCE_S = 1.0

_Transition: TypeAlias = Callable[
    ["PerceptionNode[Settings]", LifecycleState], TransitionCallbackReturn
]


def _ends_with_context(transition: _Transition[Settings]) -> _Transition[Settings]:
    """Raises KeyboardInterrupt if a signal ends the node's context during the transition.

    That passes rclpy, which would try to complete the transition and call that an error.
    """

    @functools.wraps(transition)
    def obedient(node: PerceptionNode[Settings], state: LifecycleState) -> TransitionCallbackReturn:
        try:
            result = transition(node, state)
        except Exception as error:
            if node.context.ok():
                raise
            raise KeyboardInterrupt from error
        if not node.context.ok():
            raise KeyboardInterrupt
        return result

    return obedient


class PerceptionNode(LifecycleNode, Generic[Settings]):
    """Images in, a model's answers out, under lifecycle control.

    configure waits for the model and creates the publishers, activate subscribes and starts the
    worker, deactivate and cleanup undo them. The subscriptions only store each camera's newest
    message; the worker thread converts, infers and publishes. An error in a frame is counted and
    logged, and the next frame is taken. ``~/set_enabled`` unsubscribes without a transition.

    Models are loaded in a thread of their own. Setting ``model`` while configured loads the new
    model beside the old one and changes over between two frames; if it does not load the old one
    goes on, the parameter is put back, and the console and /diagnostics say why.

    ``settings`` are the parameters in force, replaced as a whole between two batches.

    :param needs: the entry of a card's outputs without which the node makes no sense, or empty.
    :raises InputError: if the node was started with a wrong parameter value.
    """

    def __init__(
        self,
        name: str,
        parameters: type[Settings],
        groups: Sequence[type[OutputGroup[Settings]]],
        needs: str = "",
        *,
        context: Context | None = None,
        parameter_overrides: list[Parameter] | None = None,
    ) -> None:
        super().__init__(name, context=context, parameter_overrides=parameter_overrides)
        self.state = "unconfigured"
        self._groups = tuple(groups)
        self._needs = needs
        self._enabled = True
        self._starting = False
        self._log = NodeLog(self.get_logger(), self.context.ok)
        self._graph = NodeGraph(self, lambda: self.state == "active")
        self._model = ModelSlot()
        self._cameras: dict[str, Camera[Settings]] = {}
        self._worker: Worker[Received] | None = None
        self._bond: Bond | None = None
        self._last_error = ""
        self._load_problem = ""
        self._is_engine_refused = False  # what the problem is about: no parameter was changed
        self._declared = DeclaredParameters(
            self, parameters, lambda: self.state != "unconfigured", self._use_parameters
        )
        self.settings: Settings = self._declared.current
        loaded = self.create_guard_condition(self._on_loaded)
        self._failures = Failures()
        self._loader = ModelLoader[Settings](
            lambda settings: load_model(settings, self._log.info, self._failures.reasons),
            loaded.trigger,
        )
        self._engine_is_new = False
        engine_built = self.create_guard_condition(self._on_engine_built)
        self._builder = EngineBuilder(self._log, engine_built.trigger)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # On the steady clock, so that a simulation that stands still is still reported on.
        self.create_timer(
            self.settings.diagnostics_period_s,
            self._publish_diagnostics,
            clock=Clock(clock_type=ClockType.STEADY_TIME),
        )
        self.create_service(SetBool, "~/set_enabled", self._on_set_enabled)

    def start(self) -> None:
        """Configure and activate as soon as the model is loaded, while the node is spun."""
        self._starting = True
        self._loader.request(self._declared.current)

    @_ends_with_context
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._starting = False
        settings = self.settings = self._declared.current
        try:
            check_topics_differ(self._graph, settings)
            perceiver = self._model.perceiver = self._await_model(settings)
            specs = self._specs(perceiver.card, settings)
            self._cameras = {
                name: Camera(name, self._graph, self._log) for name in settings.cameras or ("",)
            }
            self._offer(specs, perceiver.card, settings)
        except DensePerceptionError as error:
            return self._not_configured(str(error))
        except Exception as error:
            return self._not_configured(f"{type(error).__name__}: {error}")
        self._last_error = self._load_problem = ""
        self._builder.want(settings.model, perceiver.selection.missing)
        self.state = "inactive"
        return super().on_configure(state)

    @_ends_with_context
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        for camera in self._cameras.values():
            camera.frame_log.restart()
        worker = Worker(self._answer, self._on_worker_error, senders=tuple(self._cameras))
        self._worker = worker.start()
        self.state = "active"
        if self._enabled:
            self._listen()
        else:
            self._log.info("active but disabled: call ~/set_enabled")
        self._announce()
        self._tie()
        return result

    @_ends_with_context
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop_answering()
        self.state = "inactive"
        return super().on_deactivate(state)

    @_ends_with_context
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return super().on_cleanup(state)

    @_ends_with_context
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self.state = "finalized"
        return super().on_shutdown(state)

    @_ends_with_context
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        super().on_error(state)
        return TransitionCallbackReturn.SUCCESS  # to unconfigured, from where it can start again

    def close(self) -> bool:
        """Stop the threads and free the model; the node can be destroyed afterwards.

        False if a thread is still busy, with a model that is being loaded or a frame: it ends with
        the process.
        """
        ended = self._release()
        return self._loader.close(PATIENCE_S) and ended

    # The corridor: from a message to the outputs.

    def _on_image(self, camera: str, message: AnyImage) -> None:
        is_due = self._cameras[camera].admits(self.settings)
        if is_due and self._worker is not None:
            self._worker.put(Received(message, time.perf_counter()), camera)

    def _answer(self, batch: dict[str, Received]) -> None:
        """The newest frames, in the worker thread."""
        with self._model.answering() as perceiver:
            settings, cameras = self.settings, self._cameras
            if perceiver is not None:
                answer_batch(
                    perceiver,
                    [(cameras[name], received) for name, received in batch.items()],
                    settings,
                    lambda: self.get_clock().now().nanoseconds,
                )

    def _on_worker_error(self, error: Exception) -> None:
        for camera in self._cameras.values():
            camera.failed(error)

    # Models and parameters.

    def _await_model(self, settings: Settings) -> Perceiver:
        """The model of ``settings``; diagnostics go on and a signal is obeyed meanwhile.

        :raises DensePerceptionError: if it does not load.
        :raises KeyboardInterrupt: if a signal ends the node's context.
        """
        wanted = self._loader.wanted
        if wanted is None or model_changes(wanted, settings):
            self._loader.request(settings)
        report_s = time.monotonic() + settings.diagnostics_period_s
        while (loaded := self._loader.take()) is None:
            if not self.context.ok():
                raise KeyboardInterrupt
            if time.monotonic() >= report_s:
                report_s += settings.diagnostics_period_s
                self._publish_diagnostics()
            self._loader.wait(_POLL_S)
        if loaded.perceiver is None:
            raise BackendError(loaded.problem)
        _tune(loaded.perceiver, settings)
        return loaded.perceiver

    def _on_loaded(self) -> None:
        """In the executor: what the loader brings is put to use."""
        if self._starting and self._loader.is_done:  # configure takes it
            if self.trigger_configure() == TransitionCallbackReturn.SUCCESS and self.context.ok():
                self.trigger_activate()
            return
        loaded = self._loader.take()
        if loaded is None:
            return
        if self._model.perceiver is None or loaded.perceiver is None:
            self._loader.discard(loaded.perceiver)
            if self._model.perceiver is not None:
                self._keep_model(loaded.settings, loaded.problem)
            return
        settings = with_model_of(self.settings, loaded.settings)
        try:
            self._change_over(loaded.perceiver, settings, loaded.begun_s)
        except DensePerceptionError as error:
            self._loader.discard(loaded.perceiver)
            self._keep_model(loaded.settings, str(error))

    def _change_over(self, new: Perceiver, settings: Settings, begun_s: float) -> None:
        specs, changes = self._specs(new.card, settings), model_changes(self.settings, settings)
        _tune(new, settings)

        def meanwhile() -> None:
            self._offer(specs, new.card, settings)
            self.settings = settings

        self._loader.discard(self._model.change(new, meanwhile))
        # What was refused of a change is said until one is taken, whatever engine runs meanwhile.
        if changes or self._is_engine_refused:
            self._load_problem = ""
        self._engine_is_new = False
        self._builder.want(settings.model, new.selection.missing, begun_s)
        self._announce()

    def _on_engine_built(self) -> None:
        """In the executor: the model is loaded again, with the engine or without."""
        self._engine_is_new = self._model.perceiver is not None  # it may come after cleanup
        self._load_new_engine()

    def _load_new_engine(self) -> None:
        """At once, or when a load that goes on has brought nothing: it may bring the engine."""
        if self._engine_is_new and self._model.perceiver and self._loader.wanted is None:
            self._engine_is_new = False
            self._loader.request(self.settings)

    def _keep_model(self, refused: Settings, problem: str) -> None:
        refused_values = model_changes(self.settings, refused)
        changes = ", ".join(f"{name} {value}" for name, value in refused_values.items())
        self._is_engine_refused = not changes
        changes = changes or "another engine or backend"
        self._load_problem = f"{changes} not taken: {problem}; {self.settings.model} goes on"
        self._log.error(self._load_problem)
        self._declared.put_back(self.settings)
        self._load_new_engine()

    def _use_parameters(self, new: Settings) -> None:
        """Put changed parameters into effect, or raise and leave everything as it is.

        They count from the next batch on; those of the model once that is loaded.
        """
        perceiver = self._model.perceiver
        if perceiver is None:
            self.settings = new
            if self._starting and model_changes(self._declared.current, new):
                self._loader.request(new, settle_s=_SETTLE_S)
            return
        settings = with_model_of(new, self.settings)
        specs = self._specs(perceiver.card, settings)
        loads = bool(model_changes(settings, new))
        if loads:  # what can be told without loading it is told at once
            self._specs(find_model(new.model).card, new)
        if settings != self.settings:
            with self._model.between_batches():
                _tune(perceiver, settings)
                for camera in self._cameras.values():
                    camera.keep(specs, settings)
                self.settings = settings
            self._announce()
        if not loads:
            self._loader.cancel_change(settings)
            self._load_new_engine()
        elif model_changes(self._declared.current, new):
            self._failures.forget()
            self._loader.request(new, settle_s=_SETTLE_S)

    def _specs(self, card: ModelCard, settings: Settings) -> tuple[TopicSpec, ...]:
        """
        :raises InputError: if the model does not fit this node, or the settings the model.
        """
        if self._needs and self._needs not in card.outputs:
            raise InputError(
                f"model {card.name} ({card.task}) gives no {self._needs}, expected a model that "
                "does: `dense-perception models` lists them"
            )
        return tuple(spec for group in self._groups for spec in group.specs(card, settings))

    def _offer(self, specs: Sequence[TopicSpec], card: ModelCard, settings: Settings) -> None:
        for camera in self._cameras.values():
            camera.offer(self._groups, specs, card, settings)

    def _announce(self) -> None:
        if self.state == "active":
            for camera in self._cameras.values():
                camera.announce(self.settings, self.get_clock().now().to_msg())

    def _not_configured(self, reason: str) -> TransitionCallbackReturn:
        self._release()
        self._last_error = reason
        self._log.error(
            f"cannot configure: {reason} (the node stays alive: set its parameters and configure "
            "it again)"
        )
        return TransitionCallbackReturn.FAILURE

    # Listening, resting and the end.

    def _listen(self) -> None:
        for camera in self._cameras.values():
            camera.listen(self.settings, self._on_image)
        named = ", ".join(camera.input.topic for camera in self._cameras.values() if camera.input)
        self._log.info(f"waiting for images on {named}")
        for name in self._graph.unmet_overrides():
            self._log.warn_once(f"{name} has no effect: this node opened no such topic")

    def _tie(self) -> None:
        """Begin the bond with the lifecycle manager, where there may be one."""
        period_s = self.settings.bond_heartbeat_period
        if self.settings.autostart or period_s == 0:
            return
        try:
            self._bond = Bond(self, period_s)
        except InputError as error:
            self._log.warn_once(str(error))

    def _on_set_enabled(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        if self.state == "active" and request.data != self._enabled:
            if request.data:
                self._listen()
            else:
                for camera in self._cameras.values():
                    camera.mute()
                if self._worker is not None:
                    self._worker.mailbox.clear()
        self._enabled = request.data
        words = "enabled" if self._enabled else "disabled"
        later = (
            "" if self.state == "active" else f"; the node is {self.state}, so from activation on"
        )
        response.success, response.message = True, words + later
        return response

    def _stop_answering(self) -> bool:
        """Whether the worker has ended; it finishes the frames at hand first."""
        bond, self._bond = self._bond, None
        if bond is not None and self.context.ok():
            bond.close()
        for camera in self._cameras.values():
            camera.mute()
        worker, self._worker = self._worker, None
        # After a signal the process ends, also amid a frame: its graph may never come to an end.
        patience_s = PATIENCE_S if self.context.ok() else _LAST_PATIENCE_S
        ended = worker is None or worker.stop(patience_s)
        if not ended:
            self._log.error(f"the worker is still busy after {patience_s:g} s")
        return ended

    def _release(self) -> bool:
        """Whether nothing uses the model any more, which is then freed."""
        self._starting = False
        self._loader.cancel()
        self._failures.forget()
        self._builder.close()
        self._engine_is_new = False
        ended = self._stop_answering()
        for camera in self._cameras.values():
            camera.close()
        self._cameras = {}
        perceiver, self._model.perceiver = self._model.perceiver, None
        if perceiver is not None:
            if ended:
                perceiver.close()
            del perceiver
            return_freed_memory()
        self.state = "unconfigured"
        self.settings = self._declared.current
        return ended

    # Diagnostics.

    def _replace_broken_backend(self) -> None:
        if self._loader.wanted is None and (said := self._failures.found_in(self._model.perceiver)):
            self._log.error(said)
            self._loader.request(self.settings)

    def _publish_diagnostics(self) -> None:
        self._replace_broken_backend()
        for camera in self._cameras.values():
            camera.look()
        healths = {name: self._health(camera) for name, camera in self._cameras.items()}
        message = diagnostic_array(
            healths or {"": self._node_health()},
            self.get_fully_qualified_name(),
            self.get_clock().now().to_msg(),
        )
        self._diagnostics.publish(message)

    def _node_health(self) -> Health:
        wanted, perceiver = self._loader.wanted, self._model.perceiver
        notes = perceiver.selection.warnings if perceiver else ()
        return Health(
            state=self.state,
            model=self.settings.model,
            backend=perceiver.backend.description if perceiver else "",
            backend_reason=perceiver.selection.summary() if perceiver else "",
            enabled=self._enabled,
            last_error=self._last_error,
            loading=f"{wanted.model} for {self._loader.seconds:.0f} s" if wanted else "",
            building=self._builder.status,
            notes=tuple(filter(None, (*notes, *self._builder.problems, self._load_problem))),
        )

    def _health(self, camera: Camera[Settings]) -> Health:
        mailbox = self._worker.mailbox if self._worker is not None else None
        return camera.frame_log.health(
            replace(
                self._node_health(),
                input_topic=camera.input.topic if camera.input is not None else "",
                wanted=bool(camera.wanted(self.settings)),
                received=mailbox.received(camera.name) if mailbox is not None else 0,
                dropped=mailbox.dropped(camera.name) if mailbox is not None else 0,
            )
        )


def _tune(perceiver: Perceiver, settings: PerceptionParameters) -> None:
    """What a perceiver can change without being loaded anew."""
    perceiver.default_hfov_deg = settings.default_hfov_deg
    perceiver.output_size = settings.output_size
    perceiver.max_output_side = settings.max_output_side
