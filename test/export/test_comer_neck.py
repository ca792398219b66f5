"""The last sums of ViT-CoMer in OpenVINO, which fuses a resize with what follows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dense_perception.backends.openvino import openvino_core
from dense_perception.nets.comer import Pyramid
from dense_perception.nets.vit_comer import CoMerNeck

DIM, HEIGHT, WIDTH = 16, 64, 128


class Finish(nn.Module):
    """What a detector reads of the branch: its four maps, behind a convolution each."""

    finish = CoMerNeck.finish

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(DIM, DIM, 2, 2)
        self.norms = nn.ModuleList(nn.BatchNorm2d(DIM) for _ in range(4))
        self.lateral = nn.ModuleList(nn.Conv2d(DIM, 8, 1) for _ in range(4))
        for norm in self.norms:
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.uniform_(norm.bias, -1, 1)

    def forward(
        self, finest_bchw: Tensor, tokens_bnc: Tensor, feature_bhwc: Tensor
    ) -> list[Tensor]:
        features = [feature_bhwc.permute(0, 3, 1, 2)] * 4
        tokens_bnc = torch.relu(tokens_bnc)
        maps = self.finish(finest_bchw, tokens_bnc, features, Pyramid(HEIGHT, WIDTH))
        return [conv(each) for conv, each in zip(self.lateral, maps, strict=True)]


def test_the_sums_are_right_where_the_size_is_fixed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Finish().eval()
    rows, columns = HEIGHT // 16, WIDTH // 16
    inputs = {
        "finest": torch.randn(2, DIM, HEIGHT // 4, WIDTH // 4),
        "tokens": torch.randn(2, rows * columns * 21 // 4, DIM),
        "feature": torch.randn(2, rows, columns, DIM),
    }
    path = tmp_path / "finish.onnx"
    with torch.no_grad():
        wanted = [each[:1].numpy() for each in network(*inputs.values())]
        batch = {0: torch.export.Dim("N", min=1, max=8)}
        torch.onnx.export(
            network,
            tuple(inputs.values()),
            path,
            dynamo=True,
            verbose=False,
            opset_version=18,
            input_names=list(inputs),
            dynamic_shapes=(batch, batch, batch),
            external_data=False,
        )
    core = openvino_core()
    model = core.read_model(path)
    one = {name: each[:1].numpy() for name, each in inputs.items()}
    model.reshape({name: list(each.shape) for name, each in one.items()})
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(one)
    for number, want in enumerate(wanted):
        np.testing.assert_allclose(found[number], want, atol=1e-5, err_msg=f"level {number}")
