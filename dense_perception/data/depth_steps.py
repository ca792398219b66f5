"""In which steps depth is stored: as fine as its near pixels need, or as its sensor's noise allows.

Depth maps are (H, W) float32 metres; what is 0, negative or not finite is unknown.
"""

from __future__ import annotations

import numpy as np

UNITS_M = (0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01)
"""Steps of stored depth."""
COARSE_UNIT_M = 1.0
"""The step of what is too far for all others, so that the mistake is seen later."""
# A step at a frame's near pixels is at most this share of their depth, as in the earlier layout.
_PRECISION = 1 / 1024
_NEAR = 0.05
# Half of a frame beyond that is a mistake (millimetres), which has to be seen, not stored as none.
_FARTHEST_M = 65535 * UNITS_M[-1]
_SENSORS_M = 0.001
# Rounding to twice the noise's standard deviation makes the whole noise larger by a sixth. Where
# most of a frame is far, near pixels have less noise than its median: this is for them.
_STEPS_OF_NOISE = 2.0
_SENSORS_PRECISION = 1 / 512
# Rows and columns between those that are looked at.
_STRIDE = 8
# The median of |x| for normal noise of 1, and the noise of a second difference.
_MEDIAN, _SECOND_DIFFERENCE = 0.6745, 6**0.5


def fine_unit(depth_m: np.ndarray) -> float:
    """The coarsest step that is a thousandth of the near pixels' depth or less.

    It is the finest one that reaches the farthest pixel where none of them does both, and
    :data:`COARSE_UNIT_M` where half of the pixels is beyond all of them.
    """
    known_m = depth_m[np.isfinite(depth_m) & (depth_m > 0)]
    if not known_m.size:
        return UNITS_M[0]
    reaching = [unit for unit in UNITS_M if known_m.max() <= 65535 * unit]
    if not reaching:
        return COARSE_UNIT_M if np.median(known_m) > _FARTHEST_M / 2 else UNITS_M[-1]
    fine = [unit for unit in reaching if unit <= _PRECISION * _near(known_m)]
    return fine[-1] if fine else reaching[0]


def sensor_unit(depth_m: np.ndarray) -> float:
    """The coarsest step that loses nothing of a sensor's depth; 1 mm at least.

    It is at most twice the standard deviation of the noise, and a 512th of the near pixels' depth,
    but reaches the farthest pixel where one of :data:`UNITS_M` does. Sensors and recordings give
    millimetres, so depth to 65 m without noise keeps all of them.
    """
    known_m = depth_m[np.isfinite(depth_m) & (depth_m > 0)]
    if not known_m.size:
        return _SENSORS_M
    units = [unit for unit in UNITS_M if unit >= _SENSORS_M]
    most_m = min(_STEPS_OF_NOISE * depth_noise(depth_m), _SENSORS_PRECISION * _near(known_m))
    fitting = [unit for unit in units if unit <= most_m]
    reaching = [unit for unit in units if known_m.max() <= 65535 * unit]
    return max(fitting[-1:] + reaching[:1] + units[:1])


def depth_noise(depth_m: np.ndarray) -> float:
    """Standard deviation in metres of a pixel against its neighbours; 0 where nothing is known.

    Inverse depth is linear over a plane in the picture, so second differences of it, along rows and
    columns, hold noise and outlines alone; of those the median is taken.
    """
    depth_m = np.asarray(depth_m, np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1 / depth_m
    found = []
    for lines in (inverse[::_STRIDE], inverse.T[::_STRIDE]):
        before, here, after = lines[:, :-2], lines[:, 1:-1], lines[:, 2:]
        known = (before > 0) & (here > 0) & (after > 0)
        known &= np.isfinite(before) & np.isfinite(here) & np.isfinite(after)
        here = here[known]
        # To first order a change of inverse depth is one of depth, divided by its square.
        found.append(np.abs(before[known] - 2 * here + after[known]) / here**2)
    differences_m = np.concatenate(found)
    if not differences_m.size:
        return 0.0
    return float(np.median(differences_m)) / (_MEDIAN * _SECOND_DIFFERENCE)


def _near(known_m: np.ndarray) -> float:
    return float(np.quantile(known_m[::7], _NEAR))
