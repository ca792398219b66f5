"""A node is killed again and again in a small /dev/shm; the next one must still get its images.

Each killed process leaves the shared memory of its transport behind. Once /dev/shm is full of it,
images go over UDP and half of them are lost.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sensor_msgs.msg import Image
from tqdm import tqdm

from dense_perception.core.errors import InputError
from dense_perception.ros.convert import image_message
from dense_perception.ros.processes import ChildProcess
from dense_perception.ros.transport import local_environment, reserved_domain, transport_environment
from test.support.artefacts import write_red_artefact
from test.support.ros_probe import Probe, header, random_rgb

SHM = Path("/dev/shm")
RATE_HZ = 15.0
LEAST_SHARE = 0.99
_START_S = 60.0
_MOUNT = 'mount -t tmpfs -o size="$1"m tmpfs /dev/shm && shift && exec "$@"'


@dataclass
class SegmentsReport:
    """``used_mb``: of the files in /dev/shm while the node of each kill was alive.

    What a node removed and the probe has not let go of yet is none of it.
    """

    megabytes: int
    kills: int
    used_mb: list[float] = field(default_factory=list)
    sent: int = 0
    answered: int = 0

    @property
    def problems(self) -> list[str]:
        if self.answered >= LEAST_SHARE * self.sent > 0:
            return []
        return [f"{self.answered} of {self.sent} images answered, expected 99 %"]


def kill_nodes(
    *, kills: int, megabytes: int = 700, images: int = 200, quiet: bool = True
) -> SegmentsReport:
    """In a mount namespace with a /dev/shm of that size; ``images`` are sent after the kills.

    :raises InputError: if none can be made here.
    """
    unshare = ["unshare", "--mount"]
    if os.geteuid() != 0:
        unshare += ["--user", "--map-root-user"]
    trial = subprocess.run(
        [*unshare, "sh", "-c", _MOUNT, "sh", str(megabytes), "true"], capture_output=True, text=True
    )
    if trial.returncode:
        raise InputError(
            f"no /dev/shm of {megabytes} MB can be mounted here ({trial.stderr.strip()}): run it "
            "as root, or where user namespaces are allowed"
        )
    inner = [sys.executable, "-m", "test.fuzz.segments"]
    inner += [str(kills), str(images), str(int(quiet))]
    done = subprocess.run(
        [*unshare, "sh", "-c", _MOUNT, "sh", str(megabytes), *inner],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return SegmentsReport(megabytes, **json.loads(done.stdout.splitlines()[-1]))


def _inside(kills: int, count: int, quiet: bool) -> SegmentsReport:
    report = SegmentsReport(0, kills)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="segments_")))
        domain = stack.enter_context(reserved_domain())
        environment = {**local_environment(domain), **transport_environment()}
        os.environ.update(environment)
        write_red_artefact(folder / "red.onnx")
        probe = stack.enter_context(Probe(domain))
        images = probe.publisher(Image, "/image", match=False)
        depth = probe.collect(Image, f"{probe.target}/depth/image")
        message = image_message(random_rgb(640, 480), header(1), "rgb8")

        def start(number: int) -> ChildProcess:
            words = ["model", str(folder / "red.onnx")], ["backend", "onnxruntime"]
            arguments = [word for name, value in words for word in ("-p", f"{name}:={value}")]
            node = stack.enter_context(
                ChildProcess(
                    "dense_perception.ros.depth_node",
                    ["--ros-args", *arguments, "-p", "input_reliability:=best_effort"],
                    log=folder / f"{number}.log",
                    environment=environment,
                )
            )
            node.wait_for_text("waiting for images", _START_S)
            return node

        for number in tqdm(range(kills), unit="kill", disable=quiet):
            node = start(number)
            images.publish(message)
            used = sum(each.stat().st_blocks * 512 for each in SHM.iterdir())
            report.used_mb.append(round(used / 1e6, 1))
            node.stop(signal.SIGKILL)
        start(kills)
        probe.ask(1, lambda: images.publish(message), depth)
        due = time.monotonic()
        for number in range(count):
            message.header = header(100 + number)
            images.publish(message)
            report.sent += 1
            due += 1 / RATE_HZ
            time.sleep(max(0.0, due - time.monotonic()))
        time.sleep(2.0)
        stamps = {each.header.stamp.sec for each in depth.messages}
        report.answered = len(stamps & set(range(100, 100 + count)))
    return report


def table_of_segments(report: SegmentsReport) -> str:
    used = f"{min(report.used_mb)} to {max(report.used_mb)} MB" if report.used_mb else "nothing"
    lines = [
        f"{report.kills} kills in a /dev/shm of {report.megabytes} MB, {used} in use",
        f"then {report.answered} of {report.sent} images answered",
    ]
    return "\n".join([*lines, *(f"BROKEN: {problem}" for problem in report.problems)])


if __name__ == "__main__":
    found = asdict(_inside(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "1"))
    found.pop("megabytes")
    print(json.dumps(found))
