"""A small DPT-Hybrid: EfficientNet-Lite0 stem, a few transformer blocks, DPT's decoder.

Like DPT-Hybrid (Ranftl 2021, section 4.1) the shallow levels come from the stem and the deepest
from a transformer over the stem's last map; :mod:`dense_perception.nets.lite` has both.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from dense_perception.core.errors import InputError
from dense_perception.nets.decoder import FusionDecoder, Reassemble, upsample_bilinear
from dense_perception.nets.efficientnet_lite import CHANNELS
from dense_perception.nets.lite import LiteConfig, LiteNetwork


@dataclass(frozen=True)
class DPTLiteConfig(LiteConfig):
    """The decoder's hyperparameters beside the encoder's.

    :param features: channels of the fusion.
    :param head_features: channels of the head's two hidden layers.
    """

    features: int = 40
    head_features: tuple[int, ...] = (24, 16)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.head_features) != 2:
            raise InputError(f"head_features are {list(self.head_features)}, expected two numbers")


class DPTLite(LiteNetwork):
    """(N, 3, H, W) normalised RGB and (N,) focal lengths in pixels to metric depth.

    H and W are multiples of 32.
    """

    needs_focal = True

    def __init__(self, config: DPTLiteConfig) -> None:
        super().__init__(config)
        self.config = config
        self.reassemble = Reassemble(config.dim, config.dim, 1.0, readout=None)
        self.decoder = FusionDecoder(
            (*CHANNELS[:-1], config.dim),
            config.features,
            upsample_last=False,
            align_corners=False,
        )
        first, second = config.head_features
        self.head_conv1 = nn.Conv2d(config.features, first, 3, padding=1)
        self.head_conv2 = nn.Conv2d(first, second, 3, padding=1)
        self.head_conv3 = nn.Conv2d(second, 1, 1)
        self._initialise_decoder()

    def _initialise_decoder(self) -> None:
        for part in (self.decoder, self.head_conv1, self.head_conv2):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
        # One canonical depth everywhere, with small differences.
        self.start_at_two_metres(self.head_conv3.bias)
        nn.init.normal_(self.head_conv3.weight, std=0.01)

    def canonical(self, image_nchw: Tensor) -> Tensor:
        """Natural logarithm of the canonical depth, (N, H, W): what the losses compare.

        ``log depth_m = canonical + log(focal_px / width)``, without the final clamp.

        :raises InputError: if H or W is not a multiple of 32.
        """
        shallow, tokens_bnc, grid_hw = self.encode(image_nchw)
        fused_bchw = self.decoder([*shallow, self.reassemble(tokens_bnc, grid_hw)])
        x_bchw = upsample_bilinear(F.relu(self.head_conv1(fused_bchw)))
        x_b1hw = self.head_conv3(F.relu(self.head_conv2(x_bchw)))
        # Bounded before the last upsampling: a quarter of the sigmoids, and still bounded after.
        return upsample_bilinear(self.log_canonical(x_b1hw)).squeeze(1)

    def maps(self, image_nchw: Tensor) -> dict[str, Tensor]:
        """What the losses compare: ``depth`` as :meth:`canonical` gives it."""
        return {"depth": self.canonical(image_nchw)}

    def forward(self, image_nchw: Tensor, focal_px: Tensor) -> dict[str, Tensor]:
        """``{"depth": (N, H, W) metres}`` within [min_m, max_m].

        :param focal_px: float32 (N,), focal length in pixels at this image's size.
        """
        return {"depth": self.metres(self.canonical(image_nchw), focal_px, image_nchw.shape[-1])}
