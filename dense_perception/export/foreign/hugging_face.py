"""What a folder of the Hugging Face hub says about the ONNX file in it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from dense_perception.core.errors import DensePerceptionError, InputError
from dense_perception.core.printable import short
from dense_perception.core.storage import read_file
from dense_perception.core.strict import json_value
from dense_perception.export.foreign.file_kinds import other_kind
from dense_perception.export.foreign.labels import names_of
from dense_perception.export.foreign.recipe import HALVES, IMAGENET, Facts, Triple

_MOST_BYTES = 4 << 20
_NOTHING = Facts()
_CONFIG, _PROCESSOR = "config.json", "preprocessor_config.json"
# What transformers' image processors do where their file does not say.
_HALVED = ("DPT", "BEiT", "Beit", "ZoeDepth", "GLPN")
_DEPTH_KINDS = {"zoedepth": "metric", "glpn": "metric"}
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*.pt", "*.pth")
_BILINEAR, _BICUBIC = 2, 3
_OTHERS = {*(".tflite", ".pb", ".xml", ".ort", ".engine", ".h5", ".keras", ".zip", ".gz", ".tar")}
_LOOKED_AT = 200
"""Files of a folder that has no network, to say what it has."""


def onnx_file_of(folder: Path) -> Path:
    """The ONNX file that a folder is imported from: ``model.onnx``, or the only one.

    :raises InputError: if there is none, saying what to do with the weights that are, or several
        and none is called ``model.onnx``.
    """
    for path in (folder / "onnx" / "model.onnx", folder / "model.onnx"):
        if path.is_file():
            return path
    found = sorted([*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")])
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(str(path.relative_to(folder)) for path in found[:6])
        raise InputError(f"{folder} holds {names}: name one of these files")
    weights = sorted(path.name for pattern in _WEIGHTS for path in folder.glob(pattern))
    if not weights:
        what = _other_network(folder)
        raise InputError(
            f"{folder} holds no ONNX file{what}: give one, or a folder with onnx/model.onnx in it"
        )
    name = _own_network(_entries(folder / _CONFIG))
    if name:
        raise InputError(
            f"{folder} holds weights of a network that this package has, and no ONNX file: run "
            f"`dense-perception export {name} --weights {folder / weights[0]} --name my_model`"
        )
    raise InputError(
        f"{folder} holds weights ({', '.join(weights[:3])}) and no ONNX file: make one first, "
        "with `optimum-cli export onnx` or torch.onnx.export"
    )


def _other_network(folder: Path) -> str:
    """What the folder holds in place of an ONNX file, as the end of a sentence."""
    for path in sorted(folder.iterdir())[:_LOOKED_AT]:
        if path.suffix.lower() in _OTHERS and path.is_file() and (kind := other_kind(path)):
            what, cure = kind
            return f", but {path.name}, which is {what} ({cure})"
    return ""


def folder_facts(path: Path, said: Facts = _NOTHING) -> Facts:
    """What the files beside an ONNX file, or above its ``onnx`` folder, say; nothing if none do.

    ``said`` are stronger facts: an entry that they have is not read here, however odd it is.

    :raises InputError: if a file is not whole, or an entry is of another kind than expected.
    """
    folder = next((f for f in (path.parent, path.parent.parent) if (f / _CONFIG).is_file()), None)
    if folder is None or (folder != path.parent and path.parent.name != "onnx"):
        return Facts()
    config = _entries(folder / _CONFIG)
    processor = _entries(folder / _PROCESSOR)
    reasons: dict[str, str] = {}
    values: dict[str, object] = {}
    for known, file in (
        (_model(config, said), _CONFIG),
        (_pictures(processor, config, said), _PROCESSOR),
    ):
        for entry, (value, why) in known.items():
            values[entry] = value
            reasons[entry] = f"{file}: {why}"
    licence = _licence(folder / "README.md")
    if licence:
        values["licence"] = licence
        reasons["licence"] = f"README.md: license: {licence}"
    values["name"] = folder.resolve().name
    return Facts(**values, reasons=reasons)  # type: ignore[arg-type]


Known = dict[str, tuple[object, str]]


def _model(config: Mapping[str, object], said: Facts) -> Known:
    """Task, meaning of the output, labels."""
    known: Known = {}
    kind = _text(config.get("model_type"))
    architecture = _text(next(iter(_list(config.get("architectures"))), ""))
    if kind:
        known["family"] = kind, f"model_type {kind}"
    if "DepthEstimation" in architecture:
        known["task"] = "depth", architecture
        known |= _depth(config, kind, architecture)
    elif any(word in architecture for word in ("Segmentation", "MaskFormer", "Mask2Former")):
        known["task"] = "segmentation", architecture
        labels = config.get("id2label")
        if labels and said.labels is None:
            try:
                names = names_of(labels)
            except InputError as error:
                why = f"id2label of {_CONFIG}: {error}, or give --labels FILE"
                raise InputError(why) from error
            if not names:
                raise InputError(
                    f"id2label of {_CONFIG} is {short(labels)}, expected numbers with names: give "
                    "--labels FILE"
                )
            known["labels"] = names, f"id2label has {len(names)}"
    return known


def _depth(config: Mapping[str, object], kind: str, architecture: str) -> Known:
    known: Known = {}
    if kind == "depth_anything":
        metric = _text(config.get("depth_estimation_type")) == "metric"
        what = "metric" if metric else "relative"
        known["depth_kind"] = (
            "metric" if metric else "relative_inverse",
            f"{architecture}, depth_estimation_type {what}",
        )
    elif kind == "dpt" and not config.get("backbone_config"):
        known["depth_kind"] = "relative_inverse", f"{architecture} of a ViT is MiDaS'"
    elif kind == "dpt" and config.get("is_hybrid"):
        known["depth_kind"] = "relative_inverse", f"{architecture}, hybrid, is MiDaS'"
    elif kind in _DEPTH_KINDS:
        known["depth_kind"] = _DEPTH_KINDS[kind], architecture
    most = config.get("max_depth")
    metric = known.get("depth_kind", ("", ""))[0] == "metric"
    if metric and isinstance(most, (int, float)) and 0 < most < 1e6:
        known["depth_range"] = (1e-3, float(most)), f"max_depth {most:g}"
    known["restore"] = "cubic", "transformers resizes depth so"
    return known


def _pictures(processor: Mapping[str, object], config: Mapping[str, object], said: Facts) -> Known:
    """Size, interpolation, range, mean and std."""
    known: Known = {}
    side = config.get("image_size")
    if type(side) is int and 16 <= side <= 8192:
        known["size"] = (side, side), f"image_size {side} of {_CONFIG}"
    if not processor:
        return known
    kind = _text(processor.get("image_processor_type") or processor.get("feature_extractor_type"))
    keeps = processor.get("keep_aspect_ratio") is True
    if _flag(processor, "do_resize"):
        known |= _size(processor.get("size"), said)
        multiple = processor.get("ensure_multiple_of") or processor.get("size_divisor")
        resample = processor.get("resample", _BILINEAR)
        if keeps:
            known["resize"] = "minimal", "keep_aspect_ratio"
            known["interpolation"] = (
                "cubic" if resample == _BICUBIC else "linear",
                f"resample {resample}",
            )
        elif known.get("resize", ("",))[0] == "lower_bound":
            known["interpolation"] = "linear", f"resample {resample}"
        else:
            known["resize"] = "stretch", "do_resize to one size"
            known["interpolation"] = (
                "cubic" if resample == _BICUBIC else "area",
                f"resample {resample}, which averages where sides shrink",
            )
        if type(multiple) is int and multiple > 1:
            known["multiple"] = multiple, f"multiples of {multiple}"
    left_out = [step for step in ("do_center_crop", "do_pad") if processor.get(step)]
    if left_out:
        value, why = known.get("resize", ("stretch", "the graph's size"))
        steps = " and ".join(left_out)
        known["resize"] = value, f"{why}; {steps} left out: whole pictures are taken"
    if _flag(processor, "do_rescale"):
        known |= _rescaled(processor.get("rescale_factor", 1 / 255), said)
    else:
        known["pixels"] = "bytes", "do_rescale is false"
    halved = any(kind.startswith(each) for each in _HALVED)
    usual = HALVES if halved else IMAGENET
    if _flag(processor, "do_normalize"):
        for name, given, guess in (("mean", said.mean, usual[0]), ("std", said.std, usual[1])):
            if given is None:
                known[name] = _triple(processor, name, guess)
    else:
        known["mean"] = (0.0, 0.0, 0.0), "do_normalize is false"
        known["std"] = (1.0, 1.0, 1.0), "do_normalize is false"
    return known


def _rescaled(factor: object, said: Facts) -> Known:
    if said.pixels is not None:
        return {}
    if type(factor) in (int, float):
        for pixels, usual, text in (("unit", 1 / 255, "1/255"), ("signed", 1 / 127.5, "1/127.5")):
            if math.isclose(factor, usual, rel_tol=1e-3):  # type: ignore[arg-type]
                return {"pixels": (pixels, f"rescale_factor {text}")}
    raise InputError(
        f"rescale_factor of {_PROCESSOR} is {short(factor)}, expected 1/255 or 1/127.5: give "
        "--pixels, --mean and --std"
    )


def _size(entry: object, said: Facts) -> Known:
    if entry is None or said.size is not None:
        return {}
    if type(entry) is int:
        return {"size": ((entry, entry), f"size {entry}")}
    if not isinstance(entry, Mapping):
        raise InputError(
            f"size of {_PROCESSOR} is {short(entry)}, expected a number, or height and width: give "
            "--size"
        )
    height, width, short_side = (entry.get(k) for k in ("height", "width", "shortest_edge"))
    if type(height) is int and type(width) is int:
        return {"size": ((width, height), f"size {width}x{height}")}
    if type(short_side) is int:
        why = f"shortest_edge {short_side}"
        return {"size": ((short_side, short_side), why), "resize": ("lower_bound", why)}
    return {}


def _flag(processor: Mapping[str, object], name: str) -> bool:
    """Whether a step is done; it is where nothing says."""
    value = processor.get(name)
    if value is not None and not isinstance(value, bool):
        raise InputError(
            f"{name} of {_PROCESSOR} is {short(value)}, expected true or false: correct it"
        )
    return value is not False


def _triple(processor: Mapping[str, object], name: str, usual: Triple) -> tuple[Triple, str]:
    """``image_mean`` or ``image_std``: three numbers, or one for all colours."""
    value = processor.get(f"image_{name}")
    if value is None:
        return usual, f"no image_{name}, usual for its image processor"
    given = value if isinstance(value, list) else [value] * 3
    least = 1e-6 if name == "std" else -1e6
    numbers = [
        float(each)
        for each in given
        if isinstance(each, (int, float)) and not isinstance(each, bool) and least <= each <= 1e6
    ]
    if not len(numbers) == len(given) == 3:
        raise InputError(
            f"image_{name} of {_PROCESSOR} is {short(value)}, expected three numbers from "
            f"{least:g} to 1e+06: give --{name}"
        )
    return (numbers[0], numbers[1], numbers[2]), f"image_{name}"


def _own_network(config: Mapping[str, object]) -> str:
    """The published network of this package that a configuration is of; empty if none."""
    kind, hidden = _text(config.get("model_type")), config.get("hidden_size")
    below = config.get("backbone_config")
    if kind == "depth_anything" and isinstance(below, Mapping):
        size = {384: "small", 768: "base", 1024: "large"}.get(_number(below.get("hidden_size")), "")
        metric = _text(config.get("depth_estimation_type")) == "metric"
        ending = (
            ""
            if not metric
            else "_hypersim"
            if _number(config.get("max_depth")) <= 20
            else ("_vkitti")
        )
        return f"depth_anything_v2_{size}{ending}" if size else ""
    if kind == "dpt":
        architecture = _text(next(iter(_list(config.get("architectures"))), ""))
        size = "hybrid" if config.get("is_hybrid") else "large" if hidden == 1024 else ""
        what = "ade20k" if "Segmentation" in architecture else "midas"
        return f"dpt_{size}_{what}" if size else ""
    return ""


def _licence(readme: Path) -> str:
    """``license`` of the page's front matter."""
    try:
        text = read_file(readme, _MOST_BYTES).decode("utf-8", "replace")
    except DensePerceptionError:
        return ""
    match = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    if match is None:
        return ""
    line = re.search(r"^license:\s*([A-Za-z0-9 .+_-]{2,60})\s*$", match[1], re.MULTILINE)
    return str(yaml.safe_load(line[1])) if line else ""


def _entries(path: Path) -> Mapping[str, object]:
    """A JSON file's entries, nothing where there is none."""
    if not path.is_file():
        return {}
    data = json_value(
        read_file(path, _MOST_BYTES).decode("utf-8", "replace"), str(path), InputError
    )
    if not isinstance(data, Mapping):
        raise InputError(f"{path} holds no entries: download it again")
    return data


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []
