"""``dense-perception train soup``: the average of two models of one lineage, validated."""

from __future__ import annotations

import argparse
from pathlib import Path

from dense_perception.commands.arguments import add_json, add_validation
from dense_perception.commands.output import print_json, say

HELP = "average the weights of a model and of what further training made of it"
EXAMPLES = """\
examples:
  dense-perception train soup runs/mine/model.pt models/dpt_tiny_indoor_fp32.onnx \\
      --out runs/soup/model.pt --validation corpora/rooms_val
  dense-perception train soup runs/mine/model.pt models/dpt_tiny_indoor_fp32.onnx --share 0.3 \\
      --out runs/soup/model.pt --validation corpora/rooms_val --validation corpora/mine_val

Weights in between forget less of the earlier model and are often better than both on other pictures
(WiSE-FT, model soups). Only models of which one was trained on from the other have anything in
between: compare --share 0, 0.5 and 1 on validation corpora."""
_COLUMNS = ("frames", "abs_rel", "d1", "aligned_abs_rel", "aligned_d1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("later", type=Path, help="model.pt of the later run")
    parser.add_argument("earlier", type=Path, help="model.pt or exported fp32 ONNX file before it")
    parser.add_argument(
        "--share", type=float, default=0.5, help="of the later one, 0 to 1 (default 0.5)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="model.pt to write")
    parser.add_argument("--overwrite", action="store_true", help="replace it if it is there")
    add_validation(
        parser, "corpus to measure it on; repeats; the first one's results go into the card"
    )
    parser.add_argument(
        "--validation-frames", type=int, default=200, metavar="N", help="of each (default 200)"
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    add_json(parser)


def main(options: argparse.Namespace) -> int:
    from dense_perception.training.soup import cook_and_validate

    table = cook_and_validate(
        options.later,
        options.earlier,
        options.share,
        options.out,
        validation=options.validation,
        frames=options.validation_frames,
        threads=options.threads,
        overwrite=options.overwrite,
    )
    if options.json:
        print_json({"model": options.out, "share": options.share, "validation": table})
        return 0
    if table:
        say(f"{'corpus':<20}" + "".join(f"{name:>18}" for name in _COLUMNS))
    for name, row in table.items():
        say(f"{name:<20}" + "".join(f"{row.get(key, float('nan')):>18.4g}" for key in _COLUMNS))
    rest = 1 - options.share
    say(f"{options.out}: {options.share:g} of {options.later}, {rest:g} of {options.earlier}")
    return 0
