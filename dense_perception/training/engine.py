"""Where a run computes: Lightning Fabric with what this project asks of it.

One process on a CPU or a GPU, a process per device on one machine, or on several: the loop is the
same. Fabric starts the processes, or finds those that ``torchrun`` or SLURM have started.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from dense_perception.core.errors import TrainingError

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.wrappers import _FabricModule, _FabricOptimizer

T = TypeVar("T")


@dataclass(frozen=True)
class Placement:
    """The devices of a run: ``device`` is cpu or cuda, ``devices`` of them on each of ``nodes``
    machines, one process each.
    """

    device: str = "cpu"
    devices: int = 1
    nodes: int = 1


class Engine:
    """The processes of a run and the arithmetic of their networks; made once, in every process.

    :param arithmetic: one of :data:`~dense_perception.training.config.ARITHMETICS`.
    :raises TrainingError: if Lightning Fabric is missing, or there are fewer devices than asked
        for, or the arithmetic is not for them.
    """

    def __init__(self, placement: Placement, arithmetic: str) -> None:
        self.fabric = _fabric(placement, arithmetic)
        self.fabric.launch()
        self.device: torch.device = self.fabric.device
        self.rank: int = self.fabric.global_rank
        self.processes: int = self.fabric.world_size
        self.scales_losses = arithmetic == "fp16"

    @property
    def is_first(self) -> bool:
        """Whether this process validates, writes and reports."""
        return self.rank == 0

    def set_up(
        self, learner: nn.Module, optimiser: torch.optim.Optimizer
    ) -> tuple[_FabricModule, _FabricOptimizer]:
        """The same two, ready to be called: gradients become the mean over the processes."""
        if self.processes > 1 and self.device.type == "cuda":
            learner = nn.SyncBatchNorm.convert_sync_batchnorm(learner)
        module, wrapped = self.fabric.setup(learner, optimiser)
        return module, wrapped

    def from_first(self, value: T) -> T:
        """What the first process has, in every process: decisions by the clock are one's alone."""
        return value if self.processes == 1 else self.fabric.broadcast(value)

    def from_all(self, value: T) -> list[T]:
        """The values of all processes, in every process."""
        if self.processes == 1:
            return [value]
        gathered: list[T | None] = [None] * self.processes
        torch.distributed.all_gather_object(gathered, value)
        return [item for item in gathered if item is not None]

    def scaling_state(self) -> Mapping[str, float]:
        """The state of the loss scaling; empty without one."""
        return self.fabric.strategy.precision.state_dict()

    def restore_scaling(self, state: Mapping[str, float]) -> None:
        """Go on from :meth:`scaling_state`."""
        self.fabric.strategy.precision.load_state_dict(dict(state))


def mean_over_processes(count: Tensor) -> Tensor:
    """The mean of a number over the processes of a run.

    A sum divided by it, averaged over the processes as gradients are, is the sum over all processes
    divided by the count over all: the same loss as one process with all frames would have.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return count
    total = count.detach().clone().float()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


def _fabric(placement: Placement, arithmetic: str) -> Fabric:
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins import MixedPrecision, Precision
        from lightning_fabric.strategies import DDPStrategy
    except ImportError as error:
        raise TrainingError(
            f"training needs the package lightning-fabric, which cannot be imported ({error}): "
            "pip install 'dense_perception[train]'"
        ) from error

    class Mixed(MixedPrecision):
        """Autocast alone: depth in metres must not be rounded to 8 bits before a loss sees it."""

        def convert_input(self, data: T) -> T:
            return data

    devices, nodes = _under_torchrun(placement)
    if placement.device == "cuda" and torch.cuda.device_count() < devices:
        raise TrainingError(
            f"there are {torch.cuda.device_count()} GPUs, --devices asks for {devices}"
        )
    if arithmetic == "fp16" and placement.device == "cpu":
        raise TrainingError("arithmetic is fp16, which is for GPUs: take bf16 or fp32 on a CPU")
    precision = Precision()
    if arithmetic != "fp32":
        precision = Mixed("16-mixed" if arithmetic == "fp16" else "bf16-mixed", placement.device)
    strategy: DDPStrategy | str = "auto"
    if devices * nodes > 1:
        # Some published networks have parameters that their forward pass never reads.
        strategy = DDPStrategy(find_unused_parameters=True)
    return Fabric(
        accelerator=placement.device,
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        plugins=precision,
    )


def _under_torchrun(placement: Placement) -> tuple[int, int]:
    """Processes on this machine and machines: torchrun's, where it has started this process."""
    here = os.environ.get("LOCAL_WORLD_SIZE")
    if "TORCHELASTIC_RUN_ID" not in os.environ or here is None:
        return placement.devices, placement.nodes
    return int(here), int(os.environ.get("GROUP_WORLD_SIZE", "1"))
