"""Where answers go without ROS: a folder of files, or a bag."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import DensePerceptionError, InputError
from dense_perception.core.json_text import json_text
from dense_perception.core.prediction import (
    GRAY_MAPS,
    DepthKind,
    Instances,
    LabelMap,
    Prediction,
)
from dense_perception.core.storage import atomic_write, prepare_output_folder, real_path, user_path
from dense_perception.imaging.colorize import DepthColorizer, side_by_side
from dense_perception.imaging.instance_overlay import instance_overlay
from dense_perception.imaging.points import organised_xyz, write_ply
from dense_perception.imaging.resize import resample
from dense_perception.media.bag_reader import is_bag
from dense_perception.media.bag_sink import BagSink
from dense_perception.media.sources import SourceItem

_SHOWN_FROM = 0.5  # the score of things that are drawn; all are listed
FORMS = ("png", "npy", "color", "side_by_side", "ply")
"""What a folder may hold, one sub-folder each (PNG and NPY share ``depth``)."""


class Sink(Protocol):
    """Takes answers one by one; ``uses_camera`` says whether the field of view changes what is
    written.
    """

    uses_camera: bool

    def write(self, item: SourceItem, prediction: Prediction) -> None: ...

    def close(self) -> None: ...


class FolderSink:
    """Writes ``depth/NAME.png`` (16 bit, millimetres, 0 where there is none), ``depth/NAME.npy``
    (float32 metres, NaN), ``color/NAME.png``, ``side_by_side/NAME.jpg``, ``points/NAME.ply``.

    Depth beyond 65.535 m does not fit the PNG and is 0 there. A relative model writes its own
    numbers to NPY and, as they are no metres, neither PNG nor PLY. Labels go to ``labels``,
    ``confidence``, ``labels_color`` and ``overlay``, normals to ``normals`` (NPY) and
    ``normals_color``, the other maps to folders of their names, 8-bit PNG. Things go to
    ``instances`` (JSON, a list: class, score, box and id), ``instance_ids`` (PNG, 8 or 16 bit) and
    ``instances_overlay``.

    :raises InputError: if the folder is not empty and ``overwrite`` is false.
    """

    def __init__(
        self,
        folder: Path,
        forms: tuple[str, ...] = FORMS[:4],
        *,
        kind: DepthKind = DepthKind.METRIC,
        overwrite: bool = False,
    ) -> None:
        prepare_output_folder(folder, overwrite=overwrite)
        metric = kind is DepthKind.METRIC
        self.folder = folder
        self.forms = tuple(form for form in forms if metric or form not in ("png", "ply"))
        self.uses_camera = "ply" in self.forms
        self._metric = metric
        self._inverse = kind is DepthKind.RELATIVE_INVERSE
        self._colorizer = DepthColorizer()
        self.written = 0

    def write(self, item: SourceItem, prediction: Prediction) -> None:
        """Write every form of one answer.

        :raises DensePerceptionError: if the disk does not take it.
        """
        try:
            self._write(item, prediction)
        except OSError as error:
            raise DensePerceptionError(
                f"cannot write to {self.folder}: {error.strerror or error}; {self.written} frames "
                "were written whole"
            ) from error
        self.written += 1

    def close(self) -> None:
        return

    def _write(self, item: SourceItem, prediction: Prediction) -> None:
        if prediction.labels is not None:
            self._write_labels(item, prediction.labels)
        self._write_further(item, prediction)
        if prediction.instances is not None:
            self._write_instances(item, prediction, prediction.instances)
        if prediction.depth is None:
            return
        values_hw = prediction.depth.values_hw
        if "png" in self.forms:
            self._save("depth", f"{item.name}.png", _png(millimetres(values_hw)))
        if "npy" in self.forms:
            self._save("depth", f"{item.name}.npy", _npy(values_hw))
        if "color" in self.forms or "side_by_side" in self.forms:
            # Eyes get near in red for every kind of depth.
            shown_hw = 1 / np.maximum(values_hw, 1e-6) if self._inverse else values_hw
            colour_hwc = self._colorizer(shown_hw)
            if "color" in self.forms:
                self._save("color", f"{item.name}.png", _png(colour_hwc[..., ::-1]))
            if "side_by_side" in self.forms:
                near_m, far_m = self._colorizer.limits_m or (0.5, 5.0)
                picture = side_by_side(
                    item.frame.rgb_hwc, colour_hwc, near_m, far_m, metric=self._metric
                )
                self._save("side_by_side", f"{item.name}.jpg", _jpeg(picture))
        if "ply" in self.forms:
            xyz = organised_xyz(values_hw, prediction.intrinsics)
            rgb = resample(item.frame.rgb_hwc, prediction.width, prediction.height)
            target = self._subfolder("points") / f"{item.name}.ply"
            write_ply(target, xyz, rgb, overwrite=True)

    def _write_labels(self, item: SourceItem, labels: LabelMap) -> None:
        """Numbers and confidence as 8-bit PNG, colours, and the colours over the picture."""
        if "png" in self.forms:
            self._save("labels", f"{item.name}.png", _png(labels.values_hw))
            self._save("confidence", f"{item.name}.png", _png(labels.confidence_hw))
        colour_hwc = labels.colored()
        if "color" in self.forms:
            self._save("labels_color", f"{item.name}.png", _png(colour_hwc[..., ::-1]))
        if "side_by_side" in self.forms:
            height, width = labels.values_hw.shape
            rgb = resample(item.frame.rgb_hwc, width, height)
            picture = np.concatenate([rgb, cv2.addWeighted(rgb, 0.4, colour_hwc, 0.6, 0)], axis=1)
            self._save("overlay", f"{item.name}.jpg", _jpeg(picture))

    def _write_further(self, item: SourceItem, prediction: Prediction) -> None:
        if prediction.normals is not None:
            if "npy" in self.forms:
                self._save("normals", f"{item.name}.npy", _npy(prediction.normals.values_hwc))
            if "color" in self.forms:
                colour_hwc = prediction.normals.colored()
                self._save("normals_color", f"{item.name}.png", _png(colour_hwc[..., ::-1]))
        for name in GRAY_MAPS:
            entry = getattr(prediction, name)
            if entry is not None and "png" in self.forms:
                self._save(name, f"{item.name}.png", _png(entry.values_hw))

    def _write_instances(self, item: SourceItem, prediction: Prediction, found: Instances) -> None:
        rows = [
            {"id": int(number), "class": name, "score": float(score), "box": box.tolist()}
            for number, name, score, box in zip(
                found.numbers, found.names, found.scores_n, found.boxes_n4, strict=True
            )
        ]
        self._save("instances", f"{item.name}.json", json_text(rows, 1).encode())
        if found.ids_hw is not None and "png" in self.forms:
            self._save("instance_ids", f"{item.name}.png", _png(found.ids_hw))
        if "side_by_side" in self.forms:
            shown = found.selected(found.scores_n >= _SHOWN_FROM)
            size = (prediction.width, prediction.height)
            picture = instance_overlay(item.frame.rgb_hwc, shown, *size, 0.5)
            self._save("instances_overlay", f"{item.name}.jpg", _jpeg(picture))

    def _save(self, subfolder: str, name: str, data: bytes) -> None:
        with atomic_write(self._subfolder(subfolder) / name) as stream:
            stream.write(data)

    def _subfolder(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return path


def open_sink(
    folder: Path,
    card: ModelCard,
    *,
    bag: bool = False,
    points: bool = False,
    previews: bool = True,
    overwrite: bool = False,
) -> Sink:
    """The sink for the answers of ``card``'s model: files, or with ``bag`` a recording.

    ``points`` adds clouds. ``previews`` adds the pictures for eyes to the files.

    :raises InputError: if the model gives no depth, or none in metres, where it is needed, or the
        folder is not empty and ``overwrite`` is false.
    """
    if card.depth is None and (bag or points):
        raise InputError(
            f"model {card.name} gives {' and '.join(card.outputs)}, no depth: leave --bag and "
            "--ply out, or choose a depth model"
        )
    kind = card.depth.kind if card.depth else DepthKind.METRIC
    if points and kind is not DepthKind.METRIC:
        raise InputError(
            f"model {card.name} gives {kind.value} depth, which has no metres to make a cloud of: "
            "leave --ply out, or choose a metric model"
        )
    if bag:
        return BagSink(folder, points=points, kind=kind, overwrite=overwrite)
    forms = FORMS[:4] if previews else FORMS[:2]
    return FolderSink(folder, (*forms, "ply") if points else forms, kind=kind, overwrite=overwrite)


def refuse_input_as_output(text: str, output: Path) -> None:
    """
    :raises InputError: if answers could be written over ``text``, which they are made from.
    """
    given, folder = real_path(user_path(text)), real_path(user_path(str(output)))
    if not given.exists():
        return  # a camera's number
    inside = given.is_relative_to(folder)
    is_plain_file = given.parent == folder and not given.is_dir()
    is_recording = given.is_dir() and is_bag(given)
    if (inside and not is_plain_file) or (is_recording and folder.is_relative_to(given)):
        raise InputError(
            f"--output {output} would write over --input {text}: choose a folder elsewhere"
        )


def millimetres(depth_m: np.ndarray) -> np.ndarray:
    """HxW metres with NaN to HxW ``uint16`` millimetres, 0 where there is none or it is too far."""
    rounded = np.rint(depth_m * np.float32(1000))
    fits = (rounded >= 0) & (rounded <= 65535)  # NaN compares false
    return np.where(fits, rounded, 0).astype(np.uint16)


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _png(array: np.ndarray) -> bytes:
    _, data = cv2.imencode(".png", np.ascontiguousarray(array), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return bytes(data)


def _jpeg(rgb_hwc: np.ndarray) -> bytes:
    bgr = cv2.cvtColor(rgb_hwc, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])
    return bytes(data)
