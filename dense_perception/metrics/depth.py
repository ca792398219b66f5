"""Depth metrics of one frame against a ground truth.

Every function takes ``predicted_m`` and ``true_m``: metres, one shape. A pixel counts when the
truth is finite and positive (0 and NaN are "no measurement") and the prediction is finite and
positive too; how many truths were answered is ``coverage``. A frame in which nothing counts gives
NaN. Two float32 maps are compared in float32 and added up in float64 (good to 1e-6, and several
times faster), anything else in float64. Names and definitions follow Eigen, Puhrsch and Fergus
(2014).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from dense_perception.core.errors import InputError

KINDS = ("metric", "scaled", "aligned")
"""As answered; times median(truth) / median(prediction) (Zhou 2017); after the best scale and shift
of inverse depth (:func:`align_scale_shift`, MiDaS, Ranftl 2020)."""
ERRORS = ("absrel", "sqrel", "rmse", "rmselog", "log10", "silog", "d1", "d2", "d3")
_BLOCK = 1 << 15  # pixels
_OLD_NAMES = {"absrel": "abs_rel", "sqrel": "sq_rel"}
_OLD_ALIGNED = ("absrel", "rmse", "d1", "d2", "d3")


def floats(predicted_m: np.ndarray, true_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays of one type: float32 if both are, else float64.

    :raises InputError: if the shapes differ.
    """
    predicted, true = np.asarray(predicted_m), np.asarray(true_m)
    if predicted.shape != true.shape:
        raise InputError(
            f"prediction has shape {predicted.shape}, truth {true.shape}: resize one of them first"
        )
    small = predicted.dtype == np.float32 and true.dtype == np.float32
    dtype = np.float32 if small else np.float64
    return predicted.astype(dtype, copy=False), true.astype(dtype, copy=False)


def usable(depth_m: np.ndarray) -> np.ndarray:
    """Where depth is finite and positive: bool of its shape."""
    with np.errstate(invalid="ignore"):
        found: np.ndarray = depth_m > 0
        found &= depth_m < np.inf
    return found


class TrueDepth:
    """The true depth of a frame, prepared once for comparing several predictions with it.

    ``metres_hw`` (H, W) float32 or float64; ``known_hw`` bool where it is usable, ``count`` pixels,
    whose places in a row are ``places``.
    """

    def __init__(self, true_m: np.ndarray) -> None:
        self.metres_hw = np.asarray(true_m)
        if self.metres_hw.dtype != np.float32:
            self.metres_hw = self.metres_hw.astype(np.float64, copy=False)
        self.known_hw = usable(self.metres_hw)
        # Taking by places is several times faster than by a mask.
        self.places = np.flatnonzero(self.known_hw)
        self.count = len(self.places)

    @cached_property
    def values_m(self) -> np.ndarray:
        """Those of all known pixels, (n,)."""
        return self.metres_hw.ravel().take(self.places)

    @cached_property
    def median_m(self) -> float:
        """The median of :attr:`values_m`."""
        return median(self.values_m)


class Matched:
    """A prediction beside its truth, on the pixels where both are usable.

    ``predicted_m`` and ``true_m``, (n,) each, are those of ``valid_hw``, row by row, of
    ``answer_hw`` and ``truth``.

    :raises InputError: if the shapes differ.
    """

    def __init__(self, predicted_m: np.ndarray, truth: TrueDepth) -> None:
        predicted, true = floats(predicted_m, truth.metres_hw)
        self.truth, self.answer_hw = truth, predicted
        self.valid_hw, self._places = truth.known_hw, truth.places
        self.predicted_m = predicted.ravel().take(self._places)
        if not (answered := usable(self.predicted_m)).all():
            self.valid_hw = usable(predicted)
            self.valid_hw &= truth.known_hw
            self._places, self.predicted_m = self._places[answered], self.predicted_m[answered]
        self._is_all = len(self) == truth.count and true.dtype == truth.metres_hw.dtype
        self.true_m = truth.values_m if self._is_all else true.ravel().take(self._places)

    def __len__(self) -> int:
        return len(self.predicted_m)

    @property
    def coverage(self) -> float:
        """Share of the measured pixels that have a usable prediction."""
        return len(self) / self.truth.count if self.truth.count else math.nan

    @cached_property
    def scale(self) -> float:
        """median(p) / median(t)."""
        if not len(self):
            return math.nan
        true = self.truth.median_m if self._is_all else median(self.true_m)
        return median(self.predicted_m) / true

    def figures(self, max_m: float = math.inf, kinds: Collection[str] = KINDS) -> dict[str, float]:
        """``metric.absrel`` and all others of ``kinds``, ``coverage``, and with ``metric``
        ``scale``.

        :param max_m: the farthest that aligned depth may be; see :func:`align_scale_shift`.
        """
        wanted = [kind for kind in KINDS if kind in kinds]
        found = {kind: _Errors() for kind in wanted}
        if len(self):
            number = self.predicted_m.dtype.type
            fit = self._fit(max_m) if "aligned" in found else None
            scale = self.scale if "scaled" in found else 1.0
            for p, t in self._blocks():
                inverse, ratio = 1 / t, p / t
                log = np.log(ratio)
                if "metric" in found:
                    found["metric"].add(p - t, inverse, ratio, log)
                if "scaled" in found:
                    shifted = log - number(math.log(scale))
                    gap = p / number(scale) - t
                    found["scaled"].add(gap, inverse, ratio / number(scale), shifted)
                if fit is not None:
                    aligned = fit(p)
                    ratio = aligned / t
                    found["aligned"].add(aligned - t, inverse, ratio, np.log(ratio))
        figures = {
            f"{kind}.{name}": value
            for kind, errors in found.items()
            for name, value in errors.result().items()
        }
        if "metric" in kinds:
            figures["scale"] = self.scale
        figures["coverage"] = self.coverage
        return figures

    def aligned(self, asked_m: np.ndarray, max_m: float = math.inf) -> np.ndarray:
        """``asked_m``, (n,) of usable predictions of this frame, as :func:`align_scale_shift`
        changes the prediction."""
        return self._fit(max_m)(asked_m)

    def _blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Prediction and truth in pieces that stay in a core's cache: the arithmetic is several
        passes over each, and OpenCV adds float32 up in float64."""
        for start in range(0, len(self), _BLOCK):
            yield self.predicted_m[start : start + _BLOCK], self.true_m[start : start + _BLOCK]

    def _fit(self, max_m: float) -> _Fit:
        """Least squares of 1 / t = slope / p + shift."""
        count, number = len(self), self.predicted_m.dtype.type
        middle_x, middle_y = number(0), number(0)
        x_sum = y_sum = both = squares = 0.0
        for start, (p, t) in enumerate(self._blocks()):
            x, y = 1 / p, 1 / t
            if not start:  # near the means, so that little is lost where they are taken out
                middle_x, middle_y = (number(_sum(each) / len(each)) for each in (x, y))
            x -= middle_x
            y -= middle_y
            x_sum += _sum(x)
            y_sum += _sum(y)
            squares += _squares(x)
            both += _sum(np.multiply(x, y, out=y))
        x_mean, y_mean = x_sum / count, y_sum / count
        spread = squares / count - x_mean**2
        # A prediction that is constant up to rounding has no slope to fit.
        rounding = max(1e-20, (8 * float(np.finfo(number).eps)) ** 2)
        constant = spread <= rounding * (float(middle_x) + x_mean) ** 2
        slope = 0.0 if constant else (both / count - x_mean * y_mean) / spread
        shift = float(middle_y) + y_mean - slope * (float(middle_x) + x_mean)
        farthest = max_m if math.isfinite(max_m) else float(np.max(self.true_m))
        return _Fit(slope, shift, farthest)


@dataclass(frozen=True)
class _Fit:
    slope: float
    shift: float
    farthest_m: float

    def __call__(self, predicted_m: np.ndarray) -> np.ndarray:
        number = predicted_m.dtype.type
        with np.errstate(over="ignore"):
            inverse = number(self.slope) / predicted_m
        inverse += number(self.shift)
        np.maximum(inverse, number(1 / self.farthest_m), out=inverse)
        return np.divide(1, inverse, out=inverse)


class _Errors:
    """Sums of the errors over pixels, with r = p / t.

    ==========  ================================================================================
    absrel      mean(\\|r - 1\\|)
    sqrel       mean((r - 1)^2 t), metres
    rmse        sqrt(mean(((r - 1) t)^2)), metres
    rmselog     sqrt(mean((ln r)^2))
    log10       mean(\\|log10 r\\|)
    silog       100 sqrt(mean((ln r)^2) - mean(ln r)^2), as KITTI's benchmark counts it
    d1, d2, d3  share of pixels with max(r, 1 / r) < 1.25, 1.25^2, 1.25^3
    ==========  ================================================================================
    """

    def __init__(self) -> None:
        self._count = 0
        self._relative = self._square = self._metres = 0.0
        self._logs = self._log_sizes = self._log_squares = 0.0
        self._below = [0, 0, 0]

    def add(self, gap: np.ndarray, inverse: np.ndarray, ratio: np.ndarray, log: np.ndarray) -> None:
        """Pixels in a row: p - t, 1 / t, r, ln r."""
        self._count += len(gap)
        scratch = gap * inverse
        self._relative += _sizes(scratch)
        self._square += _sum(np.multiply(gap, scratch, out=scratch))
        self._metres += _squares(gap)
        self._logs += _sum(log)
        self._log_sizes += _sizes(log)
        self._log_squares += _squares(log)
        worst = np.maximum(ratio, np.divide(1, ratio, out=scratch), out=scratch)
        for power in range(3):
            limit = worst.dtype.type(1.25 ** (power + 1))
            self._below[power] += int(np.count_nonzero(worst < limit))

    def result(self) -> dict[str, float]:
        """Every error of :data:`ERRORS`; NaN where nothing counts."""
        count = self._count
        if not count:
            return dict.fromkeys(ERRORS, math.nan)
        square, mean = self._log_squares / count, self._logs / count
        values = (
            self._relative / count,
            self._square / count,
            math.sqrt(self._metres / count),
            math.sqrt(square),
            self._log_sizes / count / math.log(10),
            100 * math.sqrt(max(0.0, square - mean * mean)),
            *(below / count for below in self._below),
        )
        return dict(zip(ERRORS, values, strict=True))


def abs_rel(predicted_m: np.ndarray, true_m: np.ndarray) -> float:
    """mean(\\|p - t\\| / t)."""
    return depth_figures(predicted_m, true_m, kinds=("metric",))["metric.absrel"]


def delta(predicted_m: np.ndarray, true_m: np.ndarray, power: int = 1) -> float:
    """Share of pixels with max(p / t, t / p) < 1.25^power; ``power`` is 1, 2 or 3."""
    return depth_figures(predicted_m, true_m, kinds=("metric",))[f"metric.d{power}"]


def depth_figures(
    predicted_m: np.ndarray,
    true_m: np.ndarray,
    max_m: float = math.inf,
    kinds: Collection[str] = KINDS,
) -> dict[str, float]:
    """As :meth:`Matched.figures`.

    :raises InputError: if the shapes differ.
    """
    return Matched(predicted_m, TrueDepth(true_m)).figures(max_m, kinds)


def align_scale_shift(
    predicted_m: np.ndarray, true_m: np.ndarray, max_m: float = math.inf
) -> np.ndarray:
    """The prediction after the best scale and shift in inverse depth, of its shape.

    Finds s, b that minimise sum((s / p + b - 1 / t)^2) over the pixels that count and returns
    1 / (s / p + b). Where the aligned inverse depth is below 1 / ``max_m``, or not positive, the
    answer is ``max_m``, or without one the largest true depth of the frame, so that no pixel
    escapes being counted. A constant prediction gets s = 0. NaN where the prediction is not finite
    and positive, or nothing counts.
    """
    predicted, true = floats(predicted_m, true_m)
    matched = Matched(predicted, TrueDepth(true))
    answered = usable(predicted)
    result = np.full(predicted.shape, np.nan, predicted.dtype)
    if len(matched):
        result[answered] = matched.aligned(predicted[answered], max_m)
    return result


def evaluate(
    predicted_m: np.ndarray, true_m: np.ndarray, max_m: float = math.inf
) -> dict[str, float]:
    """Metric and aligned errors of one frame and the coverage, by the names of ``evaluate --json``.

    ``abs_rel``, ``sq_rel``, ``rmse``, ``log10``, ``silog``, ``d1`` to ``d3``, of the aligned ones
    ``aligned_abs_rel``, ``aligned_rmse`` and ``aligned_d1`` to ``aligned_d3``, and ``coverage``.
    """
    found = depth_figures(predicted_m, true_m, max_m, ("metric", "aligned"))
    metric = [name for name in ERRORS if name != "rmselog"]
    return {
        **{_OLD_NAMES.get(name, name): found[f"metric.{name}"] for name in metric},
        **{
            f"aligned_{_OLD_NAMES.get(name, name)}": found[f"aligned.{name}"]
            for name in _OLD_ALIGNED
        },
        "coverage": found["coverage"],
    }


def average(frames: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean over frames of each metric, leaving out frames where it is NaN."""
    names = list(frames[0]) if frames else []
    means = {}
    for name in names:
        values = np.array([frame[name] for frame in frames], dtype=np.float64)
        values = values[np.isfinite(values)]
        means[name] = float(values.mean()) if len(values) else math.nan
    return means


def _sum(values: np.ndarray) -> float:
    return float(cv2.sumElems(values)[0])


def _sizes(values: np.ndarray) -> float:
    return float(cv2.norm(values, cv2.NORM_L1))


def _squares(values: np.ndarray) -> float:
    return float(cv2.norm(values, cv2.NORM_L2SQR))


def median(values: np.ndarray) -> float:
    """As ``np.median`` of one or more flat finite values, but faster: it looks for no NaN."""
    middle = len(values) // 2
    parted = np.partition(values, middle)
    upper = float(parted[middle])
    return upper if len(values) % 2 else (float(parted[:middle].max()) + upper) / 2
