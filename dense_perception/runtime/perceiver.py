"""From a frame to metric depth, labels and further maps: prepare, infer, restore."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from dense_perception.backends.base import Backend, check_graph
from dense_perception.backends.select import select_backend
from dense_perception.backends.selection import Broken, Selection
from dense_perception.backends.speed import WINDOW
from dense_perception.core.camera import Frame, Intrinsics
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import BackendError, CardError, InputError
from dense_perception.core.prediction import (
    GRAY_MAPS,
    DepthKind,
    DepthMap,
    GrayMap,
    LabelMap,
    NormalMap,
    Prediction,
    known_only,
)
from dense_perception.core.registry import find_model
from dense_perception.imaging.resize import (
    fit_within,
    network_input,
    network_size,
    picture_box,
    restore_depth,
    restore_gray,
    restore_labels,
    restore_normals,
    without_padding,
)
from dense_perception.imaging.windows import labels_of_scores, windows_of
from dense_perception.runtime.instances import graph_outputs, restore_instances

OUTPUT_SIZES = ("input", "network")
# Half precision rounds by up to one part in 2048: a saturated output may sit just past its limit.
_LIMIT_SLACK = 1e-3


class Perceiver:
    """Runs one model on images; what the ROS node, the commands and the tests all use.

    ::

        with Perceiver.load("dpt_tiny_indoor") as perceiver:
            depth_m = perceiver(rgb_hwc).depth.metres()

    Not thread-safe: one thread drives one perceiver. ``card``, ``backend`` and ``selection`` (what
    runs and why) are public. ``failures`` counts how often the runtime failed since it last
    answered, and ``last_failure`` says why.
    """

    def __init__(
        self,
        card: ModelCard,
        backend: Backend,
        selection: Selection,
        *,
        default_hfov_deg: float = 60.0,
        output_size: str = "input",
        max_output_side: int = 1280,
    ) -> None:
        """Most callers want :meth:`load`.

        :raises InputError: if a setting is out of range.
        :raises CardError: if the card promises no output or contradicts the graph.
        """
        Intrinsics.from_fov(16, 16, default_hfov_deg)
        if output_size not in OUTPUT_SIZES:
            raise InputError(f"output_size is {output_size!r}, expected one of {OUTPUT_SIZES}")
        if max_output_side < 16:
            raise InputError(f"max_output_side is {max_output_side}, expected at least 16 pixels")
        if not card.outputs:
            raise CardError(f"model {card.name} promises no output: export it again")
        check_graph(card, backend, f"model {card.name}")
        self.card = card
        self._gives = card.outputs
        self.backend = backend
        self._selection = selection
        self.default_hfov_deg = default_hfov_deg
        self.output_size = output_size
        self.max_output_side = max_output_side
        self.failures = 0
        self.last_failure = ""
        self._busy = threading.Lock()
        self._live_ms: list[float] = []
        self._live_complete = True
        self._picture_nhwc = np.empty((0, 0, 0, 3), card.input.dtype)
        self._fixed_batch = backend.inputs[0].shape[0] == 1
        self._limits = (-np.inf, np.inf)
        if card.depth is not None and card.depth.kind is DepthKind.METRIC:
            self._limits = (
                card.depth.min_m * (1 - _LIMIT_SLACK),
                card.depth.max_m * (1 + _LIMIT_SLACK),
            )

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        backend: str = "auto",
        precision: str = "auto",
        device: str = "auto",
        threads: int = 0,
        trust_engine: bool = False,
        engine_build: str = "block",
        batch: int = 1,
        broken: Broken = MappingProxyType({}),
        default_hfov_deg: float = 60.0,
        output_size: str = "input",
        max_output_side: int = 1280,
    ) -> Perceiver:
        """Find, check and load a model.

        :param model: a model's name, or the path of its ``.yaml`` card or of an ``.onnx`` file.
        :param backend: ``auto`` (the fastest measured), ``onnxruntime``, ``openvino``, ...
        :param precision: ``auto``, ``fp32``, ``fp16``, ``int8`` or ``fp8``.
        :param device: ``auto`` (NVIDIA's GPU where it works, else the CPU), or handed to the
            backend: ``cpu``, ``cuda``, ``gpu``, ...
        :param threads: CPU threads; 0 means all cores.
        :param trust_engine: run a backend without comparing it with the reference first.
        :param engine_build: ``block``, ``background`` or ``never``: see
            :data:`~dense_perception.backends.select.ENGINE_BUILDS`.
        :param batch: how many frames :meth:`perceive` will get at once; an engine is built for it.
        :param broken: backends not to take, and why: see
            :data:`~dense_perception.backends.selection.Broken`.
        :param default_hfov_deg: horizontal field of view where an image has no intrinsics.
        :param output_size: ``input`` gives outputs of the image's size, ``network`` of the
            network's, with no resampling.
        :param max_output_side: outputs are scaled down, aspect kept, to at most this many pixels.
        :raises DensePerceptionError: a subclass that says what is wrong and how to cure it.
        """
        opened, artefact_card, selection = select_backend(
            find_model(model),
            backend=backend,
            precision=precision,
            device=device,
            threads=threads,
            trust_engine=trust_engine,
            engine_build=engine_build,
            batch=batch,
            broken=broken,
        )
        try:
            return cls(
                artefact_card,
                opened,
                selection,
                default_hfov_deg=default_hfov_deg,
                output_size=output_size,
                max_output_side=max_output_side,
            )
        except BaseException:
            opened.close()
            raise

    @property
    def selection(self) -> Selection:
        """What runs, why, and what makes it slower than it could be, as far as is known by now.

        A runtime may find that out only when it runs.
        """
        return replace(self._selection, note=self.backend.problem)

    def __call__(
        self, image: np.ndarray | Frame, *, intrinsics: Intrinsics | None = None
    ) -> Prediction:
        """The maps of one image: HxWx3 ``uint8`` RGB, or a :class:`Frame`.

        ``intrinsics`` are of the image's size and replace the frame's own.

        :raises InputError: if the image or the intrinsics cannot be used.
        :raises BackendError: if the runtime fails.
        """
        if isinstance(image, Frame):
            frame = image if intrinsics is None else replace(image, intrinsics=intrinsics)
        else:
            frame = Frame(image, intrinsics=intrinsics)
        return self.perceive([frame])[0]

    def perceive(
        self, frames: Sequence[Frame], wanted: Collection[str] | None = None
    ) -> list[Prediction]:
        """The maps of several frames in one batch, in their order; sizes may differ.

        ``timings_ms`` of each prediction are the batch's stages.

        :param wanted: which of ``card.outputs`` to give (labels come with their confidence,
            instance ids with the instances); the others are neither copied nor restored, and not
            computed where the backend can leave them out. None is all of them, without what the
            model gives on request only (``card.on_request``).
        :raises InputError: as for a call with one image, or if nothing or something that the
            model does not give is wanted.
        :raises BackendError: if the runtime fails, or another thread is in this call.
        """
        # Its buffers and the runtime's are shared: a second thread would change this one's answer.
        if not self._busy.acquire(blocking=False):
            raise BackendError(
                f"two threads use one Perceiver of {self.card.name} at once, expected one at a "
                "time: load one for each thread, or take turns with a lock"
            )
        try:
            answers = self._perceive(frames, wanted)
        except BackendError as error:
            self.failures += 1
            self.last_failure = str(error)
            raise
        else:
            self.failures = 0
            return answers
        finally:
            self._busy.release()

    def _perceive(
        self, frames: Sequence[Frame], wanted: Collection[str] | None
    ) -> list[Prediction]:
        names = self._wanted(wanted)
        if not frames:
            return []
        sizes = [self._network_size(frame) for frame in frames]
        alone = self._fixed_batch or self.card.input.resize == "windows"
        if len(frames) > 1 and (alone or len(set(sizes)) > 1):
            return [self._perceive([frame], wanted)[0] for frame in frames]
        start = time.perf_counter()
        width, height = sizes[0]
        images_nhwc = self._buffer(len(frames), height, width)
        cameras = [self._camera(frame) for frame in frames]
        for frame, image_hwc in zip(frames, images_nhwc, strict=True):
            network_input(frame.rgb_hwc, self.card.input, image_hwc)
        feeds = {"image": images_nhwc}
        if self.card.input.focal:
            shown = [picture_box(self.card.input, frame.width, frame.height) for frame in frames]
            focals = [
                camera.resized(*box[2:]).mean_focal_px
                for camera, box in zip(cameras, shown, strict=True)
            ]
            feeds["focal_px"] = np.array(focals, np.float32)
        prepared = time.perf_counter()
        outputs = self._infer(feeds, names)
        inferred = time.perf_counter()
        if len(frames) == 1 and (width, height) == (self.card.input.width, self.card.input.height):
            self._watch((inferred - prepared) * 1e3, names)
        answers = [
            self._restore({name: array[index] for name, array in outputs.items()}, names, frame)
            for index, frame in enumerate(frames)
        ]
        restored = time.perf_counter()
        timings = MappingProxyType(
            {
                "prepare": (prepared - start) * 1e3,
                "infer": (inferred - prepared) * 1e3,
                "restore": (restored - inferred) * 1e3,
            }
        )
        return [
            self._prediction(frame, camera, answer, timings)
            for frame, camera, answer in zip(frames, cameras, answers, strict=True)
        ]

    def close(self) -> None:
        """Free the runtime's memory. Safe to call twice; a closed perceiver raises BackendError."""
        self.backend.close()

    def __enter__(self) -> Perceiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _watch(self, infer_ms: float, names: Sequence[str]) -> None:
        """Now and then compare the times of single images with what the choice was made by."""
        watch = self._selection.watch
        if watch is None or watch.is_done:
            return
        self._live_ms.append(infer_ms)
        self._live_complete &= names == self._gives
        if len(self._live_ms) < WINDOW:
            return
        problem = watch.judge(self._live_ms, complete=self._live_complete)
        self._live_ms, self._live_complete = [], True
        if problem:
            warnings = (*self._selection.warnings, problem)
            self._selection = replace(self._selection, warnings=warnings)

    def _infer(self, feeds: dict[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
        """The graph's outputs for a batch, or the scores of one picture's windows.

        Window by window: the engine that was checked is that of a batch of 1, and eight windows at
        once would need eight times the memory.
        """
        labelled = self.card.segmentation
        if labelled is None or not labelled.scores:
            graph_names = {*names, "confidence"} if "labels" in names else set(names)
            if self.card.instances is not None:
                graph_names = graph_outputs(graph_names)
            return self.backend.infer(feeds, graph_names)
        (picture_hwc,) = feeds["image"]
        side = labelled.window
        scores = []
        for top, left in self._windows(picture_hwc.shape[1], picture_hwc.shape[0]):
            window_nhwc = self.backend.input_buffer("image", (1, side, side, 3))
            window_nhwc[0] = picture_hwc[top : top + side, left : left + side]
            answer = self.backend.infer({"image": window_nhwc})
            scores.append(answer["scores"].copy())
        return {"scores": np.concatenate(scores)[None]}

    def _windows(self, width: int, height: int) -> list[tuple[int, int]]:
        assert self.card.segmentation is not None
        labelled = self.card.segmentation
        return windows_of((width, height), labelled.window, labelled.stride)

    def _network_size(self, frame: Frame) -> tuple[int, int]:
        return network_size(self.card.input, frame.width, frame.height)

    def _buffer(self, count: int, height: int, width: int) -> np.ndarray:
        """Where the images are written to: the runtime's own memory, but for what is cut later."""
        shape = (count, height, width, 3)
        if self.card.input.resize != "windows":
            return self.backend.input_buffer("image", shape)
        if self._picture_nhwc.shape != shape:
            self._picture_nhwc = np.empty(shape, self.card.input.dtype)
        return self._picture_nhwc

    def _camera(self, frame: Frame) -> Intrinsics:
        if frame.intrinsics is not None:
            return frame.intrinsics
        return Intrinsics.from_fov(frame.width, frame.height, self.default_hfov_deg)

    def _wanted(self, wanted: Collection[str] | None) -> tuple[str, ...]:
        if wanted is None:
            return self._gives
        given = (*self._gives, *self.card.on_request)
        if not wanted or not set(wanted) <= set(given):
            raise InputError(
                f"wanted is {sorted(wanted)}, model {self.card.name} gives {list(given)}: ask for "
                "one or more of these"
            )
        return tuple(name for name in given if name in wanted)

    def _size(self, frame: Frame) -> tuple[int, int]:
        """Width and height of the answer to ``frame``."""
        if self.output_size == "network":
            _, _, width, height = picture_box(self.card.input, frame.width, frame.height)
        else:
            width, height = frame.width, frame.height
        return fit_within(width, height, self.max_output_side)

    def _restore(
        self, maps: Mapping[str, np.ndarray], names: Sequence[str], frame: Frame
    ) -> dict[str, Any]:
        """To the output size, by entry of Prediction; never a view of the runtime's memory."""
        size = self._size(frame)
        answer: dict[str, Any] = {}
        if self.card.instances is not None:
            instances, maps = restore_instances(maps, self.card, (frame.width, frame.height), size)
            answer |= {"instances": instances} if instances is not None else {}
        if self.card.input.resize == "letterbox":
            whole = (self.card.input, frame.width, frame.height)
            maps = {name: without_padding(array, *whole) for name, array in maps.items()}
        if "depth" in names and self.card.depth is not None:
            valid_hw = self._only_valid(maps["depth"])
            restored_hw = restore_depth(valid_hw, *size, self.card.input.restore)
            answer["depth"] = DepthMap(restored_hw, self.card.depth.kind)
        if "labels" in names and self.card.segmentation is not None:
            answer["labels"] = LabelMap(
                *self._labels(maps, frame, size), self.card.segmentation.label_set
            )
        if "normals" in names:
            answer["normals"] = NormalMap(restore_normals(maps["normals"], *size))
        for name in GRAY_MAPS:
            if name in names:
                answer[name] = GrayMap(restore_gray(maps[name], *size))
        return answer

    def _labels(
        self, maps: Mapping[str, np.ndarray], frame: Frame, size: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Labels and confidence, uint8 of ``size``."""
        if "scores" not in maps:
            return restore_labels(maps["labels"], *size), restore_labels(maps["confidence"], *size)
        assert self.card.segmentation is not None
        fitted = self._network_size(frame)
        corners, side = self._windows(*fitted), self.card.segmentation.window
        return labels_of_scores(maps["scores"], corners, side, fitted, size)

    def _only_valid(self, depth_hw: np.ndarray) -> np.ndarray:
        """Infinite values and metres out of the card's range become NaN."""
        low, high = self._limits
        valid = (depth_hw >= low) & (depth_hw <= high) & np.isfinite(depth_hw)
        return depth_hw if valid.all() else known_only(depth_hw, valid)

    def _prediction(
        self,
        frame: Frame,
        camera: Intrinsics,
        answer: Mapping[str, Any],
        timings: MappingProxyType[str, float],
    ) -> Prediction:
        width, height = self._size(frame)
        return Prediction(
            width=width,
            height=height,
            intrinsics=camera.resized(width, height),
            intrinsics_assumed=frame.intrinsics is None,
            stamp_ns=frame.stamp_ns,
            frame_id=frame.frame_id,
            **answer,
            timings_ms=timings,
        )
