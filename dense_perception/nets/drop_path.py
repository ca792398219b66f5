"""Stochastic depth (Huang 2016, arXiv:1603.09382): whole residual branches dropped per sample."""

from __future__ import annotations

from torch import Tensor, nn

from dense_perception.core.errors import InputError


class DropPath(nn.Module):
    """Zero the branch of a sample with probability ``rate`` in training, else scale it up.

    The identity in evaluation mode. The input's first dimension is the batch.

    :raises InputError: for a rate outside [0, 1).
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise InputError(f"drop path rate is {rate}, expected 0 <= rate < 1")
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return branch
        shape = (branch.shape[0],) + (1,) * (branch.ndim - 1)
        kept = branch.new_empty(shape).bernoulli_(1 - self.rate)
        return branch * kept / (1 - self.rate)


def linear_rates(last: float, count: int) -> list[float]:
    """The usual schedule: from 0 at the first block to ``last`` at the last of ``count``."""
    return [last * index / max(count - 1, 1) for index in range(count)]
