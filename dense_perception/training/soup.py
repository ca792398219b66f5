"""Averages the weights of two models of one lineage.

A model and what further training made of it lie in one valley of the loss: weights between them are
often better than both on pictures unlike the training's (WiSE-FT, Wortsman 2021, arXiv:2109.01903;
model soups, Wortsman 2022, arXiv:2203.05482). Two models trained apart from the start have nothing
between them: validate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from dense_perception.core.errors import ArtefactError, CardError, InputError, TrainingError
from dense_perception.data.corpus import Corpus, Mixture, evenly
from dense_perception.data.sample import Frames
from dense_perception.data.unnumbered import VoidUnnumbered
from dense_perception.nets.checkpoint import read_checkpoint
from dense_perception.nets.weights import load_weights
from dense_perception.nets.zoo import build
from dense_perception.training import run_folder
from dense_perception.training.config import TrainingConfig
from dense_perception.training.instance_truth import thing_classes
from dense_perception.training.provenance import Training, card_of
from dense_perception.training.validation import validate


@dataclass(frozen=True)
class Soup:
    """Averaged weights, what they were trained with, and the record that the card is made of."""

    network: nn.Module
    config: TrainingConfig
    training: Training

    def save(self, path: Path, results: Mapping[str, float]) -> None:
        """Write a ``model.pt``; ``results`` are the metrics of the validation, if any."""
        training = self.training.copy()
        training["results"] = dict(results)
        card = card_of(self.config, training, self.network).to_dict()
        model = self.network.state_dict()
        path.parent.mkdir(parents=True, exist_ok=True)
        run_folder.save(path, {"model": model, "card": card, "training": training})


def cook(first: Path, second: Path, share: float) -> Soup:
    """``share`` of the weights of ``first`` and the rest of ``second``, evaluation mode.

    :param first: the model.pt of the later run.
    :param second: the model.pt or the exported fp32 ONNX file of the earlier one.
    :raises TrainingError: if a file cannot be read, the networks differ or ``share`` is not in
        [0, 1].
    """
    if not 0 <= share <= 1:
        raise TrainingError(f"the share of {first} is {share}, expected 0 to 1")
    checkpoint = run_folder.read(first)
    training: Training = checkpoint.content["training"]
    config = TrainingConfig.from_dict(training.get("config"), f"the configuration in {first}")
    network, other = build(config.network), build(config.network)
    run_folder.fill(network, checkpoint)
    before = _load(other, second)
    theirs = other.state_dict()
    network.load_state_dict(
        {name: _mean(value, theirs[name], share) for name, value in network.state_dict().items()}
    )
    soup = {"share": share, "with": second.name, "with_share": round(1 - share, 6), **before}
    record = training.copy()
    record["soup"] = soup
    return Soup(network.eval(), config, record)


def _load(network: nn.Module, path: Path) -> dict[str, str]:
    """Weights of either kind of file; the command that made them, where it is known."""
    try:
        checkpoint = read_checkpoint(path)
        load_weights(network, checkpoint)
        made = checkpoint.card().provenance
    except (ArtefactError, CardError) as error:
        raise TrainingError(f"cannot average with {path}: {error}") from error
    return {"command": made["command"]} if "command" in made else {}


def _mean(first: Tensor, second: Tensor, share: float) -> Tensor:
    if not first.is_floating_point():
        return first  # counters
    return torch.lerp(second, first, share)


def cook_and_validate(
    later: Path,
    earlier: Path,
    share: float,
    out: Path,
    *,
    validation: Sequence[Path] = (),
    frames: int = 200,
    threads: int = 2,
    overwrite: bool = False,
) -> dict[str, dict[str, float]]:
    """Average two models into ``out``, a ``model.pt``; returns the metrics by corpus name.

    :param validation: corpora to measure it on, ``frames`` frames of each; the results on the
        first one go into the card.
    :raises TrainingError: if ``out`` is there and not to be replaced; see :func:`cook` and
        :class:`~dense_perception.data.corpus.Corpus` for the rest.
    :raises InputError: if ``frames`` is below 1.
    """
    if out.exists() and not overwrite:
        raise TrainingError(f"{out} is there: give --overwrite to replace it")
    if frames < 1:
        raise InputError(f"got --validation-frames {frames}, expected 1 or more")
    torch.set_num_threads(threads)
    corpora = {path: Mixture([Corpus(path)]) for path in validation}
    soup = cook(later, earlier, share)
    table: dict[str, dict[str, float]] = {}
    for path, corpus in tqdm(corpora.items(), unit="corpus", disable=None):
        indices = evenly(len(corpus), frames)
        judged: Frames = corpus
        if "instances" in soup.config.tasks:
            judged = VoidUnnumbered(corpus, thing_classes(soup.config.network, corpus.corpora)[0])
        found = validate(soup.network, judged, indices, soup.config, 16)
        table[path.name] = {**found, "frames": len(indices)}
    first = next(iter(corpora.values()), None)
    soup.training["validation_data"] = first.describe() if first is not None else []
    soup.save(out, next(iter(table.values()), {}))
    return table
