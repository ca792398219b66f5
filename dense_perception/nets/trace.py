"""What a network does to one frame, operation by operation, without computing anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True)
class Operation:
    """One operation that a runtime cannot fold into its neighbour.

    ``flops`` counts 2 per multiply-add and is 0 for what only moves data. ``read`` and ``written``
    are elements, weights among the read ones. ``weights``: whether one operand is a parameter;
    without it a matrix product is one of attention.
    """

    name: str
    flops: int
    read: int
    written: int
    weights: bool


# What needs its own pass over memory. Everything else element-wise is folded into a neighbour.
_PASSES = (
    "softmax",
    "layer_norm",
    "group_norm",
    "upsample",
    "pool",
    "cat",
    "index",
    "gather",
    "grid_sampler",
    "roll",
    "pad",
)


def trace(network: nn.Module, height: int, width: int) -> list[Operation]:
    """The operations for one ``height`` x ``width`` frame of a network on the meta device."""
    inputs = [torch.empty(1, 3, height, width, device="meta")]
    if getattr(network, "needs_focal", False):
        inputs.append(torch.empty(1, device="meta"))
    recorder = _Recorder(network)
    with torch.no_grad(), recorder:
        network(*inputs)
    return recorder.operations


class _Recorder(TorchDispatchMode):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        # Views of a parameter share its storage.
        self._parameters = {p.untyped_storage()._cdata for p in network.parameters()}

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Iterable[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = func._overloadpacket
        name = packet.__name__
        counted = packet in flop_registry
        if counted or any(word in name for word in _PASSES):
            given = [item for item in _flat(args) if isinstance(item, torch.Tensor)]
            made = [item for item in _flat((result,)) if isinstance(item, torch.Tensor)]
            flops = flop_registry[packet](*args, **kwargs, out_val=result) if counted else 0
            self.operations.append(
                Operation(
                    name,
                    int(flops),
                    sum(tensor.numel() for tensor in given),
                    sum(tensor.numel() for tensor in made),
                    any(t.untyped_storage()._cdata in self._parameters for t in given),
                )
            )
        return result


def _flat(items: Iterable[object]) -> list[object]:
    found: list[object] = []
    for item in items:
        found += _flat(item) if isinstance(item, (list, tuple)) else [item]
    return found
