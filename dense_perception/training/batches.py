"""From corpora to batches: every batch is a pure function of (seed, position, stage)."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from dense_perception.core.errors import DensePerceptionError, TrainingError
from dense_perception.data import photometry
from dense_perception.data.augmentation import draw_appearance, random_crop
from dense_perception.data.corpus import key_of
from dense_perception.data.sample import Frames, Sample
from dense_perception.data.targets import INSTANCE_ROWS, further_targets
from dense_perception.data.views import Crop, View, cut, cut_nearest, whole_crop, whole_view
from dense_perception.nets.zoo import stuff_of
from dense_perception.training.batch import CLEAN, Batch, collate
from dense_perception.training.config import StageConfig, TrainingConfig
from dense_perception.training.sources import Drawn, Sources, gather

_ATTEMPTS = 6
_MIN_VALID = 0.3
# So many frames one after the other that cannot be read are no accident.
_UNREADABLE = 8


@dataclass(frozen=True)
class Division:
    """How the frames of a step are divided: over ``processes``, of which this one is ``rank``, and
    in each over ``parts`` that are computed one after the other.
    """

    rank: int = 0
    processes: int = 1
    parts: int = 1

    def size(self, batch: int) -> int:
        """Frames of one part in one process.

        :raises TrainingError: if ``batch`` does not divide.
        """
        pieces = self.processes * self.parts
        if batch % pieces:
            raise TrainingError(
                f"a batch of {batch} frames does not divide over {self.processes} processes and "
                f"{self.parts} parts (accumulate): make it a multiple of {pieces}"
            )
        return batch // pieces

    def positions(self, position: int, batch: int) -> list[int]:
        """Where this process's parts begin, in a step that begins at ``position``."""
        size = self.size(batch)
        stride = self.processes * size
        return [position + part * stride + self.rank * size for part in range(self.parts)]


class Batches:
    """Random training batches, prepared in the background while others are used.

    Frames come in a new random order each epoch; position ``k`` of the run always yields the same
    augmented view, so a resumed run needs no state but its position, and batches are the same
    whoever prepares them.

    :param workers: processes that prepare batches; 0 for one thread, one batch ahead.
    :param pinned: whether batches lie in page-locked memory, for a GPU; with ``workers`` only.
    :param division: which of a step's frames are this process's.
    :param taught: for a teacher instead of truth: adds the target :data:`CLEAN`, and takes views
        without depth.
    :param on_device: leaves it to the device to make the views: see
        :class:`~dense_perception.training.sources.Sources`.
    """

    def __init__(
        self,
        frames: Frames,
        config: TrainingConfig,
        workers: int = 0,
        pinned: bool = False,
        division: Division = Division(),
        *,
        taught: bool = False,
        on_device: bool = False,
    ) -> None:
        self.views = _Views(frames, config, taught, on_device)
        self.workers, self.pinned, self.division = workers, pinned, division
        self.waited_s = 0.0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._ahead: tuple[int, StageConfig, Future[Batch | Sources]] | None = None
        self._stream: tuple[int, StageConfig, Iterator[Batch | Sources]] | None = None

    def of_step(self, position: int, stage: StageConfig) -> Iterator[Batch | Sources]:
        """This process's parts of the step that begins with the run's ``position``-th sample."""
        for start in self.division.positions(position, stage.batch):
            yield self.take(start, stage)

    def take(self, position: int, stage: StageConfig) -> Batch | Sources:
        """One part, from ``position`` on; starts on the next ones.

        ``waited_s`` grows by the time this took.
        """
        began = time.perf_counter()
        batch = (self._from_workers if self.workers else self._from_thread)(position, stage)
        self.waited_s += time.perf_counter() - began
        return batch

    def close(self) -> None:
        self._stream = None
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _from_thread(self, position: int, stage: StageConfig) -> Batch | Sources:
        size = self.division.size(stage.batch)
        if self._ahead is not None and self._ahead[:2] == (position, stage):
            batch = self._ahead[2].result()
        else:
            batch = self._pool.submit(self.views.prepared, position, stage, size).result()
        following = position + self.division.processes * size
        self._ahead = (
            following,
            stage,
            self._pool.submit(self.views.prepared, following, stage, size),
        )
        return batch

    def _from_workers(self, position: int, stage: StageConfig) -> Batch | Sources:
        size = self.division.size(stage.batch)
        stride = self.division.processes * size
        if self._stream is None or self._stream[:2] != (position, stage):
            self._stream = None  # ends the processes of another stage
            # A plain fork would inherit the locks of OpenCV's and PyTorch's threads as they are.
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload([__name__])
            loader: DataLoader[Batch | Sources] = DataLoader(
                _Positions(self.views, stage, size),
                batch_size=None,
                sampler=_Endless(position, stride),
                num_workers=self.workers,
                pin_memory=self.pinned,
                # Whole frames take several times the shared memory of the views of them.
                prefetch_factor=2 if self.views.on_device else 4,
                multiprocessing_context=context,
                worker_init_fn=_start_worker,
            )
            self._stream = (position, stage, iter(loader))
        stream = self._stream[2]
        batch = next(stream)
        self._stream = (position + stride, stage, stream)
        return batch


@dataclass(frozen=True)
class _Positions(Dataset[Batch | Sources]):
    """The batches of a stage by their first position."""

    views: _Views
    stage: StageConfig
    size: int

    def __getitem__(self, position: int) -> Batch | Sources:
        return self.views.prepared(position, self.stage, self.size)


@dataclass(frozen=True)
class _Endless(Sampler[int]):
    start: int
    step: int

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start, self.step)


def _start_worker(_: int) -> None:
    cv2.setNumThreads(1)


class _Views:
    """What every position of a run shows: a pure function of (seed, position, stage)."""

    def __init__(
        self, frames: Frames, config: TrainingConfig, taught: bool, on_device: bool
    ) -> None:
        self.frames = frames
        self.config = config
        self.taught, self.on_device = taught, on_device
        self.tasks, self.stuff = config.targets, stuff_of(config.network)
        self.needs_depth = not taught and bool({"depth", "normals", "reshading"} & {*self.tasks})
        self._order: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))

    def batch(self, position: int, stage: StageConfig, size: int) -> Batch:
        """Views ``position`` to ``position + size``, the last one excluded."""
        drawn, unreadable = self._drawn(position, stage, size)
        made = [self._view(one, stage) for one in drawn]
        keys = tuple(one.key for one in drawn)
        return replace(collate(made), keys=keys, unreadable=tuple(unreadable))

    def sources(self, position: int, stage: StageConfig, size: int) -> Sources:
        """The same views, for the device to make."""
        drawn, unreadable = self._drawn(position, stage, size)
        return gather(drawn, stage, self.tasks, unreadable, taught=self.taught, stuff=self.stuff)

    def prepared(self, position: int, stage: StageConfig, size: int) -> Batch | Sources:
        """Whichever of the two is asked for."""
        return (self.sources if self.on_device else self.batch)(position, stage, size)

    def _drawn(self, position: int, stage: StageConfig, size: int) -> tuple[list[Drawn], list[str]]:
        unreadable: list[str] = []
        return [self._draw(position + k, stage, unreadable) for k in range(size)], unreadable

    def _draw(self, position: int, stage: StageConfig, unreadable: list[str]) -> Drawn:
        sample, key = self._sample(position, unreadable)
        augment = self.config.augment
        rng = np.random.default_rng([self.config.seed, 1, position])
        for _ in range(_ATTEMPTS):
            crop = random_crop(sample.intrinsics, augment, rng)
            # A crop of a window or of nothing but what is out of range teaches nothing.
            if not self.needs_depth or _has_depth(sample, crop, stage):
                break
        look = draw_appearance(augment, stage.width, stage.height, rng)
        return Drawn(sample, key, crop, look)

    def _view(self, drawn: Drawn, stage: StageConfig) -> tuple[View, dict[str, np.ndarray]]:
        view = cut(drawn.sample, drawn.crop, stage.width, stage.height)
        if self.taught:
            targets = {CLEAN: view.rgb_hwc}
        else:
            targets = further_targets(drawn.sample, drawn.crop, view, self.tasks, self.stuff)
        rgb_hwc = photometry.apply(view.rgb_hwc, drawn.look)
        return View(rgb_hwc, view.depth_m, view.intrinsics), targets

    def _sample(self, position: int, unreadable: list[str]) -> tuple[Sample, str]:
        """The frame of a position and its key, or the next in order that can be read."""
        why: Exception | None = None
        for later in range(_UNREADABLE):
            index = self._index(position + later)
            try:
                sample = self.frames[index]
                return sample, key_of(self.frames, index)
            except (DensePerceptionError, OSError, ValueError) as error:
                unreadable.append(f"{key_of(self.frames, index)}: {error}")
                why = error
        raise TrainingError(
            f"{_UNREADABLE} frames one after the other cannot be read, the last one is "
            f"{unreadable[-1]}"
        ) from why

    def _index(self, position: int) -> int:
        count = len(self.frames)
        epoch, place = divmod(position, count)
        if self._order[0] != epoch or len(self._order[1]) != count:
            order = np.random.default_rng([self.config.seed, epoch]).permutation(count)
            self._order = (epoch, order)
        return int(self._order[1][place])


def _has_depth(sample: Sample, crop: Crop, stage: StageConfig) -> bool:
    """Judged by every fourth pixel of the view each way."""
    depth_m = sample.depth_m.astype(np.float32, copy=False)
    few = cut_nearest(depth_m, sample.intrinsics, crop, -(-stage.width // 4), -(-stage.height // 4))
    return int(np.count_nonzero(few)) >= _MIN_VALID * few.size


def whole_batches(
    frames: Frames,
    indices: Sequence[int],
    stage: StageConfig,
    tasks: Sequence[str] = ("depth",),
    stuff: Collection[int] = (),
) -> list[Batch]:
    """The given frames without augmentation, the whole image stretched to the stage's size.

    ``tasks`` and ``stuff`` as :func:`~dense_perception.data.targets.further_targets` takes them.
    With the task ``instances`` there are the targets of ``instance_rows``, too, and wherever there
    are things, ``segmentation``.
    """
    if "instances" in tasks:
        tasks = (*tasks, INSTANCE_ROWS)
    if INSTANCE_ROWS in tasks and "segmentation" not in tasks:
        tasks = (*tasks, "segmentation")
    views = []
    for index in indices:
        sample = frames[index]
        view = whole_view(sample, stage.width, stage.height)
        views.append((view, further_targets(sample, whole_crop(sample), view, tasks, stuff)))
    return [collate(views[at : at + stage.batch]) for at in range(0, len(views), stage.batch)]
