"""Which design learns more? ``python -m test.support.ablation_trial --help``.

``attention`` trains a small MulT on three tasks, with the attention that its tasks share and with
one of each task's own, from its own stream. ``heads`` trains labels with three designs of about
equal cost: DPT, Segmenter with its mask transformer, and UperNet on ViT-CoMer, all from random
weights. Each runs with some seeds and equal steps. Prints a Markdown table of what whole held-out
frames say: the mean and the standard deviation over the seeds.

Results go to ``--log`` as they come, one JSON line a run; a trial that was stopped goes on after
the last one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
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
from dense_perception.training.config import StageConfig, TrainingConfig
from dense_perception.training.loop import Task, fit
from test.support.flops import cost

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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trial", choices=("attention", "heads"))
    parser.add_argument("--data", type=Path, required=True, help="labelled corpus to train on")
    parser.add_argument("--held-out", type=Path, required=True, help="frames to judge by")
    parser.add_argument("--log", type=Path, required=True, help="where results are kept")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=2, default=(128, 96), help="width and height")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads)
    data, held_out = Corpus(options.data), Corpus(options.held_out)
    designs: Mapping[str, Mapping[str, object]] = HEADS
    if options.trial == "attention":
        designs = {"shared attention": MULT, "separate attention": MULT}
    done: dict[str, dict[str, object]] = {}
    if options.log.exists():
        for line in options.log.read_text().splitlines():
            record = json.loads(line)
            done[f"{record['design']} {record['seed']}"] = record
    for seed in range(1, options.seeds + 1):
        for design, network in designs.items():
            if f"{design} {seed}" in done:
                continue
            config = _config(network, len(data.classes), seed, options)
            with _built(design), tempfile.TemporaryDirectory() as out:
                spent = cost(build(config.network), config.height, config.width)
                task = Task(config, data, held_out, range(len(held_out)), Path(out), {})
                found = fit(task)
            figures = {name: found[name] for name in FIGURES if name in found}
            record = {"design": design, "seed": seed, "gflops": spent.gflops}
            record |= {"parameters": spent.parameters, **figures}
            done[f"{design} {seed}"] = record
            with options.log.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(json.dumps(record), flush=True)
    print(_table([done[f"{name} {s + 1}"] for name in designs for s in range(options.seeds)]))


def _built(design: str) -> mock._patch[type[SeparateBlock]] | nullcontext[None]:
    """Inside, MulT is built of blocks of that design."""
    if design != "separate attention":
        return nullcontext()
    return mock.patch.object(mult_lite, "DecoderBlock", SeparateBlock)


def _config(
    network: Mapping[str, object], classes: int, seed: int, options: argparse.Namespace
) -> TrainingConfig:
    width, height = options.size
    is_lite = network["variant"] == "lite0"
    sized: dict[str, object] = {"classes": classes}
    if network["family"] != "vit_comer":
        sized |= {"width": width, "height": height}
    if network["family"] == "segmenter" and classes == 2:
        sized["score_norm"] = "scale"  # as `train` sets it
    return TrainingConfig(
        name="ablation_trial",
        summary="A trial of designs.",
        network={**network, **HALF, **sized},
        width=width,
        height=height,
        seed=seed,
        steps=options.steps,
        learning_rate=1e-3,
        second_beta=0.999,
        weight_decay=0.01,
        ema_decay=0.99,
        rates={"stem": 0} if is_lite else {},
        fixed_statistics=("stem",) if is_lite else (),
        stages=(StageConfig(1.0, width, height, options.batch),),
        validate_minutes=1e4,
        save_minutes=1e4,
    )


def _table(records: Sequence[Mapping[str, object]]) -> str:
    names = [name for name in FIGURES if name in records[0]]
    lines = [
        f"| design | GFLOP | parameters | {' | '.join(names)} |",
        "|---" * (3 + len(names)) + "|",
    ]
    for design in dict.fromkeys(record["design"] for record in records):
        rows = [record for record in records if record["design"] == design]
        cells = [f"{float(str(rows[0]['gflops'])):.2f}", f"{rows[0]['parameters']:,}"]
        for name in names:
            values = [float(str(row[name])) for row in rows]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.3f} ± {spread:.3f}")
        lines.append(f"| {design} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
