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
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dense_perception.core.errors import InputError

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.subscription import MessageInfo, Subscription
    from rclpy.topic_endpoint_info import TopicEndpointInfo
    from rosbags.interfaces import Connection

# How long images wait for their answers, by stamps, before they are written.
_HELD_NS = 5_000_000_000


class Recorder:
    """Writes every message of the given topics, as received, with its time of arrival.

    The bag grows in a hidden folder beside ``output`` and moves there when it is closed. Topics
    are subscribed as soon as somebody publishes them.

    ``together`` is for a replay and what answers it: topics, all with headers, are subscribed when
    all are published, so that the replay does not start before the node. Messages lie in the bag
    by the stamps of their headers, an answer beside its image however long it took.

    :raises InputError: if ``output`` exists.
    """

    def __init__(
        self, node: Node, output: Path, topics: Sequence[str], *, together: bool = False
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
        self._missing = set(topics)
        self._together = together
        self.counts = dict.fromkeys(topics, 0)
        self._subscriptions: list[Subscription[Any]] = []
        # The executor must come back at once, or the middleware's queues overflow meanwhile.
        self._pending: queue.SimpleQueue[tuple[Connection, int, bytes] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()
        self._timer = node.create_timer(0.05, self.subscribe_to_published)
        self.subscribe_to_published()

    @property
    def is_complete(self) -> bool:
        """Is every topic subscribed?"""
        return not self._missing

    def subscribe_to_published(self) -> None:
        """Subscribe to those wanted topics that have a publisher by now."""
        found = {
            topic: self._node.get_publishers_info_by_topic(topic) for topic in sorted(self._missing)
        }
        if self._together and not all(found.values()):
            return
        for topic, publishers in found.items():
            if publishers:
                self._subscribe(topic, publishers)
                self._missing.discard(topic)

    def close(self) -> None:
        """Finish the bag; after this it can be read under its name."""
        self._node.destroy_timer(self._timer)
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._pending.put(None)
        self._thread.join()
        self._writer.close()
        os.replace(self._work / self.output.name, self.output)
        self._work.rmdir()

    def _write(self) -> None:
        waiting: list[tuple[int, int, Connection, bytes]] = []
        newest_ns = 0
        for number, (connection, received_ns, data) in enumerate(iter(self._pending.get, None)):
            if not self._together:
                self._writer.write(connection, received_ns, data)
                continue
            stamp_ns = header_stamp_ns(data)
            newest_ns = max(newest_ns, stamp_ns)
            heapq.heappush(waiting, (stamp_ns, number, connection, data))
            while waiting[0][0] < newest_ns - _HELD_NS:
                self._put_first(waiting)
        while waiting:
            self._put_first(waiting)

    def _put_first(self, waiting: list[tuple[int, int, Connection, bytes]]) -> None:
        stamp_ns, _, connection, data = heapq.heappop(waiting)
        self._writer.write(connection, stamp_ns, data)

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

        def take(data: bytes, received_ns: int) -> None:
            self._pending.put((connection, received_ns, data))
            self.counts[topic] += 1

        def with_info(data: bytes, info: MessageInfo) -> None:
            take(data, info["received_timestamp"] or time.time_ns())

        def without_info(data: bytes) -> None:  # Humble's rclpy tells no more
            take(data, time.time_ns())

        self._subscriptions.append(
            self._node.create_subscription(
                message_class(msgtype),
                topic,
                with_info if hasattr(Subscription, "CallbackType") else without_info,
                QoSProfile(depth=50, reliability=policy, durability=durability),
                raw=True,
            )
        )


def header_stamp_ns(cdr: bytes) -> int:
    """The stamp of a serialised message whose first field is a ``std_msgs/Header``, in ns."""
    seconds, nanoseconds = struct.unpack_from("<iI" if cdr[1] & 1 else ">iI", cdr, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


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
    """``python -m dense_perception.ros.record [--until-clock-ends] FOLDER TOPIC ...``; returns 0.

    Records until interrupted, or with ``--until-clock-ends`` until the replay that publishes
    ``/clock`` is over; then nothing is subscribed before everything is published.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    ends_itself = words[:1] == ["--until-clock-ends"]
    words = words[ends_itself:]
    if len(words) < 2 or words[0].startswith("-"):
        usage = "python -m dense_perception.ros.record [--until-clock-ends] FOLDER TOPIC ..."
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
    recorder = Recorder(node, output, wanted, together=ends_itself)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    announced = False
    watch = ReplayWatch(node)
    try:
        while not (ends_itself and watch.is_over()):
            executor.spin_once(timeout_sec=0.1)
            if recorder.is_complete and not announced:
                print(f"recording {len(wanted)} topics", flush=True)
                announced = True
    except KeyboardInterrupt:
        pass
    finally:
        executor.shutdown()
        recorder.close()
        node.destroy_node()
        rclpy.try_shutdown()
    for topic, count in recorder.counts.items():
        print(f"{topic}: {count} messages")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
