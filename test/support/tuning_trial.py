"""Does tuning a part gain what tuning all does? ``python -m test.support.tuning_trial --help``.

Trains a small ViT-CoMer with UperNet on one corpus, then goes on from it on another one four times,
with equal steps: all of it, CoMer's branch and the heads with the transformer frozen, LoRA and the
heads, the heads alone. Prints a Markdown table of the mean IoU on held-out frames of the second
corpus, after each seed; the gain is what is above the network before tuning, as a share of that of
``all``.

Runs and results are kept in ``--out``; a trial that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from dense_perception.data.corpus import Corpus
from dense_perception.nets.zoo import build
from dense_perception.training.config import TuningConfig
from dense_perception.training.run_folder import MODEL_FILE
from dense_perception.training.tuning import trained_share, tune
from test.support.trials import Results, spread, trained, trial_config, trial_parser

BEFORE = "before"
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
    parser = trial_parser(__doc__)
    parser.add_argument("--first", type=Path, required=True, help="corpus to train on at first")
    parser.add_argument("--second", type=Path, required=True, help="corpus to tune on")
    parser.add_argument("--before", type=int, default=1200, help="steps on the first corpus")
    parser.add_argument("--steps", type=int, default=300, help="steps on the second corpus")
    parser.set_defaults(size=(96, 64))
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    network = {**NETWORK, "classes": len(Corpus(options.first).classes)}
    results = Results(
        options.out,
        {
            "corpora": [options.first.name, options.second.name, options.held_out.name],
            "steps": [options.before, options.steps],
            "batch": options.batch,
            "size": list(options.size),
        },
    )
    for seed in range(1, options.seeds + 1):
        folder = options.out / str(seed)
        if seed not in results.of(BEFORE):
            config = trial_config(network, options, seed, options.before)
            first = (config, options.first, options.held_out, folder / BEFORE)
            results.add(BEFORE, seed, trained(*first)[1])
        for method in METHODS:
            if seed in results.of(method):
                continue
            config = trial_config(network, options, seed, options.steps)
            config = replace(config, learning_rate=5e-4, tuning=TuningConfig(method))
            then = (config, options.second, options.held_out, folder / method)
            results.add(method, seed, trained(*then, folder / BEFORE / MODEL_FILE)[1])
        print(_table(results, range(1, seed + 1), network), flush=True)


def _table(results: Results, seeds: Sequence[int], network: Mapping[str, object]) -> str:
    lines = ["| tuned | parameters trained | share | mIoU | gain |", "|---|---:|---:|---:|---:|"]
    miou = {
        design: [results.of(design)[seed]["miou"] for seed in seeds]
        for design in (BEFORE, *METHODS)
    }
    for design, found in miou.items():
        size = "- | -"
        if design in METHODS:
            built = build(network)
            tune(built, TuningConfig(design))
            part, whole = trained_share(built)
            size = f"{part:,} | {part / whole:.0%}"
        gains = [
            (got - before) / (best - before) if best != before else float("nan")
            for got, before, best in zip(found, miou[BEFORE], miou["all"], strict=True)
        ]
        lines.append(f"| {design} | {size} | {spread(found)} | {spread(gains, 2)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
