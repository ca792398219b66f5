"""What ``train`` would say of models: ``python -m test.support.judge MODEL... --data CORPUS...``.

Each is a model.pt, an exported fp32 file or the name of a shipped model, and answers whole frames
of its own size in PyTorch; prints a Markdown table of metric depth. ``evaluate`` judges exported
files at the frames' size.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from dense_perception.data.corpus import Corpus, evenly
from dense_perception.nets.checkpoint import read_checkpoint
from dense_perception.nets.weights import load_weights
from dense_perception.nets.zoo import build
from dense_perception.training.config import TrainingConfig
from dense_perception.training.initialisation import file_of
from dense_perception.training.validation import validate

FIGURES = ("abs_rel", "d1", "aligned_abs_rel")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    corpora = [Corpus(path) for path in options.data]
    print(
        "| model | parameters | "
        + " | ".join(f"{c.name}: {', '.join(FIGURES)}" for c in corpora)
        + " |"
    )
    print("|---" * (2 + len(corpora)) + "|")
    for path in options.models:
        checkpoint = read_checkpoint(file_of(path))
        card = checkpoint.card()
        network = build(card.network)
        load_weights(network, checkpoint)
        size = {"width": card.input.width, "height": card.input.height}
        config = TrainingConfig(name=card.name, summary="Judged.", network=card.network, **size)
        cells = [
            f"{path.parent.name}/{path.stem}".strip("/"),
            f"{sum(p.numel() for p in network.parameters()):,}",
        ]
        for corpus in corpora:
            indices = evenly(len(corpus), options.frames)
            found = validate(network, corpus, indices, config, 8)
            cells.append(", ".join(f"{found[name]:.3f}" for name in FIGURES))
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
