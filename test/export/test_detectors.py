"""Detectors become files: lists, masks and ids are those of PyTorch in every runtime."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from dense_perception.backends.nvidia.build import TensorRtOptions, build_engine
from dense_perception.backends.onnxruntime import OnnxRuntimeBackend
from dense_perception.backends.openvino import OpenVinoBackend
from dense_perception.core.card import ModelCard
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.reference_frames import reference_feeds
from dense_perception.export.graph_file import write_onnx
from dense_perception.export.model_folder import FolderMaker, Plan, write_model
from dense_perception.export.onnx_graph import to_onnx, torch_outputs
from dense_perception.nets.detection.detector import DetectorConfig, find
from dense_perception.nets.detection.mask_rcnn import with_masks
from test.export.conftest import runtimes
from test.support.randomise import randomise
from test.support.tensorrt8 import keeps_the_rules_of_tensorrt8
from test.support.tiny_detectors import COUNT, DETECTORS, Strided, detector, detector_card

# What decides that nothing is found: the class logits' bias.
_CLASS_BIAS = {
    "mask_rcnn": ("box_heads.0.classify.bias",),
    "cascade_mask_rcnn": tuple(f"box_heads.{stage}.classify.bias" for stage in range(3)),
    "atss": ("head.classify.bias",),
    "gfl": ("head.classify.bias",),
}
MOST = 100
# The others have the same operators, several times over.
FULL = os.environ.get("DENSE_PERCEPTION_ENDURANCE") == "full"


@pytest.fixture
def exported(
    request: pytest.FixtureRequest, made_once: Callable[..., Path]
) -> tuple[str, nn.Module, Path]:
    """Mask R-CNN is whole; the others' parts are looked at behind a few convolutions."""
    name = request.param
    network = detector(name)
    if name != "mask_rcnn":
        network.backbone = Strided(8).eval()
        randomise(network)

    def write(folder: Path) -> None:
        write_onnx(to_onnx(network, detector_card(name)), folder / "network.onnx")

    return name, network, made_once(f"detector_{name}", write) / "network.onnx"


def compare(network: nn.Module, name: str, path: Path, *batches: int) -> dict[str, np.ndarray]:
    """What eager PyTorch says of the last batch, after both runtimes have said the same of all.

    Each loads the file once, which takes seconds.
    """
    generator = np.random.default_rng(0)
    images_nhwc = generator.integers(0, 256, (max(batches), 64, 96, 3), np.uint8)
    every = torch_outputs(network, detector_card(name), {"image": images_nhwc})
    for runtime in (OnnxRuntimeBackend, OpenVinoBackend):
        backend = runtime(OnnxFile.read(path))
        for frames in batches:
            got = backend.infer({"image": images_nhwc[:frames]})
            want = {output: array[:frames] for output, array in every.items()}
            assert set(got) == set(want)
            assert np.abs(got["boxes"] - want["boxes"]).max() <= 1e-4 * 96
            assert np.abs(got["box_scores"] - want["box_scores"]).max() <= 1e-4
            assert np.array_equal(got["box_classes"], want["box_classes"])
            if "masks" in want:
                apart = np.abs(got["masks"].astype(int) - want["masks"])
                assert apart.max() <= 1  # of 255, by rounding
                assert (got["instance_ids"] != want["instance_ids"]).mean() <= 2e-3
        backend.close()
    return want


@pytest.mark.slow
@pytest.mark.parametrize("exported", DETECTORS, indirect=True)
def test_every_runtime_says_what_pytorch_says(
    exported: tuple[str, nn.Module, Path], tmp_path: Path
) -> None:
    name, network, path = exported
    want = compare(network, name, path, 1, 4)
    assert (want["box_scores"] > 0).sum(axis=1).max() == COUNT
    model = onnx.load(path)
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), np.uint8)
    keeps_the_rules_of_tensorrt8(model, {"image": image}, ties=2e-3)
    with torch.no_grad():
        for key in _CLASS_BIAS[name]:
            bias = dict(network.named_parameters())[key]
            bias[:5] = -100.0
            stored = next(t for t in model.graph.initializer if t.name.endswith(key))
            stored.CopyFrom(numpy_helper.from_array(bias.detach().numpy(), stored.name))
    onnx.save(model, tmp_path / "nothing.onnx")
    nothing = compare(network, name, tmp_path / "nothing.onnx", 1)
    assert all(not array.any() for array in nothing.values())
    # A free batch of one with regions and of one without; it takes twice as long to build.
    options = TensorRtOptions(
        compute_capability="8.9", max_batch=2 if name in ("mask_rcnn", "gfl") else 1
    )
    assert len(build_engine(path, options)) > 1000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("exported", DETECTORS if FULL else ["mask_rcnn", "gfl"], indirect=True)
def test_coarse_files_of_detectors(exported: tuple[str, nn.Module, Path], tmp_path: Path) -> None:
    """fp16 and int8 are made, judged by the lists and ids, and held against each other."""
    name, _, path = exported
    card = detector_card(name)
    frames = [{"image": image[None]} for image in reference_feeds(card, 3, seed=3)["image"]]

    def begin(maker: FolderMaker) -> None:
        maker.model = onnx.load(path)
        maker.enter(maker.write(maker.model, "fp32"), "fp32")

    plan = Plan(("fp16", "int8"), frames, max_drop=1.0, fp16_drop=1.0)
    done = write_model(card, tmp_path / "out", begin, plan)
    for precision in ("fp16", "int8"):
        record = done.card.provenance["precision"][precision]
        assert 0 <= record["drop"] <= 1
        file = tmp_path / "out" / f"{card.name}_{precision}.onnx"
        assert ModelCard.from_onnx(file).instances == card.instances
        compared = {row.runtime for row in done.rows if row.file == file.name}
        assert compared >= {"onnxruntime", "openvino", "unoptimised"}


class Answer(nn.Module):
    """Suppression, choice and masks alone: candidates by falling score in, a detector's answer."""

    config = DetectorConfig(classes=5, count=MOST, candidates=120)

    def forward(
        self, boxes: Tensor, scores: Tensor, classes: Tensor, masks: Tensor
    ) -> dict[str, Tensor]:
        found = find(boxes, scores, classes, self.config)
        return with_masks(found, masks.flatten(0, 1), (64, 96), 0.5)


def limits() -> tuple[Tensor, ...]:
    """Four frames of 120 candidates: nothing, all side by side, one over all of the picture, and
    a crowd in which many fall."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.zeros(4, 120, 4)
    scores = torch.linspace(0.9, 0.1, 120).repeat(4, 1)
    scores[0] = 0
    y, x = torch.meshgrid(torch.arange(10.0), torch.arange(12.0), indexing="ij")
    corners = torch.stack([x * 8, y * 6.4, x * 8 + 8, y * 6.4 + 6.4], dim=-1).reshape(-1, 4)
    boxes[:2] = corners
    boxes[2, 0] = torch.tensor([0.0, 0, 96, 64])
    scores[2, 1:] = 0
    low = torch.rand(120, 2, generator=generator) * torch.tensor([30.0, 20])
    boxes[3] = torch.cat([low, low + 4 + 20 * torch.rand(120, 2, generator=generator)], dim=1)
    classes = torch.randint(0, 5, (4, 120), generator=generator)
    masks = torch.rand(4, MOST, 7, 7, generator=generator)
    masks[2] = 1
    return boxes, scores, classes, masks


@pytest.mark.filterwarnings("ignore")
def test_answers_at_their_limits(tmp_path: Path) -> None:
    module, given = Answer().eval(), limits()
    want = module(*given)
    used = (want["box_scores"] > 0).sum(dim=1).tolist()
    assert used[:3] == [0, MOST, 1]
    assert 10 < used[3] < MOST
    assert want["boxes"][2, 0].tolist() == [0, 0, 96, 64]
    assert (want["instance_ids"][2, 4:-4, 4:-4] == 1).all()
    assert not any(value[0].any() for value in want.values())
    path, names = tmp_path / "answer.onnx", ["candidates", "scores", "kinds", "shapes"]
    batch = {0: torch.export.Dim("N", min=1, max=64)}
    torch.onnx.export(
        module,
        given,
        path,
        dynamo=True,
        opset_version=18,
        input_names=names,
        output_names=list(want),
        dynamic_shapes=(batch,) * 4,
        verbose=False,
        optimize=False,
    )
    for run in runtimes(path).values():
        for count in (1, 4):
            feeds = {name: each[:count].numpy() for name, each in zip(names, given, strict=True)}
            for (name, value), found in zip(want.items(), run(feeds), strict=True):
                apart = np.abs(found.astype(np.float64) - value[:count].numpy())
                if name == "instance_ids":  # a mask may be one half to the last digit
                    assert (apart > 0).mean() <= 2e-3
                else:
                    assert apart.max() <= 1e-4 * (96 if name == "boxes" else 1), name
