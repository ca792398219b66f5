"""What reading and scoring cost beside the model: ``python -m test.support.evaluation_trial``.

Makes a recording of 640x480 (JPEG and 16-bit depth) from the frames of another one, repeated, and
runs its parts through the evaluation and, in between, through the model alone. Processor time is
that of the process with all its threads, so that other work on the machine changes little.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dense_perception.core.machine import keep_freed_memory
from dense_perception.evaluation.ahead import repeatable_opencv
from dense_perception.evaluation.contestants import RunOptions, resolve
from dense_perception.evaluation.parts import Job, Opened, answer_part
from dense_perception.evaluation.run import make_plan
from dense_perception.evaluation.sources import name_sources
from dense_perception.evaluation.truth import TruthOptions
from test.support import recordings

STEP_NS = 33_333_333


def repeated(source: Path, folder: Path, frames: int, size: tuple[int, int]) -> Path:
    """The frames of ``source`` at ``size`` (width, height), over and over, at 30 Hz."""
    (name,) = name_sources([str(source)])
    opened = Opened()
    truth = opened.open(name, TruthOptions())
    found = [each for part in truth.parts() for each in truth.frames(part)]
    opened.close()
    messages: list[tuple[str, int, Any]] = []
    made: list[tuple[Any, Any, Any]] = []
    for each in found:
        assert each.depth_m is not None
        assert each.frame.intrinsics is not None
        rgb = cv2.resize(each.frame.rgb_hwc, size, interpolation=cv2.INTER_AREA)
        depth = cv2.resize(each.depth_m, size, interpolation=cv2.INTER_NEAREST)
        depth_mm = np.nan_to_num(depth * 1000).astype(np.uint16)
        jpeg = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].ravel()
        made.append((jpeg, depth_mm, each.frame.intrinsics.resized(*size).fx))
    for index in range(frames):
        jpeg, depth_mm, focal = made[index % len(made)]
        stamp = (index + 1) * STEP_NS
        header = recordings.header(stamp)
        picture = recordings.make(recordings.COMPRESSED, header=header, format="jpeg", data=jpeg)
        info = recordings.camera_info(*size, focal, stamp, d=np.zeros(5))
        messages += [
            ("/camera/camera_info", stamp, info),
            ("/camera/image/compressed", stamp, picture),
            ("/camera/depth/image_raw", stamp + 1, recordings.image(depth_mm, "16UC1", stamp)),
        ]
    return recordings.write_bag(folder, messages)


def seconds() -> tuple[float, float]:
    """On the wall, and of the processor."""
    return time.perf_counter(), time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bag", type=Path, help="its frames are repeated")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/evaluation_trial"))
    parser.add_argument("--frames", type=int, default=320)
    parser.add_argument("--model", default="dpt_tiny_indoor@int8")
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    bag = options.folder / f"bag_{options.frames}"
    if not bag.exists():
        repeated(options.bag, bag, options.frames, (640, 480))
    keep_freed_memory()
    repeatable_opencv()
    run = RunOptions(backend=options.backend, threads=options.threads, trust_engine=True)
    plan = make_plan(name_sources([str(bag)]), [resolve(options.model, run)], TruthOptions(), {})
    (source,) = plan.sources
    entry, opened = plan.entries[0], Opened()
    kinds = ("whole", "overlapped", "model", "reading")
    wall: dict[str, list[float]] = {name: [] for name in kinds}
    processor: dict[str, list[float]] = {name: [] for name in kinds}
    for number, part in enumerate(source.parts):
        truths = list(opened.open(source.source, plan.truth).frames(part))
        job = Job(source.source, plan.truth, part, plan.entries, source.protocol)
        contestant = opened.contestant(entry)

        def model(truths: Any = truths, contestant: Any = contestant) -> None:
            for truth in truths:
                contestant.answer(truth)

        def reading(part: Any = part) -> None:
            for _ in opened.open(source.source, plan.truth).frames(part):
                pass

        overlapped = replace(job, overlaps=True)
        if not number:
            model()  # warm
            answer_part(overlapped, opened)
            answer_part(replace(job, entries=(entry,)), opened)
        for name, work in (
            ("model", model),
            ("whole", lambda job=job: answer_part(job, opened)),
            ("overlapped", lambda job=overlapped: answer_part(job, opened)),
            ("reading", reading),
        ):
            before = seconds()
            work()
            after = seconds()
            wall[name].append(1e3 * (after[0] - before[0]) / len(truths))
            processor[name].append(1e3 * (after[1] - before[1]) / len(truths))
    for title, times in (("processor", processor), ("wall", wall)):
        each = {name: statistics.median(values) for name, values in times.items()}
        scoring = each["whole"] - each["model"] - each["reading"]
        print(
            f"{title:10}[ms/frame] whole {each['whole']:.1f}, overlapped {each['overlapped']:.1f}, "
            f"model {each['model']:.1f}, reading {each['reading']:.1f}, scoring {scoring:.1f}"
        )
        for name in ("whole", "overlapped"):
            ratios = [a / b for a, b in zip(times[name], times["model"], strict=True)]
            print(
                f"{'':10}{name} / model: median {statistics.median(ratios):.3f}, "
                f"{min(ratios):.3f} to {max(ratios):.3f} over {len(ratios)} parts"
            )
    print(f"most memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
