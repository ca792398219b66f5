"""Messages of several topics that belong to one colour image, by their headers' stamps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from dense_perception.core.errors import InputError
from dense_perception.imaging.messages import Header, ImageMessage, ImageReader, stamp_ns
from dense_perception.imaging.transforms import StampedTransform
from dense_perception.media.bag_images import needs_all
from dense_perception.media.bag_reader import BagMessage, BagReader
from dense_perception.media.problems import Problems

# What belongs to an image was recorded within this time of it: on slow disks and in busy nodes.
_PATIENCE_NS = 500_000_000


class StampedMessage(Protocol):
    """Any message with a header."""

    @property
    def header(self) -> Header: ...


class Transforms(Protocol):
    """``tf2_msgs/TFMessage``."""

    @property
    def transforms(self) -> Sequence[StampedTransform]: ...


@dataclass(slots=True)
class Match:
    """A colour image, its number among the topic's, and what was found for it by topic.

    ``rgb_hwc`` is the picture of a packet of a video, which needed those before it; else None.
    """

    number: int
    stamp_ns: int
    time_ns: int
    colour: ImageMessage
    partners: dict[str, Any] = field(default_factory=dict)
    rgb_hwc: np.ndarray | None = None


class Matcher:
    """Iterates over the colour images ``first`` to ``stop`` (excluded) of a bag.

    Every image comes with the message of each topic in ``partners`` that is nearest by stamp,
    within ``tolerance_ns``. Messages of ``transforms`` are handed to ``on_transforms`` before any
    image that they may be needed for comes. Only half a second of the bag is held. ``reader``
    decodes a video, from its start also where ``first`` is later; without it, messages alone come.
    ``problems`` collects what cannot be used.

    ``between_ns``: only images that were recorded from the first to before the second time come;
    what lies well outside is not read. Then ``number`` counts from the first image read.
    """

    def __init__(
        self,
        bag: BagReader,
        colour: str,
        partners: Sequence[str],
        tolerance_ns: int,
        transforms: Sequence[str] = (),
        first: int = 0,
        stop: int | None = None,
        between_ns: tuple[int | None, int | None] = (None, None),
        *,
        reader: ImageReader | None = None,
        problems: Problems | None = None,
    ) -> None:
        self.bag = bag
        self.problems = Problems() if problems is None else problems
        self._last_ns: int | None = None
        self._last_time_ns = 0
        self._repeats = False
        self._video = reader if reader is not None and needs_all(bag, colour) else None
        self._colour, self._partners = colour, tuple(partners)
        self._transforms = tuple(transforms)
        self._tolerance_ns = tolerance_ns
        self._first, self._stop = first, stop
        self._begin_ns, self._end_ns = between_ns
        self._recent: dict[str, deque[tuple[int, BagMessage]]] = {
            topic: deque() for topic in self._partners
        }

    def on_transforms(self, topic: str, content: Transforms) -> None:
        """What a message of ``transforms`` says; to be replaced."""

    def __iter__(self) -> Iterator[Match]:
        waiting: deque[Match] = deque()
        number = -1
        wanted = [self._colour, *self._partners, *self._transforms]
        begin_ns, end_ns = self._begin_ns, self._end_ns
        read_ns = None if begin_ns is None else begin_ns - 3 * _PATIENCE_NS
        for message in self.bag.messages(wanted, read_ns):
            while waiting and message.time_ns > waiting[0].time_ns + _PATIENCE_NS:
                yield self._with_partners(waiting.popleft(), waiting)
            if end_ns is not None and message.time_ns >= end_ns and not waiting:
                break
            if message.topic == self._colour:
                if begin_ns is not None and message.time_ns < begin_ns:
                    continue
                if end_ns is not None and message.time_ns >= end_ns:
                    continue
                number += 1
                if self._stop is not None and number >= self._stop:
                    # Its partners and transforms may still come: read on until they have.
                    if not waiting:
                        return
                    continue
                if number < self._first and self._video is None:
                    continue
            rgb_hwc = None
            try:
                content = self.bag.deserialize(message)
                if message.topic == self._colour and self._video is not None:
                    rgb_hwc = self._video.rgb(content)
                    if rgb_hwc is None:
                        continue
            except InputError as error:
                self.problems.at(f"{message.topic} at {message.time_ns} ns", error)
                continue
            if message.topic == self._colour:
                if number < self._first:
                    continue
                time_ns = stamp_ns(content.header)
                waiting.append(Match(number, time_ns, message.time_ns, content, rgb_hwc=rgb_hwc))
            elif message.topic in self._recent:
                recent = self._recent[message.topic]
                recent.append((stamp_ns(content.header), message))
                while recent[0][1].time_ns < message.time_ns - 3 * _PATIENCE_NS:
                    recent.popleft()
            else:
                self.on_transforms(message.topic, content)
        while waiting:
            yield self._with_partners(waiting.popleft(), waiting)
        self.problems.extend(self.bag.problems)

    def _with_partners(self, match: Match, later: Iterable[Match]) -> Match:
        # When images of the same stamp were recorded: what is nearer to one of those is theirs.
        rivals_ns = [each.time_ns for each in later if each.stamp_ns == match.stamp_ns]
        if match.stamp_ns == self._last_ns:
            rivals_ns.append(self._last_time_ns)
        if match.stamp_ns == self._last_ns and not self._repeats and self._recent:
            self._repeats = True
            self.problems.note(
                f"images of {self._colour} repeat the stamp {match.stamp_ns} ns: messages with "
                "this stamp are matched by the time of recording; make the driver stamp every image"
            )
        self._last_ns, self._last_time_ns = match.stamp_ns, match.time_ns
        for topic, recent in self._recent.items():
            # Where drivers leave stamps at 0 or repeat them, the time of recording decides.
            best = min(
                (each for each in recent if _is_nearest(match, rivals_ns, each[1].time_ns)),
                key=lambda each: (
                    abs(each[0] - match.stamp_ns),
                    abs(each[1].time_ns - match.time_ns),
                ),
                default=None,
            )
            if best is not None and abs(best[0] - match.stamp_ns) <= self._tolerance_ns:
                match.partners[topic] = self.bag.deserialize(best[1])
        return match


def _is_nearest(match: Match, rivals_ns: Sequence[int], time_ns: int) -> bool:
    """Whether no rival was recorded nearer to ``time_ns``."""
    own = abs(match.time_ns - time_ns)
    return all(own <= abs(rival_ns - time_ns) for rival_ns in rivals_ns)
