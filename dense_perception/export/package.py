"""A network and its card become a model folder: the fp32 graph is held against eager PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from dense_perception.core.card import ModelCard
from dense_perception.core.difference import TOLERANCES, Difference
from dense_perception.core.errors import ArtefactError
from dense_perception.core.reference_frames import reference_feeds
from dense_perception.export.compare import Arrays, difference_of, runtime_outputs
from dense_perception.export.model_folder import (
    Exported,
    FolderMaker,
    Plan,
    Row,
    with_tolerance,
    write_model,
)
from dense_perception.export.onnx_graph import to_onnx, torch_outputs

FP32_LIMIT = Difference(1e-4, 1e-5)
"""How far a runtime may be from eager PyTorch for the graph to be right without further proof."""
FP64_TIMES = Difference(16.0, 4.0)
"""How many times eager PyTorch's own rounding error (against fp64) the graph's may be.

The mean tells two roundings of the same sums from a wrong graph. The largest is one pixel's of
hundreds of thousands, and a network that enlarges rounding spreads it widely: DPT-Hybrid at
1216x352 had ten times PyTorch's largest with less than four times its mean.
"""


def export_model(
    network: nn.Module,
    card: ModelCard,
    output: Path,
    plan: Plan | None = None,
    *,
    overwrite: bool = False,
    on_step: Callable[[str, int], None] = lambda step, more: None,
) -> Exported:
    """Write ``NAME_fp32.onnx``, what ``plan`` wants beside it, and ``NAME.yaml``.

    See :func:`~dense_perception.export.model_folder.write_model`.

    :raises ArtefactError: if a file exists and ``overwrite`` is false, a runtime disagrees with
        eager PyTorch, no coarse graph is within its drop, or something cannot be written.
    :raises CardError: if the card contradicts the network.
    :raises InputError: if int8 or fp8 is wanted without frames, or fp8 with the method ``mse``.
    """

    def begin(maker: FolderMaker) -> None:
        _Fp32(network, maker).make()

    return write_model(card, output, begin, plan, overwrite=overwrite, on_step=on_step)


class _Fp32:
    """The first file of a network."""

    def __init__(self, network: nn.Module, maker: FolderMaker) -> None:
        self.network = network
        self.maker = maker
        self.card = maker.card
        self.feeds = maker.feeds

    def make(self) -> None:
        maker = self.maker
        maker.on_step("fp32 graph", 3)
        card = with_tolerance(self.card, TOLERANCES["fp32"])
        maker.model = to_onnx(
            self.network, card, lambda step: maker.on_step(f"fp32 graph: {step}", 0)
        )
        path = maker.write(maker.model, "fp32")
        maker.on_step("fp32 against PyTorch", self.frames)
        want = self._of_torch("PyTorch")
        found = maker.compare(path, want, "PyTorch")
        if not all(difference.within(FP32_LIMIT) for difference in found.values()):
            self._against_double(path, want)
        if self.card.input.free:
            self._at_another_size(path)
        maker.enter(path, "fp32")

    @property
    def frames(self) -> int:
        """How many reference frames there are."""
        return len(self.feeds["image"])

    def _of_torch(self, what: str, *, double: bool = False) -> Arrays:
        def on_frame(number: int) -> None:
            self.maker.on_step(f"{what}: frame {number} of {self.frames}", 0)

        return torch_outputs(self.network, self.card, self.feeds, double=double, on_frame=on_frame)

    def _at_another_size(self, path: Path) -> None:
        """A graph of free sizes must not have kept anything of the size it was traced at.

        :raises ArtefactError: if it has.
        """
        spec = self.card.input
        other = replace(
            spec, height=spec.height + spec.multiple, width=spec.width + 3 * spec.multiple
        )
        card = replace(self.card, input=other)
        feeds = reference_feeds(card, 1)
        self.maker.on_step(f"fp32 at {other.width}x{other.height}", 1)
        got = runtime_outputs("onnxruntime", path, feeds)
        found = difference_of(card, got, torch_outputs(self.network, card, feeds))
        # Rounding is judged at the card's size; a wrong graph is further off than this.
        if not found.within(TOLERANCES["fp16"]):
            raise ArtefactError(
                f"at {other.width}x{other.height} the graph differs from PyTorch by "
                f"{found.max_of_range:.1e} of the range (mean {found.mean_of_range:.1e}): it is "
                "right at one size only; export it with --size, or with another version of PyTorch"
            )

    def _against_double(self, path: Path, want: Arrays) -> None:
        """A network that enlarges rounding: both fp32 answers are held against fp64's.

        :raises ArtefactError: if a runtime is further from fp64 than rounding explains.
        """
        self.maker.on_step("fp32 against fp64", 1 + self.frames)
        exact = self._of_torch("PyTorch in fp64", double=True)
        own = difference_of(self.card, want, exact)
        limit = Difference(
            max(FP32_LIMIT.max_of_range, FP64_TIMES.max_of_range * own.max_of_range),
            max(FP32_LIMIT.mean_of_range, FP64_TIMES.mean_of_range * own.mean_of_range),
        )
        self.maker.rows.append(Row(path.name, path.stat().st_size, "PyTorch", "fp64", own))
        for name, difference in self.maker.compare(path, exact, "fp64").items():
            if not difference.within(limit):
                raise ArtefactError(
                    f"{name} differs from the network in fp64 by {difference.max_of_range:.1e} of "
                    f"the range (mean {difference.mean_of_range:.1e}), expected at most "
                    f"{limit.max_of_range:.1e} (mean {limit.mean_of_range:.1e}; PyTorch's fp32 "
                    f"differs by {own.max_of_range:.1e}): the graph is wrong, or the runtime is; "
                    "try another version of it"
                )
