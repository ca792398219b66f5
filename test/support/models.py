"""A model folder as a user has it: a YAML card beside its ONNX files."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from dense_perception.core.card import ModelCard
from dense_perception.core.card_specs import ModelFile
from test.support.artefacts import red_card, write_red_artefact


def write_model(
    folder: Path, card: ModelCard | None = None, precisions: tuple[str, ...] = ("fp32",)
) -> Path:
    """Write ``NAME.yaml`` and one red artefact per precision; returns the YAML's path."""
    card = card or red_card()
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for precision in precisions:
        path = folder / f"{card.name}_{precision}.onnx"
        write_red_artefact(path, replace(card, precision=precision))
        data = path.read_bytes()
        files[precision] = ModelFile(path.name, hashlib.sha256(data).hexdigest(), len(data))
    described = replace(card, files=files)
    target = folder / f"{card.name}.yaml"
    target.write_text(yaml.safe_dump(described.to_dict()))
    return target


def default_network() -> dict[str, Any]:
    """The ``network`` mapping of the shipped depth model; a fresh copy."""
    path = Path(__file__).parents[2] / "models" / "dpt_tiny_indoor.yaml"
    network: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["network"]
    return network
