"""The figures of a validation, and which way they are better."""

from __future__ import annotations

from dense_perception.core.errors import TrainingError

NO_FIGURE = "none"
"""In place of a figure's name."""
LABELLED = ("miou", "pixel_accuracy")
"""Of labels: a validation without any does not have them."""
_HIGHER = (
    *(*LABELLED, "box_ap50", "things_pq", "things_sq", "things_rq"),
    *("d1", "d2", "d3", "aligned_d1", "aligned_d2", "aligned_d3"),
    *("normals_below_11_25", "normals_below_22_5", "normals_below_30"),
)
_LOWER = (
    *("abs_rel", "sq_rel", "rmse", "log10", "silog", "aligned_abs_rel", "aligned_rmse"),
    *("depth_normals_mean_deg", "depth_normals_median_deg", "normals_mean_deg"),
    *("normals_median_deg", "edges_l1", "keypoints_l1", "reshading_l1"),
)


def check_figure(name: str) -> None:
    """
    :raises TrainingError: for a figure that no validation has, or that has no better way.
    """
    if name not in (*_HIGHER, *_LOWER):
        known = ", ".join(sorted((*_HIGHER, *_LOWER)))
        raise TrainingError(f"keep_best is {name!r}, expected a figure of the validation: {known}")


def is_better(name: str, value: float, than: float) -> bool:
    """Whether a value of a figure beats another; an equal one does not."""
    return value > than if name in _HIGHER else value < than
