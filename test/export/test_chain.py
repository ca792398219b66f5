"""The whole chain for each family: checkpoint, network, ONNX with the card inside, perceiver."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import yaml

from dense_perception import cli
from dense_perception.backends.nvidia.build import TensorRtOptions, build_engine
from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import CheckpointSource, InputSpec
from dense_perception.core.difference import Difference
from dense_perception.core.errors import ArtefactError, CardError, ModelNotFoundError
from dense_perception.core.labels import LABEL_SETS
from dense_perception.core.registry import checkpoint_path, exported_dir, find_model
from dense_perception.export import package
from dense_perception.export.compare import card_feeds, compare_runtimes
from dense_perception.export.graph_file import embed_card, write_onnx
from dense_perception.export.model_folder import allowed
from dense_perception.export.onnx_graph import to_onnx, torch_outputs
from dense_perception.imaging.resize import views
from dense_perception.nets.networks import published_network
from dense_perception.nets.sliding_window import averaged_probabilities
from dense_perception.runtime.perceiver import Perceiver
from test.export.conftest import Exported
from test.support.tiny_families import FAMILIES, prepared


def graph_under(card: ModelCard, path: Path) -> onnx.ModelProto:
    """The graph of another card of the same network, which the exporter would make again."""
    model = onnx.load(path)
    embed_card(model, card)
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_checkpoint_to_answer(name: str, exported_family: Callable[[str], Exported]) -> None:
    card, module, path = exported_family(name)
    feeds = card_feeds(card)
    want = torch_outputs(module, card, feeds)
    main = "depth" if card.depth is not None else "confidence"
    assert float(np.ptp(want[main].astype(np.float64))) > 0.01
    for runtime, difference in compare_runtimes(path, want, card).items():
        assert difference.max_of_range <= 1e-4, runtime
    # Nothing that TensorRT miscompiles (GridSample) or that only resizes a constant is left.
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert "GridSample" not in kinds

    with Perceiver.load(path, backend="onnxruntime", output_size="network") as perceiver:
        for index, rgb_hwc in enumerate(feeds["image"]):
            answer = perceiver(rgb_hwc)
            if card.depth is not None:
                assert answer.depth is not None
                assert answer.labels is None
                np.testing.assert_allclose(
                    answer.depth.values_hw, want["depth"][index], rtol=1e-4, atol=1e-4
                )
            else:
                assert answer.depth is None
                assert answer.labels is not None
                assert answer.labels.labels is LABEL_SETS["cityscapes"]
                same = answer.labels.values_hw == want["labels"][index]
                assert same.mean() > 0.999
                assert np.unique(answer.labels.values_hw).size > 1
                distance = np.abs(
                    answer.labels.confidence_hw.astype(int) - want["confidence"][index]
                )
                assert distance.max() <= 1


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_compiles_with_tensorrt(
    name: str, exported_family: Callable[[str], Exported]
) -> None:
    """By the builder of TensorRT for RTX, which needs no GPU."""
    _, _, path = exported_family(name)
    assert len(build_engine(path, TensorRtOptions(compute_capability="8.6", max_batch=2))) > 10_000


def test_labels_are_the_argmax_of_the_softmax(tmp_path: Path) -> None:
    card, module = prepared("dpt_segmentation", tmp_path)
    feeds = card_feeds(card)
    image = torch.from_numpy(feeds["image"]).double().permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        probabilities = torch.softmax(module.double()((image - 0.5) / 0.5)["logits"], dim=1)
    best, labels = probabilities.max(dim=1)
    got = torch_outputs(module.float(), card, feeds)
    assert (got["labels"] == labels.numpy()).mean() > 0.999
    assert np.abs(got["confidence"] - best.numpy() * 255).max() < 0.51


def test_a_card_of_other_labels_is_refused(tmp_path: Path) -> None:
    card, module = prepared("dpt_segmentation", tmp_path)
    data = card.to_dict()
    data["segmentation"]["labels"] = "ade20k"
    with pytest.raises(CardError, match="labels ade20k are 150 classes, the network has 19"):
        to_onnx(module, ModelCard.from_dict(data, "test"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "multiple", "resize", "dtype"),
    [("depth_anything", 14, "lower_bound", "uint8"), ("dpt_hybrid", 32, "minimal", "float32")],
)
def test_one_file_answers_as_the_network_at_every_size(
    name: str,
    multiple: int,
    resize: str,
    dtype: str,
    exported_family: Callable[..., Exported],
) -> None:
    """Positions included: they are resized within the graph."""
    rule = {"resize": resize, "multiple": multiple, "interpolation": "cubic", "dtype": dtype}
    card, module, path = exported_family(name, **rule)
    spec = card.input
    # The stored grid, another aspect, and twice the size.
    sizes = [(spec.width, spec.height), (3 * multiple, 5 * multiple), (10 * multiple, 6 * multiple)]
    for width, height in sizes:
        feeds = card_feeds(replace(card, input=replace(spec, width=width, height=height)))
        want = torch_outputs(module, card, feeds)
        assert want["depth"].shape[1:] == (height, width)
        assert np.ptp(want["depth"]) > 0.01
        for runtime, difference in compare_runtimes(path, want, card, feeds).items():
            assert difference.max_of_range <= 1e-4, (runtime, width, height)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scores"), [("segmenter", 16), ("upernet", 4)])
def test_windows_give_the_labels_of_pytorch(name: str, scores: int, tmp_path: Path) -> None:
    card, module = prepared(name, tmp_path)
    spec = InputSpec(64, 64, "windows", interpolation="linear", short_side=64, long_side=256)
    if name == "upernet":
        spec = replace(spec, multiple=32)
    labelled = replace(card.segmentation, window=64, stride=40, scores=scores)
    card = replace(card, input=spec, segmentation=labelled)
    path = tmp_path / "windows.onnx"
    write_onnx(to_onnx(module, card), path)
    picture = card_feeds(replace(card, input=InputSpec(96, 160)))["image"][0]
    (view,) = views(picture, card, (1.0,))
    image = (torch.from_numpy(view).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
    want = averaged_probabilities(module, [image], (96, 160), window=64, stride=40)[0].argmax(0)
    assert want.unique().numel() > 1
    for runtime in ("onnxruntime", "openvino"):
        with Perceiver.load(path, backend=runtime) as perceiver:
            labels = perceiver(picture).labels
        assert labels is not None
        assert (labels.values_hw == want.numpy()).mean() > 0.999


def test_labels_at_the_frame_size(exported_family: Callable[[str], Exported]) -> None:
    card, _, path = exported_family("dpt_segmentation")
    rgb_hwc = card_feeds(card)["image"][0].repeat(2, axis=0).repeat(2, axis=1)
    with Perceiver.load(path, backend="onnxruntime") as perceiver:
        answer = perceiver(rgb_hwc)
        assert answer.labels is not None
        assert answer.labels.values_hw.shape == rgb_hwc.shape[:2]
        assert answer.labels.colored().shape == rgb_hwc.shape
    with Perceiver.load(path, backend="onnxruntime", output_size="network") as perceiver:
        small = perceiver(rgb_hwc)
    assert small.labels is not None
    # Twice the size by the nearest pixel is each pixel twice.
    doubled = small.labels.values_hw.repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_array_equal(answer.labels.values_hw, doubled)


def test_published_weights_become_a_model_that_is_found_by_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    exported_family: Callable[..., Exported],
) -> None:
    card, _ = prepared("depth_anything", tmp_path)
    rule = {"resize": "lower_bound", "multiple": 14, "interpolation": "cubic"}
    monkeypatch.setattr(
        package,
        "to_onnx",
        lambda network, wanted, on_step: (
            graph_under(wanted, exported_family("depth_anything", **rule).path)
            if wanted.input.free
            else to_onnx(network, wanted, on_step)
        ),
    )
    digest = hashlib.sha256((tmp_path / "checkpoint.pth").read_bytes()).hexdigest()
    source = CheckpointSource("https://example.org/weights.pth", "weights.pth", digest[:8])
    card = replace(
        card,
        source=source,
        input=replace(card.input, **rule, restore="corners"),  # type: ignore[arg-type]
    )
    models = tmp_path / "models"
    models.mkdir()
    (models / f"{card.name}.yaml").write_text(yaml.safe_dump(card.to_dict()))
    monkeypatch.setenv("DENSE_PERCEPTION_MODELS", str(models))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(ModelNotFoundError, match=f"dense-perception get {card.name}"):
        find_model(card.name)
    with pytest.raises(ArtefactError, match=r"not on this machine; run .dense-perception fetch"):
        published_network(card)
    place = checkpoint_path(card)
    assert place is not None
    place.parent.mkdir(parents=True)
    place.write_bytes(b"something else")
    with pytest.raises(ArtefactError, match=f"wants {digest[:8]}"):
        published_network(card)
    shutil.copy(tmp_path / "checkpoint.pth", place)
    _, _, report = published_network(card)
    assert report.layout == "Depth Anything V2"
    assert cli.main(["export", card.name, "--quiet"]) == 0
    model = find_model(card.name)
    assert model.source == exported_dir() / f"{card.name}.yaml"
    _, embedded = model.artefact("fp32")
    assert embedded.provenance["checkpoint_sha256"] == digest
    with Perceiver.load(card.name, backend="onnxruntime") as perceiver:
        answer = perceiver(card_feeds(card)["image"][0])
        assert answer.depth is not None
        assert np.isfinite(answer.depth.metres()).all()
    # Another size, as the published preprocessing has it for another aspect.
    words = ["export", card.name, "--quiet", "--size", "98x70", "--output", str(tmp_path / "wide")]
    assert cli.main(words) == 0
    with Perceiver.load(
        tmp_path / f"wide/{card.name}_98x70.yaml", backend="onnxruntime", output_size="network"
    ) as perceiver:
        assert perceiver.card.cost.get("gflops") is None
        answer = perceiver(np.zeros((70, 98, 3), np.uint8))
        assert answer.depth is not None
        assert answer.depth.values_hw.shape == (70, 98)
    assert cli.main([*words[:3], "--size", "99x70", "--output", str(tmp_path / "odd")]) == 2
    # The default takes every aspect: in the cache the two do not collide.
    assert not (exported_dir() / f"{card.name}_98x70.yaml").exists()
    with Perceiver.load(card.name, backend="onnxruntime", output_size="network") as perceiver:
        answer = perceiver(np.zeros((120, 160, 3), np.uint8))
        assert (answer.width, answer.height) == (70, 56)


def test_own_weights_of_a_published_network_need_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, module = prepared("segmenter", tmp_path)
    card = replace(
        card,
        source=CheckpointSource("https://example.org/weights.pth", "weights.pth", "01234567"),
        results={"miou_percent": 45.3},
    )
    models = tmp_path / "models"
    models.mkdir()
    (models / f"{card.name}.yaml").write_text(yaml.safe_dump(card.to_dict()))
    monkeypatch.setenv("DENSE_PERCEPTION_MODELS", str(models))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.mul_(1.01)
    mine = tmp_path / "mine.pth"
    torch.save(FAMILIES["segmenter"]["layout"](module), mine)
    words = ["export", card.name, "--quiet", "--weights", str(mine)]
    assert cli.main([*words, "--name", "My Model"]) == 2
    assert cli.main([*words, "--name", "my_model"]) == 0
    _, embedded = find_model("my_model").artefact("fp32")
    assert embedded.name == "my_model"
    assert embedded.source is None
    assert not embedded.results
    digest = hashlib.sha256(mine.read_bytes()).hexdigest()
    assert embedded.provenance["checkpoint_sha256"] == digest
    assert embedded.provenance["fine_tuned_from"] == card.name
    # The published card is what it was, and still asks for its own weights.
    with pytest.raises(ModelNotFoundError, match=f"dense-perception get {card.name}"):
        find_model(card.name)


def test_a_difference_without_a_measure_allows_nothing_more() -> None:
    """One value all over has no range; the card must stay readable, and as strict as before."""
    seen = [Difference(0.04, 0.004), Difference(float("inf"), float("inf"))]
    assert allowed(seen, "int8") == allowed(seen[:1], "int8")
