"""Publishes a bag on its topics at its own times, where ``ros2 bag`` is not installed."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.exceptions import NameValidationException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock

from dense_perception.core.errors import InputError
from dense_perception.core.machine import keep_freed_memory
from dense_perception.imaging.messages import stamp_fields
from dense_perception.media.bag_reader import BagReader, BagTopic
from dense_perception.ros.processes import interrupt_on_signals
from dense_perception.ros.topics import message_class

_CLOCK_PERIOD_S = 0.01
_MAX_DEPTH = 1000
_LINGER_S = 0.2


@dataclass(frozen=True)
class ReplayOptions:
    """``remap`` maps a bag's topic to the one it is published on; an empty ``topics`` means all.

    ``require_subscribers``: play nothing if a topic has too few when the wait for them is over.
    """

    rate: float = 1.0
    loop: bool = False
    clock: bool = False
    topics: tuple[str, ...] = ()
    remap: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    wait_for_subscribers_s: float = 0.0
    subscribers: int = 1
    require_subscribers: bool = False

    def __post_init__(self) -> None:
        if not 0.001 <= self.rate <= 1000:
            raise InputError(f"rate is {self.rate}, expected 0.001 to 1000 (1 is real time)")


@dataclass
class ReplayReport:
    """What happened; ``skipped`` maps topics that were not played to the reason."""

    published: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    unsubscribed: list[str] = field(default_factory=list)
    seconds: float = 0.0
    latest_ms: float = 0.0
    problems: list[str] = field(default_factory=list)
    interrupted: bool = False


class Replay:
    """Plays an open bag through ``node``.

    :raises InputError: if no topic of the bag can be played.
    """

    def __init__(self, node: Node, bag: BagReader, options: ReplayOptions) -> None:
        self._bag = bag
        self._options = options
        self._node = node
        self.report = ReplayReport()
        self._publishers: dict[str, Publisher[Any]] = {}
        _check_known(bag, (*options.topics, *options.remap))
        for topic in bag.topics:
            if options.topics and topic.name not in options.topics:
                continue
            self._advertise(topic)
        if not self._publishers:
            raise InputError(
                f"no topic of {bag.path} can be played: "
                + "; ".join(f"{name}: {why}" for name, why in self.report.skipped.items())
            )
        self._clock = node.create_publisher(Clock, "/clock", 10) if options.clock else None

    @property
    def message_count(self) -> int:
        """How many messages one pass has."""
        return sum(topic.count or 0 for topic in self._bag.topics if topic.name in self.topics)

    @property
    def topics(self) -> tuple[str, ...]:
        """The bag's topics that are played."""
        return tuple(self._publishers)

    def run(
        self,
        *,
        is_stopped: Callable[[], bool] = lambda: False,
        on_message: Callable[[], None] = lambda: None,
    ) -> ReplayReport:
        """Play to the end, or until ``is_stopped``; ``on_message`` follows every message.

        :raises InputError: if subscribers are required and missing.
        """
        self._wait_for_subscribers(is_stopped)
        _sleep_until(time.monotonic() + self._options.delay_s, is_stopped)
        started = time.monotonic()
        while not is_stopped():
            self._play_once(is_stopped, on_message)
            if not self._options.loop:
                break
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=1.0))
        # A best-effort subscriber acknowledges nothing, and what it has not read yet goes with us.
        _sleep_until(time.monotonic() + _LINGER_S, is_stopped)
        self.report.seconds = time.monotonic() - started
        self.report.problems = list(self._bag.problems)
        return self.report

    def _advertise(self, topic: BagTopic) -> None:
        if topic.encoding != "cdr":
            self.report.skipped[topic.name] = f"it is recorded as {topic.encoding!r}, not CDR"
            return
        try:
            kind = message_class(topic.msgtype)
        except InputError as error:
            self.report.skipped[topic.name] = str(error)
            return
        name = self._options.remap.get(topic.name, topic.name)
        try:
            if "\0" in name:  # ROS would take what is before it
                raise ValueError("it contains a null character")
            publisher: Publisher[Any] = self._node.create_publisher(kind, name, replay_qos(topic))
        # rclpy checks the letters, rcl the substitutions, and its bindings whether it is a text.
        except (NameValidationException, ValueError, TypeError) as error:
            why = " ".join(str(error).splitlines()[0].partition(", at /")[0].split())
            reason = f"{name!r} is no topic's name ({why}): use --remap"
            if topic.name in self._options.remap:
                raise InputError(f"--remap of {topic.name}: {reason} with another") from error
            self.report.skipped[topic.name] = reason
            return
        self._publishers[topic.name] = publisher
        self.report.published[topic.name] = 0

    def _wait_for_subscribers(self, is_stopped: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._options.wait_for_subscribers_s
        while not is_stopped():
            missing = [
                name
                for name, publisher in self._publishers.items()
                if publisher.get_subscription_count() < self._options.subscribers
            ]
            if not missing or time.monotonic() >= deadline:
                if missing and self._options.require_subscribers:
                    raise InputError(
                        f"nobody subscribed to {', '.join(missing)} within "
                        f"{self._options.wait_for_subscribers_s:g} s: is the node active?"
                    )
                if self._options.wait_for_subscribers_s > 0:
                    self.report.unsubscribed = missing
                return
            time.sleep(0.02)

    def _play_once(self, is_stopped: Callable[[], bool], on_message: Callable[[], None]) -> None:
        started, first_ns = time.monotonic(), 0
        for message in self._bag.messages(self.topics):
            first_ns = first_ns or message.time_ns
            due = started + max(0, message.time_ns - first_ns) / 1e9 / self._options.rate
            self._wait(due, started, first_ns, is_stopped)
            if is_stopped():
                return
            self._tell_time(message.time_ns)
            self._publishers[message.topic].publish(message.data)
            self.report.published[message.topic] += 1
            self.report.latest_ms = max(self.report.latest_ms, (time.monotonic() - due) * 1e3)
            on_message()

    def _wait(
        self, due: float, started: float, first_ns: int, is_stopped: Callable[[], bool]
    ) -> None:
        """Sleep until ``due``, with the clock running meanwhile."""
        while self._clock is not None and due - time.monotonic() > _CLOCK_PERIOD_S:
            elapsed_s = (time.monotonic() - started) * self._options.rate
            self._tell_time(first_ns + int(elapsed_s * 1e9))
            _sleep_until(time.monotonic() + _CLOCK_PERIOD_S, is_stopped)
            if is_stopped():
                return
        _sleep_until(due, is_stopped)

    def _tell_time(self, time_ns: int) -> None:
        if self._clock is not None:
            message = Clock()
            message.clock.sec, message.clock.nanosec = stamp_fields(time_ns)
            self._clock.publish(message)


def replay_bag(
    path: Path, options: ReplayOptions, on_message: Callable[[int], None]
) -> ReplayReport:
    """Play a bag from a node of its own, until its end or Ctrl-C; initialises rclpy.

    ``on_message`` is called after every message with how many messages one pass has.

    :raises InputError: if the bag cannot be read or no topic of it can be played.
    """
    keep_freed_memory()
    interrupt_on_signals()
    with BagReader(path) as bag:
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node("bag_replay", start_parameter_services=False)
        report = ReplayReport()
        try:
            replay = Replay(node, bag, options)
            report, total = replay.report, replay.message_count
            replay.run(on_message=lambda: on_message(total))
        except KeyboardInterrupt:
            report.interrupted = True
        finally:
            node.destroy_node()
            rclpy.try_shutdown()
    return report


def replay_qos(topic: BagTopic) -> QoSProfile:
    """What the topic's publishers offered; without a record reliable, and latched for /tf_static.

    Where several publishers differed, the weakest reliability and durability, which every
    subscriber of all of them accepted.
    """
    latched = topic.name.endswith("tf_static")
    profile = QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=100 if latched else 10,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )
    names = [
        (_policy(qos, "reliability"), _policy(qos, "durability"), int(getattr(qos, "depth", 0)))
        for qos in topic.qos
    ]
    if any(reliability == "best_effort" for reliability, _, _ in names):
        profile.reliability = ReliabilityPolicy.BEST_EFFORT
    if names and all(durability == "transient_local" for _, durability, _ in names):
        profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
    profile.depth = min(_MAX_DEPTH, max([profile.depth, *(depth for _, _, depth in names)]))
    return profile


def _policy(qos: object, name: str) -> str:
    return str(getattr(getattr(qos, name, None), "name", "")).lower()


def _check_known(bag: BagReader, names: Collection[str]) -> None:
    known = [topic.name for topic in bag.topics]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"{bag.path} has no topic {', '.join(unknown)}, it has {', '.join(known)}")


def _sleep_until(due: float, is_stopped: Callable[[], bool]) -> None:
    while (rest := due - time.monotonic()) > 0 and not is_stopped():
        time.sleep(min(rest, 0.1))
