"""From fetched weights to a model that runs: checkpoint, network, ONNX file, card beside it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml

from dense_perception.core.card import ModelCard, ModelFile
from dense_perception.core.errors import ArtefactError
from dense_perception.core.files import atomic_write
from dense_perception.core.registry import checkpoint_path, exported_dir, file_sha256
from dense_perception.export.graph import to_onnx, write_onnx
from dense_perception.nets import zoo
from dense_perception.nets.weights import LoadReport, load_checkpoint


def export_published(
    card: ModelCard, checkpoint: Path | None = None, folder: Path | None = None
) -> tuple[Path, LoadReport]:
    """Export ``card``'s model in fp32; returns the new card's path and what was loaded.

    :param checkpoint: published weights; by default where ``fetch`` puts them.
    :param folder: where the ONNX file and its card go; by default where models are looked for.
    :raises ArtefactError: if the checkpoint is missing, is not the card's, or nothing can be
        written.
    :raises CardError: if the card contradicts the network.
    """
    path = checkpoint or checkpoint_path(card)
    if path is None or not path.is_file():
        raise ArtefactError(
            f"the weights of {card.name} are not on this machine: run `dense-perception fetch "
            f"{card.name}` first, or name the checkpoint"
        )
    digest = file_sha256(path)
    if card.source is not None and not digest.startswith(card.source.sha256):
        raise ArtefactError(
            f"{path} has SHA-256 {digest[:12]}..., the card of {card.name} wants "
            f"{card.source.sha256[:12]}...: fetch it again, or correct the card"
        )
    network = zoo.build(card.network).eval()
    report = load_checkpoint(network, path)
    provenance = {**card.provenance, "checkpoint_sha256": digest}
    card = replace(card, precision="fp32", provenance=provenance, files={})
    folder = folder or exported_dir()
    target = folder / f"{card.name}_fp32.onnx"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtefactError(f"cannot write to {folder}: {error.strerror or error}") from error
    write_onnx(to_onnx(network, card), target)
    entry = ModelFile(target.name, file_sha256(target), target.stat().st_size)
    card_path = folder / f"{card.name}.yaml"
    text = yaml.safe_dump(replace(card, files={"fp32": entry}).to_dict(), sort_keys=False)
    with atomic_write(card_path) as stream:
        stream.write(text.encode())
    return card_path, report
