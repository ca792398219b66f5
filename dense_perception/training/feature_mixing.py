"""MixStyle (Zhou 2021, arXiv:2104.02008): trains against reliance on one domain's statistics.

The channel means and deviations of early features carry the look of a scene rather than its
content. Mixing them between the frames of a batch shows the network the same rooms in looks that
no renderer drew.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dense_perception.core.errors import TrainingError


class FeatureMixing:
    """Forward hooks on named modules; active only while the network is in training mode.

    The networks' random numbers come from torch's global generator.
    """

    def __init__(
        self, network: nn.Module, names: Iterable[str], probability: float, alpha: float = 0.3
    ) -> None:
        self.probability = probability
        self.beta = torch.distributions.Beta(alpha, alpha)
        self.network = network
        parts = dict(network.named_modules())
        for name in names:
            if name not in parts:
                raise TrainingError(
                    f"feature_mix: {name!r} is no module of the network; it has, among others, "
                    f"{[known for known in parts if known][:12]}"
                )
        self._handles = [parts[name].register_forward_hook(self._hook) for name in names]

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if not self.network.training or float(torch.rand(())) >= self.probability:
            return None
        # Drawn on the CPU, so that a seed means the same on every device.
        share_n, partner_n = self.beta.sample((len(output),)), torch.randperm(len(output))
        return mix_statistics(output, share_n.to(output.device), partner_n.to(output.device))


def mix_statistics(features_nchw: Tensor, share_n: Tensor, partner_n: Tensor) -> Tensor:
    """Give frame i the mean and deviation ``share * own + (1 - share) * partner's``."""
    mean = features_nchw.mean(dim=(2, 3), keepdim=True)
    deviation = (features_nchw.var(dim=(2, 3), keepdim=True, unbiased=False) + 1e-6).sqrt()
    share = share_n.view(-1, 1, 1, 1)
    new_mean = share * mean + (1 - share) * mean[partner_n]
    gain = (share + (1 - share) * deviation[partner_n] / deviation).clamp(max=4.0)
    return (features_nchw - mean) * gain + new_mean
