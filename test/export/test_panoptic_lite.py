"""The network of things and depth leaves PyTorch as it is, and answers a camera's frames.

Its maps come from one convolution here: the small MulT's own export has its test.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from dense_perception.backends.nvidia.build import TensorRtOptions, build_engine
from dense_perception.core.camera import Frame
from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import DepthSpec, InputSpec, InstancesSpec, SegmentationSpec
from dense_perception.core.errors import CardError
from dense_perception.core.prediction import DepthKind
from dense_perception.core.reference_frames import reference_feeds
from dense_perception.export.onnx_graph import to_onnx, torch_outputs
from dense_perception.export.package import export_model
from dense_perception.nets.centres import OFFSET_PX, CentreGrouping
from dense_perception.nets.decoder import upsample_bilinear
from dense_perception.nets.panoptic_lite import PanopticLite, PanopticLiteConfig
from dense_perception.nets.zoo import build
from dense_perception.runtime.perceiver import Perceiver
from test.export.conftest import runtimes
from test.nets.test_panoptic_lite import COUNT, SMALL
from test.support.tensorrt8 import keeps_the_rules_of_tensorrt8

NAMES = ("wall", "chair", "floor", "table", "person")
CARD = ModelCard(
    name="rooms",
    family="panoptic",
    variant="lite0",
    task="multitask",
    summary="Things and depth.",
    input=InputSpec(64, 96, focal=True),
    depth=DepthSpec(DepthKind.METRIC, 0.1, 20.0),
    segmentation=SegmentationSpec("own", names=NAMES),
    instances=InstancesSpec("own", COUNT, panoptic=True, names=("chair", "table", "person")),
    network={**SMALL, "mean": [0.5] * 3, "std": [0.5] * 3},
)


class Shallow(PanopticLite):
    def __init__(self, config: PanopticLiteConfig) -> None:
        super().__init__(config)
        self.only = nn.Conv2d(3, config.classes + 4, 4, 2, 1)
        nn.init.normal_(self.only.weight, std=0.1)
        # Where a picture is even, every pixel would be a peak, and rounding would choose.
        self.register_buffer("uneven", 0.4 * torch.rand(1, 3, 32, 48))
        self.uneven: Tensor

    def maps(self, image_nchw: Tensor) -> dict[str, Tensor]:
        logits, centres, depth = self.only(image_nchw).split([self.config.classes, 3, 1], dim=1)
        return {
            "segmentation": logits,
            "instances": centres + self.uneven,
            "depth": upsample_bilinear(self.log_canonical(depth)),
        }


@pytest.fixture(scope="module")
def network() -> Shallow:
    torch.manual_seed(0)
    config = build(CARD.network).config
    assert isinstance(config, PanopticLiteConfig)
    return Shallow(config).eval()


@pytest.fixture(scope="module")
def exported(network: Shallow, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both runtimes were held against eager PyTorch on the way, lists by overlap."""
    folder = tmp_path_factory.mktemp("panoptic")
    done = export_model(network, CARD, folder)
    assert {row.runtime for row in done.rows} >= {"onnxruntime", "openvino"}
    return folder / "rooms_fp32.onnx"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("frames", [1, 4])
def test_every_entry_is_what_eager_computes(network: Shallow, exported: Path, frames: int) -> None:
    feeds = reference_feeds(CARD, frames, seed=frames)
    want = torch_outputs(network, CARD, feeds)
    assert (want["box_scores"] > 0).any()
    names = list(want)
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    got = dict(zip(names, session.run(names, feeds), strict=True))
    for name in ("boxes", "box_scores", "box_classes", "depth"):
        np.testing.assert_allclose(got[name], want[name], rtol=1e-4, atol=1e-4)
    for name in ("instance_ids", "labels"):
        assert (got[name] != want[name]).mean() < 1e-3, name


def test_nothing_is_found_below_the_threshold(network: Shallow) -> None:
    config = replace(network.config, threshold=0.999)
    strict = Shallow(config).eval()
    answer = torch_outputs(strict, CARD, reference_feeds(CARD, 2))
    for name in ("boxes", "box_scores", "box_classes", "instance_ids"):
        assert not answer[name].any(), name


@pytest.mark.filterwarnings("ignore")
def test_grouping_in_a_graph_at_its_limits(tmp_path: Path) -> None:
    """Nothing, a hundred things, one over all borders, and chance, in ONNX Runtime and OpenVINO."""
    grouping = CentreGrouping(len(NAMES), (0, 2), 100, 0.3, 4).eval()
    generator = torch.Generator().manual_seed(2)
    logits = torch.zeros(4, len(NAMES), 60, 80)
    centres = torch.zeros(4, 3, 60, 80)
    logits[0, 0] = 9.0
    rows, columns = torch.meshgrid(torch.arange(60), torch.arange(80), indexing="ij")
    # A hundred things of 6 x 8 pixels, which point to their centres; then one of 60 x 80.
    for frame, (height, width) in ((1, (6, 8)), (2, (60, 80))):
        logits[frame, 3] = 9.0
        middles = rows // height * height + height // 2, columns // width * width + width // 2
        # Heights of their own, so that nothing depends on how a runtime orders equal ones.
        centres[frame, 0] = (
            (0.9 - 1e-4 * (80 * rows + columns)) * (rows == middles[0]) * (columns == middles[1])
        )
        for axis, (middle, at) in enumerate(zip(middles, (rows, columns), strict=True)):
            centres[frame, 1 + axis] = (middle - at) * 2 / OFFSET_PX
    logits[3] = 3 * torch.randn(logits[3].shape, generator=generator)
    centres[3, 0] = torch.rand(60, 80, generator=generator)
    centres[3, 1:] = torch.randn(2, 60, 80, generator=generator)
    want = grouping(logits, centres, 2)
    assert [int((row > 0).sum()) for row in want.scores][:3] == [0, 100, 1]
    assert want.boxes[2, 0].tolist() == [0, 0, 160, 120]
    path = tmp_path / "grouping.onnx"
    batch = {0: torch.export.Dim("N", min=1, max=64)}
    torch.onnx.export(
        grouping,
        (logits, centres, 2),
        path,
        dynamo=True,
        opset_version=18,
        input_names=["logits", "centres"],
        output_names=list(want._fields),
        dynamic_shapes=(batch, batch, None),
        verbose=False,
    )
    for run in runtimes(path).values():
        for count in (1, 4):
            got = run({"logits": logits[:count].numpy(), "centres": centres[:count].numpy()})
            for name, value, expected in zip(want._fields, got, want, strict=True):
                np.testing.assert_allclose(value, expected[:count], atol=1e-4, err_msg=name)


def test_a_frame_gets_its_things_in_its_own_pixels(exported: Path) -> None:
    rng = np.random.default_rng(1)
    frame = Frame(rng.integers(0, 256, (128, 192, 3)).astype(np.uint8))
    with Perceiver.load(exported, backend="onnxruntime") as perceiver:
        (answer,) = perceiver.perceive([frame])
    assert answer.instances is not None
    assert answer.labels is not None
    ids_hw = answer.instances.ids_hw
    assert ids_hw is not None
    assert ids_hw.shape == answer.labels.values_hw.shape == (128, 192)
    for row, label in enumerate(answer.instances.classes_n):
        inside = ids_hw == row + 1
        name = answer.instances.labels.labels[label]
        assert (answer.labels.values_hw[inside] == NAMES.index(name)).all()


def test_masks_that_a_network_does_not_give_are_refused(network: Shallow) -> None:
    assert CARD.instances is not None
    masked = replace(CARD, instances=replace(CARD.instances, panoptic=False, masks=True))
    with pytest.raises(CardError, match="masks is true, the network gives"):
        to_onnx(network, masked)


def test_tensorrt_8_gets_what_it_reads(exported: Path) -> None:
    feeds = reference_feeds(CARD, 1)
    keeps_the_rules_of_tensorrt8(onnx.load(exported), feeds, ties=2e-3)


def test_tensorrt_for_rtx_builds_it(exported: Path) -> None:
    engine = build_engine(exported, TensorRtOptions(compute_capability="8.9", max_batch=2))
    assert len(engine) > 1000
