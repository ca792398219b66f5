"""Which parts of a graph must stay precise for the answer to stay within a budget? Measured.

Neighbours are made coarse together and the answer compared with fp32 on frames kept out of
calibration; those that hurt are halved, down to units (a layer, or a few in a big graph). The units
that hurt most stay precise, as few of them as the budget allows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from dense_perception.backends.onnxruntime import PAIRS_AS_THEY_ARE
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import ArtefactError
from dense_perception.core.instance_lists import disagreement
from dense_perception.core.prediction import DepthKind
from dense_perception.export.float8 import is_float8

Arrays = Mapping[str, np.ndarray]
MOST_UNITS = 48
"""A graph with more layers is searched in units of several, so that a big one takes minutes."""
_LOOKED_AT = 2  # frames: enough to rank units by, and the chosen graph is judged on all


@dataclass(frozen=True)
class Found:
    """The graph that was chosen, what stayed precise in it, its drop, and the drop without that."""

    model: onnx.ModelProto
    kept: tuple[str, ...]
    drop: float
    full_drop: float


class Judge:
    """How far a graph's answers are from the fp32 graph's on the given frames.

    The drop is, for metric depth, the mean of |d - d32| / d32, for other depth the mean of
    |d - d32| over the range of d32, for labels the share of changed pixels, for normals the mean
    angle as a share of 90 degrees, for gray maps the mean difference as a share of 255, for
    instances :func:`~dense_perception.core.instance_lists.disagreement`. The largest of a model's
    outputs counts: 0 is no drop.
    """

    def __init__(self, model: onnx.ModelProto, card: ModelCard, frames: Sequence[Arrays]) -> None:
        self.card = card
        self.frames = list(frames)
        self.want = self._run(model)

    def drop(self, model: onnx.ModelProto, most: int | None = None) -> float:
        """Infinite where an answer is not finite; ``most`` looks at so many frames only.

        :raises ArtefactError: if ONNX Runtime does not read the graph.
        """
        got = self._run(model, most)
        return float(np.mean([self._between(*pair) for pair in zip(got, self.want, strict=False)]))

    def _run(self, model: onnx.ModelProto, most: int | None = None) -> list[dict[str, np.ndarray]]:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        if is_float8(model):
            options.add_session_config_entry(*PAIRS_AS_THEY_ARE)
        try:
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # it has a class of its own for each reason
            raise ArtefactError(
                f"ONNX Runtime {onnxruntime.__version__} does not read the graph, and so cannot "
                f"measure it: {str(error).partition(chr(10))[0][:200]}: update it, or choose "
                "another precision"
            ) from error
        names = [output.name for output in session.get_outputs()]
        return [
            dict(zip(names, session.run(names, dict(feeds)), strict=True))
            for feeds in self.frames[:most]
        ]

    def _between(self, got: Arrays, want: Arrays) -> float:
        drops = []
        if self.card.depth is not None:
            error = np.abs(got["depth"].astype(np.float64) - want["depth"])
            metric = self.card.depth.kind is DepthKind.METRIC
            scale = want["depth"] if metric else np.ptp(want["depth"])
            drops.append(float(np.mean(error / np.maximum(scale, 1e-9))))
        if self.card.segmentation is not None:
            drops.append(float(np.mean(_labels(got) != _labels(want))))
        if self.card.instances is not None:
            lists = [disagreement(got, want, self.card.input, i) for i in range(len(want["boxes"]))]
            drops.append(float(np.mean(lists)))
        for name in self.card.maps:
            if name == "normals":
                cosine = np.clip((got[name].astype(np.float64) * want[name]).sum(-1), -1, 1)
                drops.append(float(np.mean(np.arccos(cosine))) / (np.pi / 2))
            else:
                error = np.abs(got[name].astype(np.float64) - want[name])
                drops.append(float(np.mean(error)) / 255)
        return max(drop if np.isfinite(drop) else float("inf") for drop in drops)


def _labels(answer: Arrays) -> np.ndarray:
    """Of windows the best class per score: labels as the picture will have them, but coarser."""
    return answer["scores"].argmax(1) if "scores" in answer else answer["labels"]


def search(
    layers: Sequence[str],
    build: Callable[[Collection[str]], onnx.ModelProto],
    judge: Judge,
    budget: float,
    on_step: Callable[[str, int], None] = lambda what, steps: None,
) -> Found:
    """The coarsest graph within ``budget``; ``build`` takes the layers that stay precise.

    ``on_step`` is told what was done and how many more steps have turned out to be needed.

    :raises ArtefactError: if no graph with a coarse layer is within the budget.
    """
    model = build(())
    full = judge.drop(model)
    if full <= budget:
        on_step(f"everything coarse: drop {full:.4f}", 0)
        return Found(model, (), full, full)
    units = _units(layers)
    on_step(f"everything coarse: drop {full:.4f}, more than {budget:g}", 2)
    harm = _harms(units, layers, build, judge, budget, full, on_step)
    order = sorted(range(len(units)), key=lambda index: -harm[index])
    best: Found | None = None
    low, high = 1, len(units) - 1
    # Harms add up nearly, so as many as that promises come first, then their neighbours.
    left = np.cumsum([harm[index] for index in order[::-1]])[::-1]
    count, step = min(max(low, int(np.sum(left > budget))), high), 1
    while low <= high:
        kept = tuple(name for index in sorted(order[:count]) for name in units[index])
        model = build(kept)
        drop = judge.drop(model)
        on_step(f"{len(kept)} layers precise: drop {drop:.4f}", 0)
        if drop <= budget:
            best, high = Found(model, kept, drop, full), count - 1
            count = max(low, count - step)
        else:
            low = count + 1
            count = min(high, count + step)
        step *= 2
    if best is None:
        raise ArtefactError(
            f"nothing but fp32 stays within a drop of {budget:g} (everything coarse: {full:.4f}): "
            "allow more with --max-drop, or calibrate on more and other frames"
        )
    return best


@dataclass(frozen=True, order=True)
class _Group:
    """Units ``start`` to ``stop``, and the drop when they alone are coarse."""

    drop: float
    start: int
    stop: int


def _harms(
    units: Sequence[tuple[str, ...]],
    layers: Sequence[str],
    build: Callable[[Collection[str]], onnx.ModelProto],
    judge: Judge,
    budget: float,
    full: float,
    on_step: Callable[[str, int], None],
) -> list[float]:
    """What each unit costs: of one that hurts its own drop, of a quiet group's its share.

    The group that hurts most is halved until what is left of groups is within the budget: with few
    culprits that takes a few steps for each, not one for each unit.
    """
    groups = [_Group(full, 0, len(units))]
    while True:
        several = [group for group in groups if group.stop - group.start > 1]
        if sum(group.drop for group in several) <= budget:
            break
        worst = max(several)
        groups.remove(worst)
        middle = (worst.start + worst.stop) // 2
        on_step(f"halving {worst.stop - worst.start} units: drop {worst.drop:.4f}", 3)
        for start, stop in ((worst.start, middle), (middle, worst.stop)):
            coarse = {name for unit in units[start:stop] for name in unit}
            drop = judge.drop(build([name for name in layers if name not in coarse]), _LOOKED_AT)
            groups.append(_Group(drop, start, stop))
            on_step(f"units {start + 1} to {stop} of {len(units)}: drop {drop:.4f}", 0)
    harm = [0.0] * len(units)
    for group in groups:
        size = group.stop - group.start
        harm[group.start : group.stop] = [group.drop / size] * size
    return harm


def _units(layers: Sequence[str]) -> list[tuple[str, ...]]:
    size = -(-len(layers) // MOST_UNITS)
    return [tuple(layers[start : start + size]) for start in range(0, len(layers), size)]
