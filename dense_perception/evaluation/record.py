"""Result bags: inputs, truth, predictions and errors with the original stamps, to look at.

One recording for each source, for RViz and Foxglove, and one for Rerun where it is installed.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from dense_perception.core.camera import calibration_for_output
from dense_perception.core.errors import DensePerceptionError
from dense_perception.evaluation.contestants import Entry
from dense_perception.evaluation.judge import Judge
from dense_perception.evaluation.layouts import write_layouts
from dense_perception.evaluation.parts import Opened
from dense_perception.evaluation.run import Plan
from dense_perception.evaluation.shown import metres, panels_of
from dense_perception.evaluation.truth import TruthFrame
from dense_perception.imaging.encode import encode_jpeg
from dense_perception.media.bag_writer import BagWriter, Stamp

FOLDER = "recordings"
TASKS = ("depth", "labels", "normals", "things")
_FRAME_ID = "camera_optical"  # of images that name none
_STEP_NS = 100_000_000  # between frames that nobody stamped


@dataclass
class Result:
    """What is recorded of one frame: maps by topic, without the leading slash.

    ``depth_m``: (H, W) float32 metres; ``pictures``: HxWx3 ``uint8``.
    """

    truth: TruthFrame
    time_ns: int
    depth_m: dict[str, np.ndarray] = field(default_factory=dict)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)


class _Sink(Protocol):
    def write(self, result: Result) -> None: ...

    def close(self) -> None: ...


def record(plan: Plan, folder: Path, *, progress: bool = False) -> list[str]:
    """Answer every frame again and write ``folder/recordings``; returns what could not be done.

    :raises OSError: if the disk does not take it.
    """
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    entries = [entry for entry in plan.entries if entry.kind != "baseline"]
    problems = []
    with_rerun = importlib.util.find_spec("rerun") is not None
    if not with_rerun:
        problems.append("no .rrd: Rerun is not installed: pip install 'dense_perception[rerun]'")
    topics: dict[str, None] = {}
    frame_ids: dict[str, None] = {}
    total = sum(part.frames for source in plan.sources for part in source.parts)
    opened = Opened()
    disable = None if progress else True
    try:
        with tqdm(
            total=total, unit="frame", desc="record", disable=disable, file=sys.stderr
        ) as bar:
            for source in plan.sources:
                name = source.source.name
                sinks: list[_Sink] = [_BagSink(place / name)]
                if with_rerun:
                    sinks.append(_RerunSink(place / f"{name}.rrd"))
                try:
                    truths = opened.open(source.source, plan.truth)
                    number = 0
                    for part in source.parts:
                        for truth in truths.frames(part):
                            judge = Judge(truth, source.protocol)
                            result = _result(judge, number, entries, opened)
                            topics.update(dict.fromkeys(result.pictures))
                            frame_ids[frame_id_of(truth)] = None
                            for sink in sinks:
                                sink.write(result)
                            number += 1
                            bar.update()
                finally:
                    for sink in sinks:
                        sink.close()
    finally:
        opened.close()
    write_layouts(place, list(topics), next(iter(frame_ids), _FRAME_ID))
    return problems


def frame_id_of(truth: TruthFrame) -> str:
    """The name of the frame that a recorded image is in."""
    return truth.frame.frame_id or _FRAME_ID


def topic_of(entry: Entry) -> str:
    """A contestant's name as ROS takes it in topics."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", entry.name).strip("_")
    return name if name[:1].isalpha() else f"model_{name}"


def _result(judge: Judge, number: int, entries: list[Entry], opened: Opened) -> Result:
    truth = judge.truth
    time_ns = int(truth.key) if truth.key.isdigit() and len(truth.key) > 15 else 0
    result = Result(truth, time_ns or truth.frame.stamp_ns or (number + 1) * _STEP_NS)
    if judge.true_m is not None:
        result.depth_m["truth/depth"] = judge.true_m
    for entry in entries:
        try:
            answer = opened.contestant(entry).answer(truth)
        except DensePerceptionError:
            continue  # the report names it
        if answer is None:
            continue
        name = topic_of(entry)
        if answer.depth is not None and judge.true_m is not None:
            result.depth_m[f"{name}/depth"] = metres(judge, answer.depth)
        for task in TASKS:
            panels = panels_of(task, judge, answer)
            if panels is not None:
                result.pictures[f"truth/{task}/color"] = panels.truth
                result.pictures[f"{name}/{task}/color"] = panels.prediction
                result.pictures[f"{name}/{task}/error"] = panels.error
    return result


class _BagSink:
    """A rosbag2 recording with the images' own stamps and frames."""

    def __init__(self, path: Path) -> None:
        self._writer = BagWriter(path, compress=True)

    def write(self, result: Result) -> None:
        for topic, message in self._messages(result):
            self._writer.send(f"/{topic}", result.time_ns, message)

    def _messages(self, result: Result) -> Iterator[tuple[str, Any]]:
        frame, write = result.truth.frame, self._writer
        stamp: Stamp = (frame.stamp_ns or result.time_ns, frame_id_of(result.truth))
        yield "image/compressed", write.jpeg(stamp, encode_jpeg(frame.rgb_hwc, quality=90))
        if frame.intrinsics is not None:
            fields = calibration_for_output(None, frame.intrinsics)
            yield "camera_info", write.info(stamp, fields)
        for topic, depth_m in result.depth_m.items():
            yield topic, write.depth(stamp, depth_m)
        for topic, rgb_hwc in result.pictures.items():
            yield topic, write.picture(stamp, rgb_hwc)

    def close(self) -> None:
        self._writer.close()


class _RerunSink:
    """A recording for the Rerun viewer, with the layout to look at it in."""

    def __init__(self, path: Path) -> None:
        import rerun
        import rerun.blueprint

        self._rerun: Any = rerun
        self._pictures: dict[str, None] = {}
        self._stream: Any = rerun.RecordingStream("dense_perception evaluation")
        self._stream.save(path)

    def write(self, result: Result) -> None:
        rerun, stream, frame = self._rerun, self._stream, result.truth.frame
        stream.set_time("stamp", timestamp=np.datetime64(frame.stamp_ns or result.time_ns, "ns"))
        if frame.intrinsics is not None:
            pinhole = rerun.Pinhole(
                image_from_camera=frame.intrinsics.matrix(), resolution=[frame.width, frame.height]
            )
            stream.log("camera", pinhole)
        jpeg = encode_jpeg(frame.rgb_hwc, quality=90)
        stream.log("camera/image", rerun.EncodedImage(contents=jpeg, media_type="image/jpeg"))
        for topic, depth_m in result.depth_m.items():
            # For eyes alone: half of the bytes at a thousandth of the precision.
            known_m = np.nan_to_num(depth_m, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float16)
            stream.log(f"camera/{topic}", rerun.DepthImage(known_m, meter=1.0))
        self._pictures.update(dict.fromkeys(result.pictures))
        for topic, rgb_hwc in result.pictures.items():
            jpeg = encode_jpeg(rgb_hwc, quality=90)
            stream.log(topic, rerun.EncodedImage(contents=jpeg, media_type="image/jpeg"))

    def close(self) -> None:
        views = self._rerun.blueprint
        # Left to itself the viewer puts pictures into the room as well, where they have no place.
        flat = [views.Spatial2DView(origin=topic, name=topic) for topic in self._pictures]
        image = views.Spatial2DView(origin="camera/image", name="image")
        room = views.Spatial3DView(origin="/", contents="/camera/**", name="depth as points")
        self._stream.send_blueprint(views.Blueprint(views.Grid(image, *flat, room)))
        self._stream.flush()
        self._stream.disconnect()
