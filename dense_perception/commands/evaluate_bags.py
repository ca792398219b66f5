"""``dense-perception evaluate --bag``: metrics on the depth recorded in a bag."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

_ROWS = ("abs_rel", "rmse", "d1", "d2", "d3")


def main(options: argparse.Namespace) -> int:
    import itertools

    from tqdm import tqdm

    from dense_perception.core.errors import InputError
    from dense_perception.evaluation.bags import PairSource, evaluate_pairs
    from dense_perception.runtime.perceiver import Perceiver

    source = PairSource(
        options.bag,
        topic=options.topic,
        depth_topic=options.depth_topic,
        tolerance_ms=options.tolerance_ms,
    )
    try:
        with Perceiver.load(
            options.model,
            backend=options.backend,
            precision=options.precision,
            device=options.device,
            threads=options.threads,
            trust_engine=options.trust_engine,
            default_hfov_deg=options.hfov,
            max_output_side=8192,
        ) as perceiver:
            if perceiver.card.depth is None:
                raise InputError(
                    f"model {perceiver.card.name} gives labels, no depth: choose a depth model"
                )
            pairs = itertools.islice(source, options.limit)
            bar = tqdm(pairs, total=source.total, unit="frame", disable=None, file=sys.stderr)
            report = evaluate_pairs(perceiver, source, iter(bar), options.max_depth)
            summary: dict[str, Any] = {
                "model": perceiver.card.name,
                "precision": perceiver.selection.precision,
                "backend": perceiver.backend.description,
                "bag": str(options.bag),
                "topic": report.topic,
                "depth_topic": report.depth_topic,
                "frames": len(report.frames),
                "unmatched": report.unmatched,
                "intrinsics_assumed": report.intrinsics_assumed,
                "means": _rounded(report.means()),
                "row_prior": _rounded(report.row_prior_means()),
                "problems": report.problems,
            }
            if options.per_frame:
                summary["per_frame"] = [
                    {"stamp_ns": stamp, **_rounded(metrics)}
                    for stamp, metrics in zip(report.stamps_ns, report.frames, strict=True)
                ]
    finally:
        source.close()
    for problem in summary["problems"]:
        print(f"dense-perception: {problem}", file=sys.stderr)
    print(json.dumps(summary) if options.json else _table(summary))
    return 1 if summary["problems"] else 0


def _rounded(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 5) for name, value in metrics.items()}


def _table(summary: dict[str, Any]) -> str:
    means, prior = summary["means"], summary["row_prior"]
    lines = [
        f"{summary['model']} ({summary['precision']}, {summary['backend']})",
        f"{summary['frames']} frames of {summary['topic']} against {summary['depth_topic']}"
        + (f", {summary['unmatched']} without a partner" if summary["unmatched"] else ""),
        "",
        f"{'':10}{'metric':>10}{'aligned':>10}{'row prior':>11}",
    ]
    for name in _ROWS:
        cells = (means.get(name), means.get(f"aligned_{name}"), prior.get(f"aligned_{name}"))
        texts = ["-" if cell is None else f"{cell:.3f}" for cell in cells]
        lines.append(f"{name:10}{texts[0]:>10}{texts[1]:>10}{texts[2]:>11}")
    if "coverage" in means:
        lines.append(f"\n{100 * means['coverage']:.1f} % of the measured pixels were answered")
    if summary["intrinsics_assumed"]:
        lines.append(
            f"{summary['intrinsics_assumed']} frames had no calibration: metres are a guess"
        )
    return "\n".join(lines)
