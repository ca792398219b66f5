"""Contestants against sources, with a report: what ``evaluate`` does with a folder or several."""

from __future__ import annotations

import argparse
import sys

from dense_perception.commands.arguments import image_reader, model_options
from dense_perception.commands.output import complain, print_problems, show
from dense_perception.core.errors import InputError
from dense_perception.evaluation.contestants import RunOptions
from dense_perception.evaluation.request import Request, evaluate
from dense_perception.evaluation.table import report_table
from dense_perception.evaluation.truth import TruthOptions

_CONDITION = 3


def report(options: argparse.Namespace) -> int:
    """Returns 0, 1 if something could not be read or compared, 3 if a condition is true.

    :raises InputError: if nothing can be done, or no contestant has the figure of a condition.
    """
    done = evaluate(_request(options), progress=True)
    print_problems(done.report["problems"])
    show(done.report, report_table, options.json)
    for note in done.notes:
        complain(f"dense-perception: {note}")
    for text in done.failed:
        complain(f"dense-perception: --fail-if: {text}")
    if done.refused:
        raise InputError(done.refused)
    return _CONDITION if done.failed else int(bool(done.report["problems"]))


def _request(options: argparse.Namespace) -> Request:
    reader = image_reader(options)
    pictures = [] if options.images is None else [f"pictures:{options.images}:{options.labels}"]
    bags = [] if options.bag is None else [str(options.bag)]
    return Request(
        models=tuple(options.model),
        data=(*bags, *pictures, *options.data),
        run=RunOptions(
            **model_options(options),
            hfov_deg=options.hfov,
            weights=options.weights,
            multi_scale=options.multi_scale,
            flip=options.flip,
        ),
        truth=TruthOptions(
            topic=options.topic,
            depth_topic=options.depth_topic,
            points=tuple(options.points_topic),
            label_topic=options.label_topic,
            tolerance_ms=options.tolerance_ms,
            world=options.world,
            hfov_deg=options.hfov,
            limit=options.limit,
            bits=options.bits,
            max_pixels=reader.max_pixels,
            max_scans=reader.max_scans,
            matrix=options.camera_matrix,
            unit_m=options.unit,
        ),
        max_depth_m=options.max_depth,
        crop=options.crop,
        out=options.out,
        compare=options.compare,
        fail_if=tuple(options.fail_if),
        record=options.record,
        workers=options.workers,
        ray=options.ray,
        command=("dense-perception", *sys.argv[1:]),
    )
