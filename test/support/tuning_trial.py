"""Does tuning a part gain what tuning all does? ``python -m test.support.tuning_trial --help``.

Trains a small ViT-CoMer with UperNet on one corpus, then goes on from it on another one four times,
with equal steps: all of it, CoMer's branch and the heads with the transformer frozen, LoRA and the
heads, the heads alone. Prints a Markdown table of the mean IoU on held-out frames of the second
corpus; the gain is what is above the network before tuning, as a share of that of ``all``. As it
is, it takes about 40 minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from dense_perception.data.corpus import Corpus
from dense_perception.nets.networks import trained_network
from dense_perception.nets.zoo import build, classes_of
from dense_perception.training.config import StageConfig, TrainingConfig, TuningConfig
from dense_perception.training.run_folder import MODEL_FILE
from dense_perception.training.training_run import TrainOptions, train
from dense_perception.training.tuning import trained_share, tune
from dense_perception.training.validation import validate

METHODS = ("all", "branch", "lora", "heads")
NETWORK: Mapping[str, object] = {
    "family": "vit_comer",
    "variant": "small",
    "dim": 96,
    "depth": 8,
    "heads": 3,
    "stem": 8,
    "deform_heads": 3,
    "mrfp_ratio": 0.5,
    "deform_ratio": 0.5,
    "channels": 32,
    "auxiliary_channels": 16,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
}


def main(words: Sequence[str] | None = None) -> None:
    """Run the trial and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=Path, required=True, help="corpus to train on at first")
    parser.add_argument("--second", type=Path, required=True, help="corpus to tune on")
    parser.add_argument("--held-out", type=Path, required=True, help="frames like the second's")
    parser.add_argument("--before", type=int, default=1200, help="steps on the first corpus")
    parser.add_argument("--steps", type=int, default=300, help="steps on the second corpus")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=(96, 64), help="width and height")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(words)
    held_out = Corpus(options.held_out)
    width, height = options.size
    classes = len(Corpus(options.first).classes)
    base = TrainingConfig(
        name="tuning_trial",
        summary="A trial of tuning.",
        network={**NETWORK, "classes": classes},
        width=width,
        height=height,
        learning_rate=1e-3,
        second_beta=0.999,
        weight_decay=0.01,
        ema_decay=0.99,
        stages=(StageConfig(1.0, width, height, 4),),
        validate_minutes=1e4,
    )
    torch.set_num_threads(options.threads)
    scores: dict[str, list[float]] = {"before": [], **{method: [] for method in METHODS}}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(1, options.seeds + 1):
            folder = Path(scratch) / str(seed)
            seeded = replace(base, seed=seed)
            first = _trained(seeded, options.first, folder / "first", options, options.before)
            network, _ = trained_network(first)
            indices = range(len(held_out))
            scores["before"].append(validate(network, held_out, indices, base, 8)["miou"])
            for method in METHODS:
                config = replace(seeded, learning_rate=5e-4, tuning=TuningConfig(method))
                tuned = _trained(
                    config, options.second, folder / method, options, options.steps, first
                )
                network, _ = trained_network(tuned)
                found = validate(network, held_out, indices, base, 8)
                scores[method].append(found["miou"])
                print(json.dumps({"seed": seed, "method": method, **found}), flush=True)
    print(_table(scores, base))


def _trained(
    config: TrainingConfig,
    corpus: Path,
    out: Path,
    options: argparse.Namespace,
    steps: int,
    initial: Path | None = None,
) -> Path:
    path = out.with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config.to_dict()), encoding="utf-8")  # JSON is YAML
    wanted = TrainOptions(
        config=path,
        data=[corpus],
        validation=[options.held_out],
        validation_frames=1,
        out=out,
        initial=initial,
        steps=steps,
        threads=options.threads,
    )
    train(wanted, lambda record: None)
    return out / MODEL_FILE


def _table(scores: Mapping[str, Sequence[float]], base: TrainingConfig) -> str:
    lines = ["| tuned | parameters trained | share | mIoU | gain |", "|---|---:|---:|---:|---:|"]
    gains = {
        method: [
            (got - before) / (whole - before) if whole != before else float("nan")
            for got, before, whole in zip(found, scores["before"], scores["all"], strict=True)
        ]
        for method, found in scores.items()
    }
    assert classes_of(base.network)
    for method, found in scores.items():
        trained, everything = 0, 1
        if method in METHODS:
            network = build(base.network)
            tune(network, TuningConfig(method))
            trained, everything = trained_share(network)
        lines.append(
            f"| {method} | {trained:,} | {trained / everything:.0%} | {_spread(found, 4)} | "
            f"{_spread(gains[method], 2)} |"
        )
    return "\n".join(lines)


def _spread(values: Sequence[float], digits: int) -> str:
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
