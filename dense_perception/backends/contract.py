"""Does a graph keep the promise of its card?"""

from __future__ import annotations

import numpy as np

from dense_perception.backends.base import Backend, TensorSpec
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import CardError


def promised(card: ModelCard) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs that ``card`` promises, in the graph's order.

    Inputs: ``image`` uint8 (N, height, width, 3) and, for a focal-aware model, ``focal_px``
    float32 (N,). Outputs of (N, height, width): ``depth`` float32, ``labels`` and ``confidence``,
    ``edges``, ``keypoints`` and ``reshading`` uint8, and ``normals`` float32 (N, height, width, 3).
    N is free.
    """
    size = (None, card.input.height, card.input.width)
    inputs = [TensorSpec("image", np.dtype(np.uint8), (*size, 3))]
    if card.input.focal:
        inputs.append(TensorSpec("focal_px", np.dtype(np.float32), (None,)))
    outputs = []
    for output in card.outputs:
        for name in ("labels", "confidence") if output == "labels" else (output,):
            dtype = np.dtype(np.float32 if name in ("depth", "normals") else np.uint8)
            outputs.append(TensorSpec(name, dtype, (*size, 3) if name == "normals" else size))
    return tuple(inputs), tuple(outputs)


def check_graph(card: ModelCard, backend: Backend, where: str) -> None:
    """Compare the graph's real inputs and outputs with the card's (:func:`promised`).

    N is free or 1, and further outputs do no harm.

    :raises CardError: naming the tensor, what the graph has and what the card promises.
    """
    inputs, outputs = promised(card)
    _compare("input", inputs, backend.inputs, where, exact=True)
    _compare("output", outputs, backend.outputs, where, exact=False)


def _compare(
    kind: str,
    promises: tuple[TensorSpec, ...],
    specs: tuple[TensorSpec, ...],
    where: str,
    *,
    exact: bool,
) -> None:
    found = {spec.name: spec for spec in specs}
    wanted = {spec.name: (spec.dtype, spec.shape[1:]) for spec in promises}
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
