"""Find a model by name or path, and trust a file only after its hash agrees with its card."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dense_perception.core.card import ModelCard
from dense_perception.core.errors import ArtefactError, CardError, ModelNotFoundError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.storage import cache_dir, refuse_pointer, user_path, why_untrusted

MODELS_VARIABLE = "DENSE_PERCEPTION_MODELS"
"""Environment variable with folders of models to look in first, separated like PATH."""

_PACKAGE = "dense_perception"
_CHECKPOINTS = (".pt", ".pth", ".ckpt", ".safetensors", ".bin")


@dataclass(frozen=True)
class Model:
    """A model found on this machine: its card and one ONNX file per precision.

    ``files`` are not read yet; :meth:`artefact` checks one before it is used.
    """

    card: ModelCard
    files: Mapping[str, Path]
    source: Path

    @property
    def precisions(self) -> tuple[str, ...]:
        return tuple(self.files)

    @property
    def word(self) -> str:
        """What a user types for it: its name where that finds it, else its path."""
        name = self.card.name
        known = self.source in (list_models().get(name), exported_dir() / f"{name}.yaml")
        return name if known else str(self.source)

    def artefact(self, precision: str) -> tuple[OnnxFile, ModelCard]:
        """The file of one precision, read and checked, and the card inside it.

        :raises ArtefactError: if the file is missing, damaged or not the one the card describes.
        :raises CardError: if there is no such precision, or the two cards disagree.
        """
        path = self.files.get(precision)
        if path is None:
            raise CardError(
                f"model {self.card.name} has no {precision} file, only {', '.join(self.files)}: "
                "choose one of these or export that precision"
            )
        if not path.is_file():
            raise ArtefactError(
                f"the file {path.name} of model {self.card.name} is missing in {path.parent}: "
                "download or export the model again"
            )
        described = self.card.files.get(precision)
        if described is not None:
            refuse_pointer(path)
            size = path.stat().st_size  # says so before a gigabyte of something else is read
            if size != described.bytes:
                raise ArtefactError(
                    f"{path} has {size} bytes, its card says {described.bytes}: the file is cut "
                    "off or another version; get it again"
                )
        file = OnnxFile.read(path)
        if described is not None and file.sha256 != described.sha256:
            raise ArtefactError(
                f"{path} has SHA-256 {file.sha256[:12]}..., its card says "
                f"{described.sha256[:12]}...: the file is damaged or another version; get it again"
            )
        embedded = ModelCard.from_onnx(file)
        for entry in ("name", "input", "depth", "segmentation", "maps", "instances"):
            inside, beside = getattr(embedded, entry), getattr(self.card, entry)
            if inside != beside:
                raise CardError(
                    f"{self.source} says {entry} is {beside}, the card inside {path.name} says "
                    f"{inside}: export the model again so that both agree"
                )
        return file, embedded


def exported_dir() -> Path:
    """Where models go that were exported from fetched checkpoints; not created."""
    return cache_dir() / "models"


def checkpoint_path(card: ModelCard) -> Path | None:
    """Where ``fetch`` puts the published weights of ``card``, not necessarily there; None if none.

    The model's name is a folder of its own: publishers reuse file names.
    """
    if card.source is None:
        return None
    # A card of one fixed size has the weights of the card that it was made from.
    name = re.sub(r"_\d+x\d+$", "", card.name)
    return cache_dir() / "checkpoints" / name / card.source.file


def search_path() -> list[Path]:
    """Existing folders of models, the first of which wins.

    $DENSE_PERCEPTION_MODELS, models exported on this machine, the source checkout, installations.
    """
    folders = [
        Path(entry) for entry in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if entry
    ]
    folders.append(exported_dir())
    folders.append(Path(__file__).resolve().parents[2] / "models")
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    for prefix in [sys.prefix, *filter(None, prefixes)]:
        folders.append(Path(prefix) / "share" / _PACKAGE / "models")
    # A colcon workspace or `pip install --prefix`: .../lib/pythonX.Y/site-packages/<package>.
    for parent in Path(__file__).resolve().parents[2:7]:
        folders.append(parent / "share" / _PACKAGE / "models")
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def list_models() -> dict[str, Path]:
    """Name to card file of every model on the search path; the first folder wins."""
    found: dict[str, Path] = {}
    for folder in search_path():
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def find_model(model: str | Path) -> Model:
    """A model by its name, by its card's path (``.yaml``) or by one file's path (``.onnx``).

    :raises ModelNotFoundError: naming the known models and the closest ones.
    :raises CardError: if the card is malformed or named otherwise than its file.
    :raises ArtefactError: if a given ONNX file cannot be read, or others can write to the
        cache that holds the model.
    """
    text = os.fspath(model)
    if not text.strip():
        raise ModelNotFoundError(
            "no model is named, expected a model's name or the path of an ONNX file: "
            "`dense-perception models` lists the names"
        )
    path = user_path(text)
    if path.suffix in _CHECKPOINTS:
        raise ModelNotFoundError(
            f"{path} is a checkpoint, not an exported model: run `dense-perception export {text} "
            f"--output models` for one trained here, or `dense-perception export NAME --weights "
            f"{text} --name my_model` for weights of a published network, then name that model"
        )
    if path.is_dir() and text not in list_models():
        raise ModelNotFoundError(_folder(path))
    if path.suffix == ".onnx":
        if not path.is_file():
            raise ModelNotFoundError(f"there is no model file {path}: check the path")
        card = ModelCard.from_onnx(path)
        return Model(card, {card.precision: path}, path)
    if path.suffix in (".yaml", ".yml"):
        if not path.exists():
            raise ModelNotFoundError(f"there is no model card {path}: check the path")
        return _from_yaml(path)
    known = list_models()
    if text not in known and path.is_file():
        raise ModelNotFoundError(
            f"{path} is no model that can be loaded: name a model, a .yaml card or an .onnx file; "
            "engines are built from these on the machine that uses them"
        )
    if text not in known:
        raise ModelNotFoundError(_unknown(text, known))
    exported = exported_dir() / f"{text}.yaml"
    if exported.is_file() and not ModelCard.from_yaml(known[text]).files:
        return _from_yaml(exported)
    return _from_yaml(known[text])


def find_card(name: str) -> ModelCard:
    """The card of a known model, whether or not its files are on this machine.

    :raises ModelNotFoundError: naming the known models and the closest ones.
    :raises CardError: if the card is malformed.
    """
    known = list_models()
    if name not in known:
        raise ModelNotFoundError(_unknown(name, known))
    return ModelCard.from_yaml(known[name])


def _from_yaml(path: Path) -> Model:
    untrusted = why_untrusted(path.parent) if path.parent == exported_dir() else ""
    if untrusted:
        raise ArtefactError(
            f"the model {path.stem} in {path.parent} is not used, since others could have changed "
            f"it: {untrusted}; make the folder yours alone (chown, chmod 700) and export it again"
        )
    card = ModelCard.from_yaml(path)
    if card.name != path.stem:
        raise CardError(f"{path} describes the model {card.name!r}: name the file {card.name}.yaml")
    if not card.files and card.source is not None:
        raise ModelNotFoundError(
            f"model {card.name} is known but not on this machine: run `dense-perception get "
            f"{card.name}`"
        )
    if not card.files:
        raise CardError(f"{path} lists no files: export the model, or download its files")
    files = {precision: path.parent / entry.file for precision, entry in card.files.items()}
    return Model(card, files, path)


def _folder(path: Path) -> str:
    """What a folder given as a model holds, and what to name instead."""
    cards = sorted(entry.name for entry in path.glob("*.y*ml"))
    files = sorted(entry.name for entry in path.iterdir() if entry.suffix in _CHECKPOINTS)
    if cards:
        return f"{path} is a folder of models: name one of its cards, {' or '.join(cards[:3])}"
    if files:
        return (
            f"{path} is a folder of weights ({', '.join(files[:3])}): export them first, "
            f"`dense-perception export {path / files[0]} --output models` if trained here, or "
            f"`dense-perception export NAME --weights {path / files[0]} --name my_model`"
        )
    return f"{path} is a folder without a model card: name a model, a .yaml card or an .onnx file"


def _unknown(name: str, known: Mapping[str, Path]) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f", did you mean {' or '.join(close)}?" if close else "."
    if not known:
        folders = ", ".join(_searched())
        return (
            f"there is no model {name!r}: no models were found in {folders}; set {MODELS_VARIABLE}"
        )
    return f"there is no model {name!r}{hint or '.'} Known models: {', '.join(sorted(known))}"


def _searched() -> Iterator[str]:
    yield from map(str, search_path())
    yield f"${MODELS_VARIABLE}"


__all__ = [
    "MODELS_VARIABLE",
    "Model",
    "checkpoint_path",
    "exported_dir",
    "find_card",
    "find_model",
    "list_models",
    "search_path",
]
