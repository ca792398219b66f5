"""Records topics into an MCAP bag, where ``ros2 bag`` is not installed."""

from __future__ import annotations

import heapq
import os
import queue
import shutil
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dense_perception.core.errors import DensePerceptionError, InputError
from dense_perception.core.printable import counted

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.subscription import MessageInfo, Subscription
    from rclpy.topic_endpoint_info import TopicEndpointInfo
    from rosbags.interfaces import Connection

# How long images wait for their answers, by stamps and by arrival, before they are written.
_HELD_NS = 5_000_000_000
# How much may wait for the disk: a few seconds of several cameras, and far from filling a robot.
_MOST_WAITING_BYTES = 256 * 2**20


class Arrived(NamedTuple):
    """A serialised message, and when it came."""

    connection: Connection
    received_ns: int
    data: bytes


class Backlog:
    """What came and the disk has not been asked to take yet, at most ``most_bytes`` of it.

    Iterating gives the messages as they come, until :meth:`end`.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._messages: queue.SimpleQueue[Arrived | None] = queue.SimpleQueue()

    def put(self, message: Arrived) -> bool:
        """Whether there was room for it; a message larger than all room is taken by itself."""
        with self._lock:
            if self._bytes and self._bytes + len(message.data) > self._most_bytes:
                return False
            self._bytes += len(message.data)
        self._messages.put(message)
        return True

    def end(self) -> None:
        """Nothing comes any more."""
        self._messages.put(None)

    def __iter__(self) -> Iterator[Arrived]:
        for message in iter(self._messages.get, None):
            with self._lock:
                self._bytes -= len(message.data)
            yield message


class Recorder:
    """Writes every message of the given topics, as received, with its time of arrival.

    The bag grows in a hidden folder beside ``output`` and moves there when it is closed. Topics
    are subscribed as soon as somebody publishes them. ``problem`` says why nothing is written any
    more, as on a full disk; empty is nothing. Where more comes than the disk takes, and 256 MB wait
    for it, messages are dropped: stderr says so at the first one, ``dropped`` counts them by topic.

    ``answers_of`` is the full name of a node that answers a replay. Topics, all with headers, are
    then subscribed when all are published and the node subscribes to the first: a replay that
    waits for subscribers starts with the node, or not at all. Messages lie in the bag by the
    stamps of their headers, an answer beside its image however long it took.

    :raises InputError: if ``output`` exists.
    """

    def __init__(
        self, node: Node, output: Path, topics: Sequence[str], *, answers_of: str = ""
    ) -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        if output.exists():
            raise InputError(f"{output} exists already: choose another name or remove it")
        self.output = output
        # The writer names its file after its folder, so the folder has its final name already.
        self._work = output.with_name(f".{output.name}.partial")
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir(parents=True)
        self._writer = Writer(
            self._work / output.name, version=9, storage_plugin=StoragePlugin.MCAP
        )
        self._writer.open()
        self._typestore = get_typestore(Stores.LATEST)
        self._node = node
        self._first = topics[0]
        self._missing = set(topics)
        self._published: set[str] = set()  # at any time
        self._answers_of = answers_of
        self.problem = ""
        self.counts = dict.fromkeys(topics, 0)
        self._subscriptions: list[Subscription[Any]] = []
        # The executor must come back at once, or the middleware's queues overflow meanwhile.
        self._pending = Backlog(_MOST_WAITING_BYTES)
        self.dropped: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()
        self._timer = node.create_timer(0.05, self.subscribe_to_published)
        self.subscribe_to_published()

    @property
    def is_complete(self) -> bool:
        """Is every topic subscribed?"""
        return not self._missing

    @property
    def waits_for(self) -> str:
        """What never came that it needs to subscribe, in words; empty where nothing is missing."""
        silent = sorted(self._missing - self._published)
        if silent:
            return f"nobody publishes {', '.join(silent)}"
        if self._missing:
            return f"{self._answers_of} does not subscribe to {self._first}"
        return ""

    def subscribe_to_published(self) -> None:
        """Subscribe to those wanted topics that have a publisher by now."""
        found = {
            topic: self._node.get_publishers_info_by_topic(topic) for topic in sorted(self._missing)
        }
        self._published.update(topic for topic, publishers in found.items() if publishers)
        if self._answers_of and not (all(found.values()) and self._is_answered()):
            return
        for topic, publishers in found.items():
            if publishers:
                self._subscribe(topic, publishers)
                self._missing.discard(topic)

    def close(self) -> None:
        """Finish the bag; after this it can be read under its name.

        :raises DensePerceptionError: if the disk did not take it; what it took stays in the hidden
            folder, which the message names.
        """
        self._node.destroy_timer(self._timer)
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._pending.end()
        self._thread.join()
        try:
            self._writer.close()
            if not self.problem:
                os.replace(self._work / self.output.name, self.output)
        except OSError as error:
            self.problem = self.problem or _refused(self.output, error)
        if self.problem:
            raise DensePerceptionError(f"{self.problem}; what was written is in {self._work}")
        self._work.rmdir()

    def _is_answered(self) -> bool:
        """Whether the node that answers subscribes to the first topic; we and others do not count.

        A node has its publishers before it subscribes, and it may be told to wait in between.
        """
        return any(
            f"{info.node_namespace.rstrip('/')}/{info.node_name}" == self._answers_of
            for info in self._node.get_subscriptions_info_by_topic(self._first)
        )

    def _write(self) -> None:
        try:
            if self._answers_of:
                for time_ns, message in by_stamp(self._pending):
                    self._writer.write(message.connection, time_ns, message.data)
            else:
                for message in self._pending:
                    self._writer.write(*message)
        except OSError as error:  # what comes now is dropped
            self.problem = _refused(self.output, error)

    def _take(self, message: Arrived) -> None:
        if self.problem:
            return
        topic = message.connection.topic
        if self._pending.put(message):
            self.counts[topic] += 1
            return
        if not self.dropped:
            print(
                f"more comes than the disk of {self.output} takes: messages are dropped while "
                f"{_MOST_WAITING_BYTES >> 20} MB wait for it; record fewer topics, compressed "
                "images, or to a faster disk",
                file=sys.stderr,
                flush=True,
            )
        self.dropped[topic] += 1

    @property
    def losses(self) -> list[str]:
        """What was dropped, a line for each topic."""
        return [
            f"not in {self.output.name}, as the disk was too slow: "
            f"{counted(count, 'message')} of {topic}"
            for topic, count in sorted(self.dropped.items())
        ]

    def _subscribe(self, topic: str, publishers: Sequence[TopicEndpointInfo]) -> None:
        from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
        from rclpy.subscription import Subscription

        from dense_perception.ros.topics import message_class

        msgtype = publishers[0].topic_type
        connection = self._writer.add_connection(topic, msgtype, typestore=self._typestore)
        reliable = all(
            info.qos_profile.reliability == ReliabilityPolicy.RELIABLE for info in publishers
        )
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        # What was sent once, before we came, belongs to the recording too.
        latched = all(
            info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for info in publishers
        )
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE

        def with_info(data: bytes, info: MessageInfo) -> None:
            received_ns = info["received_timestamp"] or time.time_ns()
            self._take(Arrived(connection, received_ns, data))

        def without_info(data: bytes) -> None:  # Humble's rclpy tells no more
            self._take(Arrived(connection, time.time_ns(), data))

        self._subscriptions.append(
            self._node.create_subscription(
                message_class(msgtype),
                topic,
                with_info if hasattr(Subscription, "CallbackType") else without_info,
                QoSProfile(depth=50, reliability=policy, durability=durability),
                raw=True,
            )
        )


def by_stamp(arrived: Iterable[Arrived]) -> Iterator[tuple[int, Arrived]]:
    """Messages with headers in the order of their stamps, with the time to record them at.

    Each is held until 5 s of stamps or of arrivals have passed, and no longer. Messages whose stamp
    is no time, or repeats that of their topic's last one, come at once with their time of arrival;
    their topic is named on stderr.
    """
    waiting: list[tuple[int, int, Arrived]] = []
    newest_ns = 0
    last_ns: dict[str, int] = {}
    said: set[str] = set()
    for number, message in enumerate(arrived):
        stamp_ns, topic = header_stamp_ns(message.data), message.connection.topic
        if stamp_ns > 0 and stamp_ns != last_ns.get(topic):
            newest_ns = max(newest_ns, stamp_ns)
            heapq.heappush(waiting, (stamp_ns, number, message))
        else:
            if topic not in said:
                print(
                    f"stamps of {topic} are 0 or repeat ({stamp_ns} ns): its messages lie in the "
                    "bag by their time of arrival, where no answer can be told to be that of an "
                    "image",
                    file=sys.stderr,
                    flush=True,
                )
            said.add(topic)
            yield message.received_ns, message
        last_ns[topic] = stamp_ns
        while waiting and (
            waiting[0][0] < newest_ns - _HELD_NS
            or waiting[0][2].received_ns < message.received_ns - _HELD_NS
        ):
            stamp_ns, _, first = heapq.heappop(waiting)
            yield stamp_ns, first
    while waiting:
        stamp_ns, _, first = heapq.heappop(waiting)
        yield stamp_ns, first


def header_stamp_ns(cdr: bytes) -> int:
    """The stamp of a serialised message whose first field is a ``std_msgs/Header``, in ns.

    0 where the message is too short to have one.
    """
    if len(cdr) < 12:
        return 0
    seconds, nanoseconds = struct.unpack_from("<iI" if cdr[1] & 1 else ">iI", cdr, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def _refused(output: Path, error: OSError) -> str:
    return f"cannot write {output}: {error.strerror or error}"


class ReplayWatch:
    """Tells when a replay is over: ``/clock`` had a publisher, and has had none for a while.

    The while is ``LAST_ANSWERS_S``, in which the answers to the last images come.
    """

    LAST_ANSWERS_S = 3.0

    def __init__(self, node: Node) -> None:
        self._node = node
        self._seen = False
        self._gone_at: float | None = None

    def is_over(self) -> bool:
        """To be asked again and again."""
        if self._node.count_publishers("/clock"):
            self._seen, self._gone_at = True, None
        elif self._seen and self._gone_at is None:
            self._gone_at = time.monotonic()
        gone = self._gone_at
        return gone is not None and time.monotonic() - gone > self.LAST_ANSWERS_S


def main(arguments: list[str] | None = None) -> int:
    """``python -m dense_perception.ros.record [--answers-of NODE] FOLDER TOPIC ...``.

    Records until interrupted. With ``--answers-of`` until the replay that publishes ``/clock`` is
    over; then nothing is subscribed before all topics are published and NODE, named in full,
    subscribes to the first one. Returns 0, or 1 if the bag lacks something.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    answers_of = ""
    if words[:1] == ["--answers-of"] and len(words) > 1:
        answers_of, words = words[1], words[2:]
    if len(words) < 2 or words[0].startswith("-"):
        usage = "python -m dense_perception.ros.record [--answers-of NODE] FOLDER TOPIC ..."
        print(f"usage: {usage}", file=sys.stderr)
        return 2
    output, wanted = Path(words[0]), words[1:]

    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from dense_perception.core.machine import keep_freed_memory
    from dense_perception.ros.processes import interrupt_on_signals

    keep_freed_memory()
    interrupt_on_signals()
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("recorder", start_parameter_services=False)
    problem, is_new = "", not output.parent.exists()
    try:
        recorder = Recorder(node, output, wanted, answers_of=answers_of)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        announced = False
        watch = ReplayWatch(node)
        try:
            while not recorder.problem and not (answers_of and watch.is_over()):
                executor.spin_once(timeout_sec=0.1)
                if recorder.is_complete and not announced:
                    print(f"recording {counted(len(wanted), 'topic')}", flush=True)
                    announced = True
        except KeyboardInterrupt:
            pass
        finally:
            if answers_of and recorder.waits_for:
                problem = f"nothing was recorded: {recorder.waits_for}"
            executor.shutdown()
            recorder.close()
        if problem:  # an empty bag would be in the way of the next try
            shutil.rmtree(output)
            if is_new:
                output.parent.rmdir()
        for topic, count in recorder.counts.items():
            print(f"{topic}: {counted(count, 'message')}")
        problem = "\n".join([*filter(None, [problem]), *recorder.losses])
    except (DensePerceptionError, OSError) as error:
        problem = str(error)
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    if problem:
        print(problem, file=sys.stderr)
    return int(bool(problem))


if __name__ == "__main__":
    raise SystemExit(main())
