"""``dense-perception evaluate``: models against truth, as a table or as a whole report."""

from __future__ import annotations

import argparse
from pathlib import Path

from dense_perception.commands.arguments import (
    JUDGED_MS,
    add_camera_matrix,
    add_json,
    add_model_options,
    add_reading,
    add_tolerance,
    add_unit,
    at_least_one,
)
from dense_perception.commands.evaluate_options import (
    Asked,
    Form,
    refuse_beside_instances,
    refuse_useless,
)
from dense_perception.core.errors import InputError

HELP = "Compare models with recordings, annotated pictures, corpora or data sets; write a report."
EXAMPLES = """\
examples:
  dense-perception evaluate dpt_tiny_indoor --bag recording/
  dense-perception evaluate dpt_tiny_indoor@fp32 dpt_tiny_indoor@int8 --data monday/ tuesday/ \\
      --out report --workers 4
  dense-perception evaluate dpt_tiny_indoor topic:/other/depth --data recording/ --out report
  dense-perception evaluate my_model --data recording/ --out after --compare before/report.json \\
      --fail-if 'depth.metric.absrel > 0.2'
  dense-perception evaluate dpt_tiny_indoor --data nyu_test:nyu_depth_v2_labeled.mat --max-depth 10
  dense-perception evaluate segmenter_small_mask_ade20k --images ADE/images/validation \\
      --labels ADE/annotations/validation --multi-scale --flip
  dense-perception evaluate my_things --images coco/val2017 \\
      --instances coco/annotations/instances_val2017.json --out report

MODEL is a model's name or file, MODEL@PRECISION, network:MODEL (the published network in PyTorch,
fed as its authors feed it) or topic:/NAME (another system's answers in the bags). With --out,
several models or several sources, everything they share with the truth is scored, with intervals
and baselines, into report.html, report.json and frames.csv. The same command again goes on where
it was stopped. A bag's depth may be of another camera: it is registered, as `extract` does it.

--instances compares things with COCO's annotations: average precision of boxes and masks, or, of a
panoptic file with its PNGs in the folder of that name, panoptic quality. Classes are matched by
name.

The exit code is 1 if something could not be read or compared, 3 if a --fail-if is true.

One model, one source and no --out print a table: each metric is the mean over frames, `metric` as
predicted, `aligned` after the best scale and shift in inverse depth of each frame, `row prior` for
knowing the pixel row alone (each row's mean over this bag), aligned: what to beat. Depth of --bag
must then be aligned with (seen from) the colour camera.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="+", metavar="MODEL", help="a name, a file, or see below")
    truth = parser.add_argument_group("truth")
    truth.add_argument(
        "--data", nargs="+", default=[], metavar="DATA", help="bags, corpora, folders, SET:PATH"
    )
    truth.add_argument("--bag", type=Path, help="depth: bag folder, .mcap, .db3 or .bag file")
    truth.add_argument("--images", type=Path, metavar="DIR", help="labels: folder of pictures")
    truth.add_argument("--labels", type=Path, metavar="DIR", help="PNGs, named as the pictures")
    truth.add_argument(
        "--instances",
        type=Path,
        metavar="JSON",
        help="COCO's things or panoptic labels of --images",
    )
    truth.add_argument("--limit", type=at_least_one, metavar="N", help="N frames of each source")
    report = parser.add_argument_group("report")
    report.add_argument("--out", type=Path, metavar="DIR", help="folder of the report")
    report.add_argument("--compare", type=Path, metavar="JSON", help="an earlier report.json")
    report.add_argument(
        "--fail-if", action="append", default=[], metavar="EXPR", help="'FIGURE > NUMBER', or <"
    )
    report.add_argument("--record", action="store_true", help="result bags beside the report")
    report.add_argument(
        "--workers", type=at_least_one, default=1, metavar="N", help="processes (%(default)s)"
    )
    report.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster; `local` for here")
    add_model_options(parser)
    add_reading(parser)
    add_json(parser)
    bags = parser.add_argument_group("bags")
    bags.add_argument("--topic", help="colour topic (default: the only one)")
    bags.add_argument("--depth-topic", help="depth topic (default: the only one)")
    bags.add_argument("--points-topic", action="append", default=[], metavar="TOPIC", help="LiDAR")
    bags.add_argument("--label-topic", metavar="TOPIC", help="label images aligned with colour")
    bags.add_argument("--world", default="", metavar="FRAME", help="frame of /tf for poses")
    add_tolerance(bags, JUDGED_MS)
    add_camera_matrix(bags)
    bags.add_argument(
        "--hfov", type=float, default=60.0, metavar="DEG", help="where there is no calibration"
    )
    depth = parser.add_argument_group("depth")
    depth.add_argument(
        "--max-depth", type=float, metavar="M", help="leave out truth beyond this (20)"
    )
    add_unit(depth)
    depth.add_argument("--crop", help="none, garg, eigen_kitti, eigen_nyu (the data set's)")
    depth.add_argument("--per-frame", action="store_true", help="each frame in the table too")
    labels = parser.add_argument_group("labels of published networks")
    labels.add_argument(
        "--multi-scale", action="store_true", help="average over scales 0.5 to 1.75"
    )
    labels.add_argument("--flip", action="store_true", help="average over the mirror image too")
    labels.add_argument(
        "--weights", type=Path, metavar="FILE", help="the published checkpoint, if not fetched"
    )


def main(options: argparse.Namespace) -> int:
    """Returns 0, 1 if something could not be compared, or 3 if a ``--fail-if`` is true."""
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    if options.instances is not None:
        refuse_beside_instances(options, parser)
        from dense_perception.commands import evaluate_things

        return evaluate_things.things(options)
    if (options.images is None) != (options.labels is None):
        raise InputError("--images needs --labels with the folder of their label PNGs")
    given = [options.bag is not None, options.images is not None, bool(options.data)]
    if not any(given):
        raise InputError("no truth is given: name it with --data, --bag, or --images and --labels")
    asked = _asked(options)
    refuse_useless(options, asked, parser)
    if asked.form is Form.REPORT:
        from dense_perception.commands.evaluate_report import report

        return report(options)
    from dense_perception.commands import evaluate_one

    tables = {
        Form.BAG: evaluate_one.depth,
        Form.PICTURES: evaluate_one.labels,
        Form.DATA: evaluate_one.data,
    }
    return tables[asked.form](options)


def _asked(options: argparse.Namespace) -> Asked:
    from dense_perception.core.storage import user_path
    from dense_perception.evaluation.contestants import NETWORK, TOPIC, with_precision
    from dense_perception.evaluation.pictures import PICTURES
    from dense_perception.media.bag_reader import is_bag

    data, models = options.data, options.model
    bags = sum(user_path(text).exists() and is_bag(user_path(text)) for text in data)
    missing = sum(":" not in text and not user_path(text).exists() for text in data)
    pictures = sum(text.startswith(PICTURES) for text in data)
    as_published = bool(options.weights or options.multi_scale or options.flip)
    given = (options.bag is not None) + (options.images is not None) + len(data)
    wanted = (options.out, options.compare, options.fail_if, options.record, options.ray)
    new = (options.points_topic, options.label_topic, options.workers > 1, options.world)
    new_too = (options.crop, with_precision(models[0])[1])
    # Their tables run exported models; with pictures the published networks have one, too.
    of_network = as_published and options.images is None
    form = Form.DATA
    if (
        any(wanted + new + new_too)
        or of_network
        or len(models) > 1
        or given > 1
        or bags
        or pictures
        or models[0].startswith((TOPIC, NETWORK))
    ):
        form = Form.REPORT
    elif not data:
        form = Form.BAG if options.bag is not None else Form.PICTURES
    topics = sum(text.startswith(TOPIC) for text in models)
    networks = sum(text.startswith(NETWORK) for text in models)
    artefacts = len(models) - topics - networks
    named = sum(bool(with_precision(text)[1]) for text in models)
    return Asked(
        form,
        0 if as_published else artefacts,
        0 if as_published else artefacts - named,
        networks + (artefacts if as_published else 0),
        # What is missing may have been meant as one: who reads it says so.
        bags + missing + (options.bag is not None),
        pictures + (options.images is not None),
        len(data) - bags - pictures,
        options.ray not in (None, "local"),
    )
