"""Finding models, and trusting a file only when everything about it agrees."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dense_perception.core import registry
from dense_perception.core.errors import ArtefactError, CardError, ModelNotFoundError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.registry import find_model, list_models, search_path
from test.support.artefacts import red_card, write_red_artefact
from test.support.models import write_model


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DENSE_PERCEPTION_MODELS", str(tmp_path / "models"))
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)


def test_by_name_by_card_and_by_file(tmp_path: Path) -> None:
    card_path = write_model(tmp_path / "models", precisions=("fp32", "int8"))
    by_name = find_model("red_depth")
    assert by_name.precisions == ("fp32", "int8")
    file, embedded = by_name.artefact("int8")
    assert file.path == tmp_path / "models" / "red_depth_int8.onnx"
    assert embedded.precision == "int8"
    assert find_model(card_path).card == by_name.card
    by_file = find_model(str(file.path))
    assert by_file.precisions == ("int8",)
    assert by_file.artefact("int8")[0] == file


def test_first_folder_wins_and_prefixes_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "a")
    write_model(tmp_path / "b")
    write_model(tmp_path / "b", red_card("only_in_b"))
    write_model(tmp_path / "ament/share/dense_perception/models", red_card("in_prefix"))
    monkeypatch.setenv(
        "DENSE_PERCEPTION_MODELS", os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")])
    )
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'nothing'}{os.pathsep}{tmp_path}/ament")
    models = list_models()
    assert models["red_depth"].parent == tmp_path / "a"
    assert models["only_in_b"].parent == tmp_path / "b"
    assert "in_prefix" in models
    assert tmp_path / "nothing/share/dense_perception/models" not in search_path()


def test_unknown_name_lists_close_and_known_ones(tmp_path: Path) -> None:
    write_model(tmp_path / "models")
    write_model(tmp_path / "models", red_card("other"))
    with pytest.raises(ModelNotFoundError) as caught:
        find_model("red_dept")
    assert "did you mean red_depth" in str(caught.value)
    assert "other" in str(caught.value)


def test_an_empty_name_is_no_folder() -> None:
    with pytest.raises(ModelNotFoundError, match="no model is named, expected a model's name"):
        find_model(" ")


def test_no_models_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "search_path", list)
    with pytest.raises(ModelNotFoundError, match="DENSE_PERCEPTION_MODELS"):
        find_model("anything")


@pytest.mark.parametrize("name", ["missing.onnx", "missing.yaml", "folder/missing.onnx"])
def test_missing_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="missing"):
        find_model(tmp_path / name)


def test_a_name_is_never_a_way_out_of_the_folder(tmp_path: Path) -> None:
    write_model(tmp_path / "elsewhere")
    (tmp_path / "models").mkdir()
    with pytest.raises(ModelNotFoundError):
        find_model("../elsewhere/red_depth")


def test_wrong_size_and_wrong_hash(tmp_path: Path) -> None:
    write_model(tmp_path / "models")
    path = tmp_path / "models" / "red_depth_fp32.onnx"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with pytest.raises(
        ArtefactError, match=rf"{len(whole) - 10} bytes, its card says {len(whole)}"
    ):
        find_model("red_depth").artefact("fp32")
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ArtefactError, match=r"SHA-256.*its card says"):
        find_model("red_depth").artefact("fp32")
    path.unlink()
    with pytest.raises(ArtefactError, match=r"red_depth_fp32\.onnx.*missing"):
        find_model("red_depth").artefact("fp32")


def test_unknown_precision(tmp_path: Path) -> None:
    write_model(tmp_path / "models")
    with pytest.raises(CardError, match="no int8 file, only fp32"):
        find_model("red_depth").artefact("int8")


def test_cards_that_disagree(tmp_path: Path) -> None:
    card_path = write_model(tmp_path / "models")
    data = yaml.safe_load(card_path.read_text())
    data["depth"]["max_m"] = 7.0
    card_path.write_text(yaml.safe_dump(data))
    with pytest.raises(CardError, match=r"says depth is .*7\.0.*the card inside"):
        find_model("red_depth").artefact("fp32")


def test_card_named_otherwise_than_its_file(tmp_path: Path) -> None:
    card_path = write_model(tmp_path / "models")
    shutil.move(card_path, card_path.with_name("blue_depth.yaml"))
    with pytest.raises(CardError, match=r"'red_depth'.*red_depth\.yaml"):
        find_model("blue_depth")


def test_card_without_files(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "red_depth.yaml").write_text(yaml.safe_dump(replace(red_card()).to_dict()))
    with pytest.raises(CardError, match="lists no files"):
        find_model("red_depth")


def test_corrupt_onnx_by_path(tmp_path: Path) -> None:
    path = tmp_path / "half.onnx"
    write_red_artefact(path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ArtefactError, match=r"half\.onnx is not a whole ONNX model"):
        find_model(path)


def test_an_exported_model_that_others_could_have_changed_is_refused() -> None:
    write_model(registry.exported_dir())
    registry.exported_dir().chmod(0o777)
    with pytest.raises(ArtefactError, match=r"others could have changed it: .*chmod 700"):
        find_model("red_depth")
    registry.exported_dir().chmod(0o700)
    assert find_model("red_depth").precisions == ("fp32",)


@pytest.mark.parametrize("place", ["initializer", "attribute", "subgraph"])
def test_weights_in_other_files_are_refused(tmp_path: Path, place: str) -> None:
    import onnx

    path = tmp_path / "red.onnx"
    write_red_artefact(path)
    model = onnx.load(path)
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=1)
    tensor.external_data.add(key="location", value="/etc/passwd")
    if place == "initializer":
        model.graph.initializer.append(tensor)
    else:
        graph = onnx.GraphProto(name="then", initializer=[tensor])
        attribute = onnx.AttributeProto(name="value", type=4, t=tensor)
        if place == "subgraph":
            attribute = onnx.AttributeProto(name="then_branch", type=5, g=graph)
        model.graph.node.add(op_type="Constant", output=["x"]).attribute.append(attribute)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtefactError, match=r"keeps weights in other files .*one whole file"):
        OnnxFile.read(path)


@pytest.mark.parametrize(
    ("data_type", "dims", "size", "fits"),
    [
        ("FLOAT", [2, 3], 24, True),
        ("FLOAT", [2, 3], 23, False),
        ("INT64", [3], 1, False),
        ("INT64", [2**40, 2**40], 8, False),
        ("FLOAT", [-1, 5], 20, False),
        ("INT4", [5], 3, True),
        ("INT4", [5], 2, False),
        ("FLOAT16", [], 2, True),
        ("FLOAT16", [0], 0, True),
    ],
)
def test_a_tensor_has_the_bytes_that_its_shape_wants(
    tmp_path: Path, data_type: str, dims: list[int], size: int, fits: bool
) -> None:
    """ONNX Runtime up to 1.23 ends the process otherwise."""
    import onnx

    path = tmp_path / "red.onnx"
    write_red_artefact(path)
    model = onnx.load(path)
    kind = onnx.TensorProto.DataType.Value(data_type)
    model.graph.initializer.add(name="w", data_type=kind, dims=dims, raw_data=bytes(size))
    path.write_bytes(model.SerializeToString())
    if fits:
        assert OnnxFile.read(path).path == path
    else:
        with pytest.raises(ArtefactError, match=f"a tensor has {size} bytes, its shape wants"):
            OnnxFile.read(path)


def test_a_harmless_mention_of_a_location_is_no_external_data(tmp_path: Path) -> None:
    import onnx

    path = tmp_path / "red.onnx"
    write_red_artefact(path)
    model = onnx.load(path)
    model.metadata_props.add(key="location", value="indoors")
    path.write_bytes(model.SerializeToString())
    assert OnnxFile.read(path).sha256
