"""A recording as truth: the frames that ``extract`` would make of it, read part by part."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dense_perception.core.camera import Frame
from dense_perception.core.errors import InputError
from dense_perception.core.prediction import DepthKind, DepthMap, known_only
from dense_perception.data.extraction.matching import Match, Matcher, Transforms
from dense_perception.data.extraction.scene import Cameras, motions_of
from dense_perception.data.extraction.topics import TopicNames, Topics, choose_topics
from dense_perception.evaluation.truth import (
    PART_FRAMES,
    Part,
    RecordedAnswer,
    TruthFrame,
    TruthOptions,
    counted_labels,
    known_depth,
)
from dense_perception.imaging.transforms import TransformBuffer
from dense_perception.media.bag_images import image_topics, needs_all, why_unmatched
from dense_perception.media.bag_reader import BagMessage, BagReader
from dense_perception.media.problems import Problems

_STATIC = "/tf_static"


@dataclass(frozen=True)
class _Recorded:
    """A topic with another system's answers, and how they come to the colour camera."""

    topics: Topics
    cameras: Cameras


class BagTruth:
    """Images of a bag with the depth, points and labels recorded beside them, matched by stamp.

    Registered and undistorted as :mod:`dense_perception.data.extraction` does it. Only one part's
    messages of about half a second are held.

    :raises InputError: if the bag cannot be read or its topics are not clear; the message lists
        them.
    """

    kind = "bag"

    def __init__(self, path: Path, name: str, options: TruthOptions) -> None:
        self.name, self.path = name, str(path)
        self.unmatched = self.empty = 0
        self._options = options
        self.problems = Problems()
        self.notes: list[str] = []
        self._bag = BagReader(path)
        try:
            self._topics = choose_topics(self._bag, self._names(), options.matrix)
            self._has_truth = bool(self._topics.depth or self._topics.points or self._topics.labels)
            if not self._has_truth:
                raise InputError(
                    f"{path.name} has images on {self._topics.colour} and no truth beside them: "
                    "name a topic with --depth-topic, --points-topic or --label-topic"
                )
            self._is_video = needs_all(self._bag, self._topics.colour)
            self._reader = options.reader()
            self._cameras = self._cameras_of(self._topics)
            self._recorded = self._open_recorded()
            self._static = self._static_transforms()
        except BaseException:
            self._bag.close()
            raise
        self.classes = self._topics.classes
        self.notes += [self._topics.doubt] if self._topics.doubt else []
        if self._topics.colour_info is None:
            self.notes.append(
                f"{self._topics.colour} has no camera_info: a horizontal field of view of "
                f"{options.hfov_deg:g} degrees is assumed (--hfov), and metres scale with it"
            )

    def close(self) -> None:
        self._bag.close()

    def why_none(self) -> str:
        found = (self._topics.depth, *self._topics.points, self._topics.labels)
        names = [name for name in found if name]
        topics = ", ".join(names)
        if self.empty:
            return (
                f"{self.empty} images of {self._topics.colour} have a partner on {topics} that "
                "holds no depth where the picture looks: check the sensor and its calibration"
            )
        colour = self._topics.colour
        why = why_unmatched(self._bag, colour, names[0], self._options.tolerance_ms)
        return f"{self.unmatched} images of {colour} have nothing on {topics} {why}"

    def parts(self) -> list[Part]:
        """Stretches of time of about equal length; a video or a limited bag is one part."""
        count = next(t.count or 0 for t in self._bag.topics if t.name == self._topics.colour)
        span = self._bag.time_span()
        limit = self._options.limit
        number = -(-count // PART_FRAMES)
        if span is None or number < 2 or self._is_video or limit is not None:
            return [Part(0, count if limit is None else min(count, limit))]
        first, last = span
        cuts = [first + (last - first) * index // number for index in range(1, number)]
        starts, stops = [None, *cuts], [*cuts, None]
        sizes = [count // number + (index < count % number) for index in range(number)]
        return [Part(k, *row) for k, row in enumerate(zip(sizes, starts, stops, strict=True))]

    def frames(self, part: Part) -> Generator[TruthFrame]:
        """The images of a part that have truth; the others count as ``unmatched``, or as ``empty``
        where there is something beside them that holds no truth."""
        self.problems, self.unmatched, self.empty = Problems(), 0, 0
        self._reader.restart()
        buffer = TransformBuffer()
        for message in self._static:
            self._add(buffer, message.topic, self._bag.deserialize(message))
        topics = self._topics
        partners = [name for name in (topics.depth, *topics.points, topics.labels) if name]
        matcher = Matcher(
            self._bag,
            topics.colour,
            [*partners, *(name for name in self._recorded if name not in partners)],
            round(self._options.tolerance_ms * 1e6),
            topics.transforms,
            between_ns=(part.start, part.stop),
            reader=self._reader,
            problems=self.problems,
        )
        matcher.on_transforms = lambda topic, content: self._add(  # type: ignore[method-assign]
            buffer, topic, content
        )
        given = 0
        for match in matcher:
            if not any(name in match.partners for name in partners):
                self.unmatched += 1
                continue
            try:
                frame = self._frame(match, buffer)
            except InputError as error:
                self.problems.at(f"{topics.colour} at {match.stamp_ns} ns", error)
                continue
            if frame is None:
                self.empty += 1
                continue
            yield frame
            given += 1
            if self._options.limit is not None and given >= self._options.limit:
                break
        for cameras in (self._cameras, *(each.cameras for each in self._recorded.values())):
            if cameras.doubt:
                self.problems.note(cameras.doubt)
        self.problems.extend(self._reader.doubts)

    def _frame(self, match: Match, buffer: TransformBuffer) -> TruthFrame | None:
        motions, problems = motions_of(match, self._cameras, buffer, self._options.world)
        self.problems.extend(problems)
        sample = self._cameras.sample(match, motions, "", self.name)
        depth_m, labels_hw = known_depth(sample.depth_m), counted_labels(sample.labels_hw)
        if depth_m is None and labels_hw is None:
            return None
        calibrated = self._topics.colour_info is not None
        frame = Frame(
            np.ascontiguousarray(sample.rgb_hwc),
            match.stamp_ns,
            match.colour.header.frame_id,
            sample.intrinsics if calibrated else None,
        )
        size = (sample.intrinsics.width, sample.intrinsics.height)
        return TruthFrame(
            self.name,
            str(match.time_ns),
            frame,
            depth_m,
            labels_hw,
            self.classes,
            sample.camera_7,
            self._answers(match, buffer, size),
        )

    def _answers(
        self, match: Match, buffer: TransformBuffer, size: tuple[int, int]
    ) -> dict[str, RecordedAnswer]:
        answers = {}
        for name, recorded in self._recorded.items():
            if name not in match.partners:
                continue
            try:
                if recorded.topics.depth:
                    motions, problems = motions_of(match, recorded.cameras, buffer, "")
                    self.problems.extend(problems)
                    depth_m = recorded.cameras.depth_m(match, motions, size)
                    depth_m = known_only(depth_m, depth_m > 0)
                    answers[name] = RecordedAnswer(DepthMap(depth_m, DepthKind.METRIC))
                else:
                    labels_hw = recorded.cameras.labels(match, size)
                    answers[name] = RecordedAnswer(None, labels_hw, recorded.topics.classes)
            except InputError as error:
                self.problems.at(f"{name} at {match.stamp_ns} ns", error)
        return answers

    def _names(self) -> TopicNames:
        """The topics of the truth: what another system answered is none, unless it is named."""
        options = self._options
        depth = options.depth_topic
        if depth is None and options.recorded:
            kinds = image_topics(self._bag)
            depths = [
                name
                for name, kind in kinds.items()
                if kind == "depth" and name not in options.recorded
            ]
            depth = depths[0] if len(depths) == 1 else None if depths else "none"
        return TopicNames(options.topic, depth, options.points, options.label_topic)

    def _cameras_of(self, topics: Topics) -> Cameras:
        return Cameras(topics, None, self._options.hfov_deg, self._reader)

    def _open_recorded(self) -> dict[str, _Recorded]:
        """The topics of ``options.recorded`` that this bag has, by name."""
        found = {}
        kinds = image_topics(self._bag) if self._options.recorded else {}
        for name in self._options.recorded:
            if name not in kinds:
                self.notes.append(
                    f"{self.name} has no images on {name}, so it has no answer here; there are "
                    f"{', '.join(kinds)}"
                )
                continue
            colour = self._topics.colour
            wanted = TopicNames(colour, "none", (), name)
            if kinds[name] == "depth":
                wanted = TopicNames(colour, name)
            topics = choose_topics(self._bag, wanted, self._options.matrix)
            topics = replace(topics, points=())
            found[name] = _Recorded(topics, self._cameras_of(topics))
        return found

    def _static_transforms(self) -> list[BagMessage]:
        """All of /tf_static, where sensors apart from the camera or poses need it.

        It may be recorded anywhere in the bag, long before the part that needs it.
        """
        if _STATIC not in self._topics.transforms:
            return []
        if not (self._topics.points or self._options.world or self._is_apart()):
            return []
        return list(self._bag.messages([_STATIC]))

    def _is_apart(self) -> bool:
        """Whether depth comes from another place than the colour camera's."""
        apart = [(self._topics, self._cameras)]
        apart += [(each.topics, each.cameras) for each in self._recorded.values()]
        for topics, cameras in apart:
            if not topics.depth:
                continue
            tolerance = round(self._options.tolerance_ms * 1e6)
            for match in Matcher(self._bag, topics.colour, [topics.depth], tolerance):
                if topics.depth in match.partners:
                    if not cameras.is_aligned(match):
                        return True
                    break
        return False

    @staticmethod
    def _add(buffer: TransformBuffer, topic: str, content: Transforms) -> None:
        for transform in content.transforms:
            buffer.add(transform, static=topic.endswith("_static"))
