"""One cell of the parity table, measured in a process of its own: one file in one backend.

``python -m dense_perception.benchmarks.parity_cell REQUEST``, where REQUEST is a
:class:`CellRequest` as JSON. Prints one line of JSON: the measurements, or ``error``.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from dense_perception.backends.opening import is_gpu, open_backend
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import DensePerceptionError
from dense_perception.core.json_text import json_text
from dense_perception.core.registry import Model


class CellRequest(TypedDict):
    """``frames`` is an .npz of graph inputs, ``outputs`` the .npz to write."""

    file: str
    backend: str
    device: str
    threads: int
    runs: int
    frames: str
    outputs: str
    bag: str | None
    topic: str | None


def measure_cell(request: CellRequest) -> dict[str, Any]:
    """Build time in s, latency of one frame in ms, peak memory in MB, metrics on the bag.

    :raises DensePerceptionError: if the backend refuses the file.
    """
    path = Path(request["file"])
    with np.load(request["frames"]) as stored:
        feeds = {name: stored[name] for name in stored.files}
    held_mb = gpu_memory_mb() if is_gpu(request["device"]) else None
    start = time.perf_counter()
    if request["backend"] == "torch_tensorrt":  # which builds nothing when it is opened
        _compile_for_torch(path, request["device"])
    backend = open_backend(
        request["backend"], path, device=request["device"], threads=request["threads"]
    )
    build_s = time.perf_counter() - start
    singles = [
        {name: array[index : index + 1] for name, array in feeds.items()}
        for index in range(len(feeds["image"]))
    ]
    answers = [
        {name: array.copy() for name, array in backend.infer(single).items()} for single in singles
    ]
    times_ms = []
    for index in range(request["runs"]):
        start = time.perf_counter()
        backend.infer(singles[index % len(singles)])
        times_ms.append((time.perf_counter() - start) * 1e3)
    # Before the bag is read, which is not the model's doing.
    peak_mb = _peak_memory_mb()
    more = {}
    if held_mb is not None and (now_mb := gpu_memory_mb()) is not None:
        more["gpu_mb"] = round(now_mb - held_mb)
    backend.close()
    outputs = {name: np.concatenate([a[name] for a in answers]) for name in answers[0]}
    np.savez(request["outputs"], **outputs)  # type: ignore[arg-type]
    return {
        "build_s": round(build_s, 2),
        "runs_in": backend.description,
        "problem": "; ".join(filter(None, (backend.problem, backend.unstored))),
        "median_ms": round(float(np.median(times_ms)), 2),
        "p95_ms": round(float(np.percentile(times_ms, 95)), 2),
        "peak_mb": round(peak_mb),
        **more,
        "truth": _on_bag(request, request["bag"]) if request["bag"] else {},
    }


def gpu_memory_mb() -> float | None:
    """Memory of the first GPU that is in use by all programs, in MiB; ``None`` if nothing says."""
    asked = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout
        return float(said.split()[0])
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None


def _compile_for_torch(path: Path, device: str) -> None:
    """Its program into the cache; the network's weights are those of the fp32 file beside it."""
    from dense_perception.export.torch_program import compile_program

    card = ModelCard.from_onnx(path)
    beside = path.with_name(path.name.replace(f"_{card.precision}.onnx", "_fp32.onnx"))
    compile_program(
        Model(card, {card.precision: path, "fp32": beside}, path), card.precision, device
    )


def _on_bag(request: CellRequest, bag: str) -> dict[str, float]:
    """The metrics of ``dense-perception evaluate``."""
    from dense_perception.evaluation.bags import PairSource, evaluate_pairs
    from dense_perception.runtime.perceiver import Perceiver

    source = PairSource(Path(bag), topic=request["topic"])
    try:
        with Perceiver.load(
            request["file"],
            backend=request["backend"],
            device=request["device"],
            threads=request["threads"],
        ) as perceiver:
            report = evaluate_pairs(perceiver, source)
    finally:
        source.close()
    wanted = ("abs_rel", "d1", "aligned_abs_rel", "aligned_d1")
    return {name: round(v, 5) for name, v in report.means().items() if name in wanted}


def _peak_memory_mb() -> float:
    """The most memory this process has held, in MB.

    ``ru_maxrss`` outlives exec: in a child it starts at what its parent held, so a large caller
    would be measured in place of a small model. VmHWM belongs to the new program alone.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    try:
        answer = measure_cell(json.loads(sys.argv[1]))
    except DensePerceptionError as error:
        answer = {"error": str(error)}
    print(json_text(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
