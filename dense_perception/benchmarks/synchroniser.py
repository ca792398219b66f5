"""Messages of several topics whose stamps nearly agree, as message_filters' approximate policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dense_perception.imaging.messages import stamp_ns


class ApproximateSynchroniser:
    """Calls ``matched`` with one message of each topic, once their stamps lie within ``slop_ns``.

    Each message is used at most once, and none that is older than one already used. ``depth``
    messages of each topic wait for their partners; the oldest is lost when another comes.
    """

    def __init__(
        self,
        topics: Sequence[str],
        slop_ns: int,
        matched: Callable[[dict[str, Any]], None],
        depth: int = 10,
    ) -> None:
        self._slop_ns = slop_ns
        self._matched = matched
        self._depth = depth
        self._waiting: dict[str, dict[int, Any]] = {topic: {} for topic in topics}

    def add(self, topic: str, message: Any) -> None:
        """Take a message; calls ``matched`` if it completes a set."""
        pivot_ns = stamp_ns(message.header)
        waiting = self._waiting[topic]
        waiting[pivot_ns] = message
        if len(waiting) > self._depth:
            del waiting[min(waiting)]
        if not all(self._waiting.values()):
            return
        chosen = {
            name: min(stamps, key=lambda stamp: abs(stamp - pivot_ns))
            for name, stamps in self._waiting.items()
        }
        if max(chosen.values()) - min(chosen.values()) > self._slop_ns:
            return
        complete = {name: self._waiting[name][stamp] for name, stamp in chosen.items()}
        for name, stamp in chosen.items():
            self._waiting[name] = {
                later: kept for later, kept in self._waiting[name].items() if later > stamp
            }
        self._matched(complete)
