"""Which design learns more? ``python -m test.support.ablation_trial --help``.

``attention`` trains a small MulT on three tasks, with the attention that its tasks share and with
one of each task's own, from its own stream. ``heads`` trains labels with three designs of about
equal cost: DPT, Segmenter with its mask transformer, and UperNet on ViT-CoMer, all from random
weights. Each runs with some seeds and equal steps. Prints a Markdown table of what whole held-out
frames say, after each seed: the mean and the standard deviation over the seeds.

Runs and results are kept in ``--out``; a trial that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

from dense_perception.data.corpus import Corpus
from dense_perception.nets import mult_lite
from dense_perception.nets.mult import SharedAttention, TaskBlock
from dense_perception.nets.windows import WindowLayout
from dense_perception.nets.zoo import build
from dense_perception.training.config import TrainingConfig
from test.support.flops import cost
from test.support.trials import Results, spread, trained, trial_config, trial_parser

HALF: Mapping[str, object] = {"mean": [0.5] * 3, "std": [0.5] * 3}
MULT: Mapping[str, object] = {
    "family": "mult",
    "variant": "lite0",
    "dim": 96,
    "depth": 2,
    "heads": 2,
    "decoder_dim": 64,
    "decoder_heads": [4, 2, 2, 1],
    "windows": [4, 4, 4, 4],
    "tasks": ["segmentation", "depth", "normals"],
}
HEADS: Mapping[str, Mapping[str, object]] = {
    "DPT": {
        "family": "dpt",
        "variant": "base",
        "dim": 192,
        "heads": 3,
        "taps": [1, 3, 5, 7],
        "channels": [24, 48, 96, 96],
        "features": 32,
    },
    "Segmenter, mask": {
        "family": "segmenter",
        "variant": "tiny",
        "dim": 192,
        "heads": 3,
        "layers": 9,
    },
    "UperNet on ViT-CoMer": {
        "family": "vit_comer",
        "variant": "small",
        "dim": 120,
        "depth": 8,
        "heads": 3,
        "stem": 8,
        "deform_heads": 3,
        "mrfp_ratio": 0.5,
        "deform_ratio": 0.5,
        "channels": 32,
        "auxiliary_channels": 16,
    },
}
FIGURES = ("miou", "pixel_accuracy", "abs_rel", "aligned_abs_rel", "normals_median_deg")


class SeparateBlock(nn.Module):
    """As :class:`~dense_perception.nets.mult.DecoderBlock`, but each task attends by itself."""

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int,
        shift: int,
        tasks: Sequence[str],
        mlp_ratio: float,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.own = nn.ModuleDict({task: SharedAttention(dim, heads, window) for task in tasks})
        self.tasks = nn.ModuleDict({task: TaskBlock(dim, mlp_ratio, drop_path) for task in tasks})

    def forward(self, streams: Mapping[str, Tensor], encoder_bhwc: Tensor) -> dict[str, Tensor]:
        height, width = encoder_bhwc.shape[1:3]
        layout = WindowLayout((height, width), self.window, self.shift)
        found = {}
        for task, block in self.tasks.items():
            weights_whnn = self.own[task](block.norm1(streams[task]), layout)
            found[task] = block(streams[task], weights_whnn, layout)
        return found


def main(words: Sequence[str] | None = None) -> None:
    """Run a trial and print its table."""
    parser = trial_parser(__doc__)
    parser.add_argument("trial", choices=("attention", "heads"))
    parser.add_argument("--data", type=Path, required=True, help="labelled corpus to train on")
    parser.add_argument("--steps", type=int, default=400)
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    classes = len(Corpus(options.data).classes)
    designs: Mapping[str, Mapping[str, object]] = HEADS
    if options.trial == "attention":
        designs = {"shared attention": MULT, "separate attention": MULT}
    settings = {
        "corpora": [options.data.name, options.held_out.name],
        "steps": options.steps,
        "batch": options.batch,
        "size": list(options.size),
    }
    results = Results(options.out, settings)
    for seed in range(1, options.seeds + 1):
        for design, network in designs.items():
            if seed in results.of(design):
                continue
            config = _config(network, classes, seed, options)
            out = options.out / f"{design} {seed}"
            with _built(design):
                spent = cost(build(config.network), config.height, config.width)
                _, found = trained(config, options.data, options.held_out, out)
            figures = {name: found[name] for name in FIGURES if name in found}
            size = {"gflops": spent.gflops, "parameters": float(spent.parameters)}
            results.add(design, seed, {**size, **figures})
        print(_table(results, tuple(designs), range(1, seed + 1)), flush=True)


def _built(design: str) -> mock._patch[type[SeparateBlock]] | nullcontext[None]:
    """Inside, MulT is built of blocks of that design."""
    if design != "separate attention":
        return nullcontext()
    return mock.patch.object(mult_lite, "DecoderBlock", SeparateBlock)


def _config(
    network: Mapping[str, object], classes: int, seed: int, options: argparse.Namespace
) -> TrainingConfig:
    width, height = options.size
    frozen = ("stem",) if network["variant"] == "lite0" else ()
    sized: dict[str, object] = {"classes": classes}
    if network["family"] != "vit_comer":
        sized |= {"width": width, "height": height}
    if network["family"] == "segmenter" and classes == 2:
        sized["score_norm"] = "scale"  # as `train` sets it
    return trial_config(
        {**network, **HALF, **sized},
        options,
        seed,
        options.steps,
        rates=dict.fromkeys(frozen, 0.0),
        fixed_statistics=frozen,
    )


def _table(results: Results, designs: Sequence[str], seeds: Sequence[int]) -> str:
    names = [name for name in FIGURES if name in results.of(designs[0])[seeds[0]]]
    lines = [
        f"| design | GFLOP | parameters | {' | '.join(names)} |",
        "|---" * (3 + len(names)) + "|",
    ]
    for design in designs:
        rows = [results.of(design)[seed] for seed in seeds]
        cells = [f"{rows[0]['gflops']:.2f}", f"{rows[0]['parameters']:,.0f}"]
        cells += [spread([row[name] for row in rows]) for name in names]
        lines.append(f"| {design} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
