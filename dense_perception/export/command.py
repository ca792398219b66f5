"""``dense-perception export``: a checkpoint becomes ONNX files and the card that lists them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from dense_perception.core.card import ModelCard
    from dense_perception.export.package import Row

HELP = "turn a checkpoint into fp32 and int8 ONNX files with their model card"
EXAMPLES = """\
examples:
  dense-perception export runs/tiny/model.pt --output models
  dense-perception export runs/tiny/model.pt --output models --calibration corpora/rooms
  dense-perception export runs/tiny/model.pt --output models --calibration photos/ --method mse
  dense-perception export depth_anything_v2_small

writes NAME_fp32.onnx, with --calibration also NAME_int8.onnx, and NAME.yaml. Each file is compared
with eager PyTorch (fp32) or across the runtimes installed (int8) before anything is written.
The name of a model whose weights were fetched exports it to where models are looked for.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT|NAME",
        help="model.pt of `dense-perception train`, or a model of `dense-perception models`",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write")
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="with NAME: its checkpoint, if not fetched"
    )
    parser.add_argument(
        "--card", type=Path, metavar="YAML", help="use this card, not the one in the checkpoint"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files of the same name")
    group = parser.add_argument_group("int8")
    group.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="pictures or a generated corpus to calibrate on; without it no int8 file is made",
    )
    group.add_argument(
        "--frames", type=int, default=64, metavar="N", help="calibration frames (default 64)"
    )
    group.add_argument(
        "--method",
        default="minmax",
        choices=("minmax", "percentile", "mse"),
        help="how activation ranges are chosen (default minmax)",
    )
    group.add_argument(
        "--percentile", type=float, default=99.99, help="for --method percentile (default 99.99)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def main(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from dense_perception.core.errors import InputError
    from dense_perception.core.registry import exported_dir, list_models
    from dense_perception.export.calibration import calibration_frames
    from dense_perception.export.checkpoint import load_checkpoint
    from dense_perception.export.package import export_model
    from dense_perception.export.quantize import QuantizeOptions

    if args.frames < 1:
        raise InputError(f"got --frames {args.frames}, expected 1 or more")
    options = QuantizeOptions(method=args.method, percentile=args.percentile)
    if args.weights is not None or args.checkpoint in list_models():
        network, card = _published(args)
        output = args.output or exported_dir()
    elif args.output is None:
        raise InputError(f"name a folder for the model of {args.checkpoint} with --output")
    else:
        network, card = load_checkpoint(Path(args.checkpoint), args.card)
        output = args.output
    frames = None
    if args.calibration is not None:
        frames = calibration_frames(args.calibration, card, args.frames)
    with tqdm(total=5 if frames else 2, disable=args.quiet, file=sys.stderr) as bar:

        def on_step(step: str) -> None:
            bar.set_description(step)
            bar.update()

        exported = export_model(
            network,
            card,
            output,
            frames,
            options,
            overwrite=args.overwrite,
            on_step=on_step,
        )
    _report(exported.card_path, exported.rows, args.json)
    return 0


def _published(args: argparse.Namespace) -> tuple[nn.Module, ModelCard]:
    from dense_perception.core.card import ModelCard
    from dense_perception.core.registry import find_card
    from dense_perception.export.published import load_published

    card = ModelCard.from_yaml(args.card) if args.card else find_card(args.checkpoint)
    network, card, report = load_published(card, args.weights)
    print(report, file=sys.stderr)
    return network, card


def _report(card_path: Path, rows: list[Row], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"card": str(card_path), "files": [_plain(row) for row in rows]}))
        return
    print(f"{'file':<32} {'MB':>6} {'runtime':<12} {'against':<14} {'max':>9} {'mean':>9}")
    for row in rows:
        print(
            f"{row.file:<32} {row.bytes / 1e6:>6.1f} {row.runtime:<12} {row.against:<14} "
            f"{row.difference.max_of_range:>9.1e} {row.difference.mean_of_range:>9.1e}"
        )
    print(f"differences are shares of the depth's range; card: {card_path}")


def _plain(row: Row) -> dict[str, Any]:
    return {
        "file": row.file,
        "bytes": row.bytes,
        "runtime": row.runtime,
        "against": row.against,
        "max_of_range": row.difference.max_of_range,
        "mean_of_range": row.difference.mean_of_range,
    }
