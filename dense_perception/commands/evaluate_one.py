"""One model against one source, printed: what ``evaluate`` does without a folder for a report."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from dense_perception.commands.arguments import image_reader, model_options
from dense_perception.commands.output import print_problems, show
from dense_perception.core.errors import InputError
from dense_perception.core.registry import find_card

if TYPE_CHECKING:
    from dense_perception.runtime.perceiver import Perceiver


def depth(options: argparse.Namespace) -> int:
    """Depth of a bag; returns 0, or 1 if something could not be compared."""
    from dense_perception.evaluation.bags import DEFAULT_MAX_M, PairSource, evaluate_pairs
    from dense_perception.evaluation.report import depth_summary, depth_table

    source = PairSource(
        options.bag,
        topic=options.topic,
        depth_topic=options.depth_topic,
        tolerance_ms=options.tolerance_ms,
        reader=image_reader(options),
        matrix=options.camera_matrix,
    )
    with closing(source), _load(options) as perceiver:
        report = evaluate_pairs(
            perceiver,
            source,
            options.max_depth or DEFAULT_MAX_M,
            limit=options.limit,
            progress=True,
        )
        summary = depth_summary(perceiver, options.bag, report, per_frame=options.per_frame)
    print_problems(summary["problems"])
    show(summary, depth_table, options.json)
    return int(bool(summary["problems"]))


def labels(options: argparse.Namespace) -> int:
    """Labels of a folder of pictures; returns as :func:`depth`."""
    from dense_perception.evaluation import segmentation
    from dense_perception.evaluation.report import label_summary, label_table

    pairs, left_out = segmentation.picture_pairs(options.images, options.labels)
    pairs, reader = pairs[: options.limit], image_reader(options)
    averaged = {"multi_scale": options.multi_scale, "flip": options.flip}
    if any(averaged.values()) or options.weights is not None:
        card = find_card(options.model[0])
        label = segmentation.network_labeller(card, options.weights, **averaged)
        report = segmentation.evaluate_labels(card, label, pairs, reader=reader, progress=True)
    else:
        with _load(options) as perceiver:
            card, label = perceiver.card, segmentation.perceiver_labeller(perceiver)
            report = segmentation.evaluate_labels(card, label, pairs, reader=reader, progress=True)
    report.problems.extend([left_out] if left_out else [])
    summary = label_summary(card, options.images, report, **averaged)
    print_problems(summary["problems"])
    show(summary, label_table, options.json)
    return int(bool(summary["problems"]))


def data(options: argparse.Namespace) -> int:
    """Depth, labels and things of a corpus or a data set; returns as :func:`depth`."""
    from dense_perception.data.sources import open_frames, problems_of
    from dense_perception.evaluation import corpora, corpus_things, report, things_report
    from dense_perception.evaluation.bags import DEFAULT_MAX_M, evaluate_pairs
    from dense_perception.evaluation.segmentation import perceiver_labeller

    frames = open_frames(options.data[0], unit_m=options.unit)
    found: dict[str, object] = {}
    tables: list[str] = []
    problems = problems_of(frames)
    with _load(options) as perceiver:
        card = perceiver.card
        judges_depth = card.depth is not None and corpora.has_depth(frames)
        if options.per_frame and not judges_depth:
            raise InputError(
                f"--per-frame has no use here: {card.name} and {frames.name} share no depth: leave "
                "it out"
            )
        if judges_depth:
            pairs = corpora.FramePairs(frames, options.limit)
            depths = evaluate_pairs(
                perceiver, pairs, options.max_depth or DEFAULT_MAX_M, progress=True
            )
            depth = report.depth_summary(
                perceiver, Path(options.data[0]), depths, per_frame=options.per_frame
            )
            found["depth"] = depth
            tables.append(report.depth_table(depth))
            problems += depth["problems"]
        if card.segmentation is not None and corpora.has_labels(frames):
            labels = report.label_summary(
                card,
                Path(options.data[0]),
                corpora.evaluate_frame_labels(
                    card, perceiver_labeller(perceiver), frames, options.limit, progress=True
                ),
                multi_scale=False,
                flip=False,
            )
            found["labels"] = labels
            tables.append(report.label_table(labels))
            problems += labels["problems"]
        if card.instances is not None and corpus_things.has_things(frames):
            things = corpus_things.evaluate_frame_things(
                perceiver, frames, options.limit, progress=True
            )
            found["things"] = things_report.things_summary(things)
            tables.append(things_report.things_table([things]))
            problems += things.problems
    if not found:
        raise InputError(
            f"{frames.name} has neither depth nor labels that {card.name} gives, nor numbers of "
            "things: choose another model or data set"
        )
    print_problems(problems)
    show(found, lambda _: "\n\n".join(tables), options.json)
    return int(bool(problems))


def _load(options: argparse.Namespace) -> Perceiver:
    """The exported model; answers have the truth's size, whatever that is."""
    from dense_perception.runtime.perceiver import Perceiver

    hfov = options.hfov
    return Perceiver.load(
        options.model[0], **model_options(options), default_hfov_deg=hfov, max_output_side=8192
    )
