"""Things against COCO's annotations: what ``evaluate --images --instances`` does."""

from __future__ import annotations

import argparse

from dense_perception.commands.arguments import image_reader, model_options
from dense_perception.commands.output import complain, print_problems, show


def things(options: argparse.Namespace) -> int:
    """Returns 0, or 1 if something could not be compared."""
    from dense_perception.core.storage import user_path
    from dense_perception.data.coco_annotations import read_annotations
    from dense_perception.evaluation.page.write import why_missing
    from dense_perception.evaluation.things import evaluate_things
    from dense_perception.evaluation.things_report import (
        refuse_others_report,
        things_summary,
        things_table,
        write_report,
    )
    from dense_perception.runtime.perceiver import Perceiver

    if options.out is not None:
        refuse_others_report(user_path(str(options.out)))
    truth = read_annotations(user_path(str(options.instances)))
    reports = []
    for model in options.model:
        with Perceiver.load(model, **model_options(options), max_output_side=8192) as perceiver:
            reports.append(
                evaluate_things(
                    perceiver,
                    truth,
                    user_path(str(options.images)),
                    limit=options.limit,
                    reader=image_reader(options),
                    progress=True,
                )
            )
    problems = list(dict.fromkeys(line for report in reports for line in report.problems))
    print_problems(problems)
    if options.out is not None:
        paths = write_report(reports, truth.path.name, user_path(str(options.out)))
        if missing := why_missing():
            complain(f"dense-perception: {missing}")
        complain(f"wrote {' and '.join(str(path) for path in paths)}")
    summaries = [things_summary(report) for report in reports]
    show(summaries, lambda _: things_table(reports), options.json)
    return int(bool(problems))
