"""``dense-perception benchmark model``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dense_perception.commands.arguments import add_device, add_json, add_model, image_size
from dense_perception.commands.output import show

if TYPE_CHECKING:
    from dense_perception.benchmarks.model import ModelResult

HELP = "Measure a model end to end: uint8 image in memory to metric depth of the image's size."
EXAMPLES = """\
examples:
  dense-perception benchmark model dpt_tiny_indoor
  dense-perception export dpt/base --random --size 384x384 --output /tmp/base --precision fp32 int8
  dense-perception benchmark model /tmp/base/dpt_base_untrained.yaml --against transformers
  dense-perception benchmark model dpt_tiny_indoor --image-size 1280x720 --threads 1 --json
  dense-perception benchmark model dpt_tiny_indoor --against transformers

Contestants take turns, so that a busy machine troubles all of them alike. `auto` is what a node
chooses once it has measured everything, which may take a big model several starts. With --against
transformers, DPT of the `transformers` library with random weights in fp32 PyTorch runs in the same
turns, prepared and restored by this package's own code: for a DPT-Base or DPT-Large the same
network; for other models DPT-Hybrid, once with its standard widths, once with this model's
transformer and decoder widths. It takes square inputs only: those whose area is nearest to the
model's. On a Jetson, tegrastats runs beside: GPU load, power, memory, temperature and power mode.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--backend", default="auto", help="only this one (default: every one)")
    parser.add_argument("--precision", default="auto", help="only this one (default: every one)")
    add_device(parser)
    parser.add_argument(
        "--image-size",
        type=image_size,
        default=(640, 480),
        metavar="WxH",
        help="of the image (default: 640x480)",
    )
    parser.add_argument(
        "--runs", type=int, default=60, help="timed runs of each contestant (default: 60)"
    )
    parser.add_argument("--against", choices=("transformers",), help="compare with this library")
    add_json(parser)


def main(options: argparse.Namespace) -> int:
    from dense_perception.benchmarks.model import ModelRun, measure_model

    width, height = options.image_size
    result = measure_model(
        ModelRun(
            options.model, options.backend, options.precision, options.device, options.threads
        ),
        width=width,
        height=height,
        runs=options.runs,
        transformers=options.against == "transformers",
    )
    show(result, table, options.json)
    return 0


def table(result: ModelResult) -> str:
    """The table for a terminal."""
    wide = max(len(row.name) for row in result.rows)
    lines = [
        f"{result.model}: {result.image} image, network {result.network}, {result.cpu}, "
        f"{result.threads or 'all'} threads",
        f"{'':{wide}} {'median':>10} {'95 %':>10} {'per s':>8} {'ratio':>7}",
    ]
    for row in result.rows:
        lines.append(
            f"{row.name:{wide}} {row.median_ms:7.1f} ms {row.p95_ms:7.1f} ms "
            f"{row.fps:8.1f} {row.ratio:7.2f}"
        )
    lines += [f"passed over: {note}" for note in result.passed_over]
    lines += [str(result.jetson)] if result.jetson is not None else []
    return "\n".join(lines)
