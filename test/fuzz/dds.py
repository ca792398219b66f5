"""Mutated messages over DDS to a live node: well-formed ones with lying fields, and damaged CDR."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from tqdm import tqdm

from dense_perception.core.camera import Intrinsics
from dense_perception.ros.convert import CloudWriter, image_message
from dense_perception.ros.processes import ChildProcess
from dense_perception.ros.transport import local_environment, reserved_domain, transport_environment
from test.fuzz import messages
from test.fuzz.mutations import damaged, pick
from test.fuzz.pictures import valid
from test.fuzz.worker import MOST_GROWTH_MB, MOST_SECONDS, Finding, FuzzReport
from test.support.artefacts import write_red_artefact
from test.support.ros_probe import Collector, Probe, header, random_rgb

PHASES = (("raw", "none"), ("raw", "depth"), ("compressed", "none"), ("compressed", "points"))
BATCH = 100
_SCALE_KINDS = {"depth": Image, "points": PointCloud2}
_START_S = 60.0


def fuzz_dds(*, seed: int, count: int, quiet: bool = True) -> FuzzReport:
    """A node for each transport and source of scale gets a quarter of the messages.

    After every hundred a good image must be answered within two seconds.
    """
    report = FuzzReport("dds", seed, count)
    begin = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fuzz_")))
        domain = stack.enter_context(reserved_domain())
        environment = {**local_environment(domain), **transport_environment()}
        os.environ.update(environment)
        write_red_artefact(folder / "red.onnx")
        bar = stack.enter_context(tqdm(total=count, unit="message", desc="dds", disable=quiet))
        numbers = np.array_split(np.arange(count), len(PHASES))
        for (transport, source), part in zip(PHASES, numbers, strict=True):
            values = {
                "model": folder / "red.onnx",
                "backend": "onnxruntime",
                "threads": 1,
                "image_transport": transport,
                "scale_source": source,
                "input_reliability": "reliable",
            }
            words = [word for n, v in values.items() for word in ("-p", f"{n}:={v}")]
            node = ChildProcess(
                "dense_perception.ros.depth_node",
                ["--ros-args", *words],
                log=folder / f"{transport}_{source}.log",
                environment=environment,
            )
            try:
                with node, Probe(domain) as probe:
                    node.wait_for_text("waiting for images", _START_S)
                    _Phase(probe, node, transport, source, report).run(part, bar)
            except KeyboardInterrupt:
                report.count = bar.n
                break
    report.seconds = time.monotonic() - begin
    return report


class _Phase:
    """One node and what is sent to it."""

    def __init__(
        self, probe: Probe, node: ChildProcess, transport: str, source: str, report: FuzzReport
    ) -> None:
        self._node, self._report = node, report
        kind = Image if transport == "raw" else CompressedImage
        suffix = "" if transport == "raw" else "/compressed"
        self._images = probe.publisher(kind, f"/image{suffix}")
        make = messages.image if transport == "raw" else messages.compressed
        self._kinds: list[tuple[Any, Callable[[np.random.Generator], Any]]] = [
            (self._images, make),
            (self._images, make),
            (probe.publisher(CameraInfo, "/camera_info"), messages.camera_info),
        ]
        self._scale: Any = None
        if source != "none":
            self._scale = probe.publisher(_SCALE_KINDS[source], f"/scale/{source}")
            self._kinds.append((self._scale, messages.MEASUREMENTS[source]))
        self._is_cloud = source == "points"
        self._answers: Collector = probe.collect(Image, f"{probe.target}/depth/image")
        self._stamps = itertools.count(1_000)
        self._compressed = transport == "compressed"

    def run(self, numbers: np.ndarray, bar: Any) -> None:
        self._answered_s(60.0)
        self._reset_peak()
        start_mb = self._peak_mb()
        for place, number in enumerate(numbers):
            rng = np.random.default_rng([self._report.seed, int(number)])
            publisher, make = pick(rng, self._kinds)
            message = make(rng)
            if rng.random() < 0.3:
                message = damaged(serialize_message(message), rng)
            publisher.publish(message)
            bar.update()
            if place % BATCH == BATCH - 1 or place == len(numbers) - 1:
                self._check(int(number), start_mb)
                if self._node.returncode is not None:
                    return

    def _check(self, number: int, start_mb: float) -> None:
        seconds = self._answered_s(_START_S)
        if seconds > MOST_SECONDS:
            seconds = min(seconds, self._answered_s(_START_S))
        report = self._report
        ended = self._node.returncode
        if ended is not None:
            tail = self._node.log()[-300:]
            report.findings.append(Finding(number, "crash", f"code {ended}: {tail}"))
            return
        if seconds > MOST_SECONDS:
            report.findings.append(Finding(number, "hang", f"{seconds:.1f} s until an answer"))
        growth_mb = self._peak_mb() - start_mb
        if growth_mb > MOST_GROWTH_MB:
            report.findings.append(Finding(number, "memory", f"{growth_mb:.0f} MB over the start"))
            self._reset_peak()
        if "Traceback" in self._node.log():
            report.findings.append(Finding(number, "traceback", self._node.log()[-300:]))
        report.slowest_s = max(report.slowest_s, seconds)
        report.growth_mb = max(report.growth_mb, growth_mb)
        outcomes = report.outcomes
        outcomes["answered afterwards"] = outcomes.get("answered afterwards", 0) + 1

    def _answered_s(self, patience_s: float) -> float:
        """How long a good image takes, all before it included; sent again while nothing comes."""
        stamp = header(next(self._stamps))
        if self._compressed:
            data = valid(".jpg", np.random.default_rng(1))
            message: Any = CompressedImage(header=stamp, format="jpeg", data=data)
        else:
            message = image_message(random_rgb(), stamp, "rgb8")
        begin = again = time.monotonic()
        while self._node.returncode is None and time.monotonic() - begin < patience_s:
            if time.monotonic() >= again:
                if self._scale is not None:
                    self._scale.publish(self._measurement(stamp))
                self._images.publish(message)
                again += 0.25
            if self._answers.latest_with_stamp(stamp.stamp.sec):
                self._answers.messages.clear()
                return time.monotonic() - begin
            time.sleep(0.002)
        return time.monotonic() - begin

    def _measurement(self, stamp: Header) -> Image | PointCloud2:
        """A wall at two metres, without which there is no answer."""
        depth_m = np.full((24, 32), 2.0, np.float32)
        if self._is_cloud:
            return CloudWriter().cloud(depth_m, Intrinsics.from_fov(32, 24, 60.0), stamp)
        return image_message(depth_m, stamp, "32FC1")

    def _peak_mb(self) -> float:
        for line in Path(f"/proc/{self._node.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024 / 1e6
        return 0.0

    def _reset_peak(self) -> None:
        Path(f"/proc/{self._node.pid}/clear_refs").write_text("5")
