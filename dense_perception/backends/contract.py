"""Does a graph keep the promise of its card?"""

from __future__ import annotations

from dense_perception.backends.base import Backend, TensorSpec
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import CardError


def check_graph(card: ModelCard, backend: Backend, where: str) -> None:
    """Compare the graph's real inputs and outputs with the card's.

    Inputs: ``image`` uint8 (N, height, width, 3) and, for a focal-aware model, ``focal_px``
    float32 (N,). Outputs of (N, height, width): ``depth`` float32, ``labels`` and ``confidence``,
    ``edges``, ``keypoints`` and ``reshading`` uint8, and ``normals`` float32 (N, height, width, 3).
    N is free or 1.

    :raises CardError: naming the tensor, what the graph has and what the card promises.
    """
    size = (card.input.height, card.input.width)
    wanted_inputs: dict[str, tuple[str, tuple[int, ...]]] = {"image": ("uint8", (*size, 3))}
    if card.input.focal:
        wanted_inputs["focal_px"] = ("float32", ())
    wanted_outputs: dict[str, tuple[str, tuple[int, ...]]] = {}
    if card.depth is not None:
        wanted_outputs["depth"] = ("float32", size)
    if card.segmentation is not None:
        wanted_outputs["labels"] = wanted_outputs["confidence"] = ("uint8", size)
    for name in card.maps:
        wanted_outputs[name] = ("float32", (*size, 3)) if name == "normals" else ("uint8", size)
    _compare("input", wanted_inputs, backend.inputs, where, exact=True)
    _compare("output", wanted_outputs, backend.outputs, where, exact=False)


def _compare(
    kind: str,
    wanted: dict[str, tuple[str, tuple[int, ...]]],
    specs: tuple[TensorSpec, ...],
    where: str,
    *,
    exact: bool,
) -> None:
    found = {spec.name: spec for spec in specs}
    missing = [name for name in wanted if name not in found]
    surplus = [name for name in found if name not in wanted] if exact else []
    if missing or surplus:
        raise CardError(
            f"{where}: the card contradicts its graph: {kind}s are {sorted(found)}, the card "
            f"promises {sorted(wanted)}: export the model again"
        )
    for name, (dtype, tail) in wanted.items():
        spec = found[name]
        batch, *sides = spec.shape if spec.shape else (0,)
        fits = len(sides) == len(tail) and all(
            side in (None, want) for side, want in zip(sides, tail, strict=True)
        )
        if spec.dtype != dtype or batch not in (None, 1) or not fits:
            promised = ", ".join(["N", *map(str, tail)])
            raise CardError(
                f"{where}: the card contradicts its graph: {kind} {spec}, the card promises "
                f"{name}: {dtype} ({promised}): export the model again"
            )
