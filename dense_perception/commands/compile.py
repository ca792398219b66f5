"""``dense-perception compile``: an ONNX file becomes a checked engine in the cache."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from dense_perception.commands.output import show

if TYPE_CHECKING:
    from dense_perception.backends.engine_cache import Engine
    from dense_perception.core.onnx_file import OnnxFile
    from dense_perception.core.registry import Model

HELP = "Compile a model's files to engines in the cache, so that no node has to at its start."
EXAMPLES = """\
examples:
  dense-perception compile dpt_tiny_indoor --backend openvino
  dense-perception compile dpt_tiny_indoor --backend tensorrt --precision int8 --max-batch 4
  dense-perception compile dpt_tiny_indoor --backend torch_tensorrt --precision fp32
  dense-perception compile dpt_tiny_indoor --backend tensorrt --compute-capability 8.6 8.9 12.0

An engine is kept under what it was built for: the graph's hash, the runtime and its version, the
device and its driver, precision, shapes. If any of these changed, a new one is built. On the device
it is for, it is compared with ONNX Runtime before it is used. TensorRT for RTX builds for GPUs that
are not in this machine (--compute-capability); those engines are checked at their first load.
torch_tensorrt compiles the PyTorch network, in fp32 and fp16, for one image at a time.
"""


_TENSORRT_OPTIONS: dict[str, dict[str, Any]] = {
    "--compute-capability": {
        "nargs": "+",
        "default": [],
        "metavar": "X.Y",
        "help": "for RTX GPUs elsewhere",
    },
    "--max-batch": {"type": int, "default": 1, "metavar": "N", "help": "(default 1)"},
    "--workspace": {"type": int, "default": 0, "metavar": "MB", "help": "scratch memory"},
    "--dla-core": {"type": int, "default": -1, "metavar": "N", "help": "a Jetson's DLA"},
    "--version-compatible": {
        "action": "store_true",
        "default": False,
        "help": "load in later versions, same major",
    },
    "--hardware-compatible": {
        "default": "",
        "choices": ("ampere_plus", "same_compute_capability"),
    },
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a model's name (see `dense-perception models`) or file")
    parser.add_argument(
        "--backend", required=True, choices=("tensorrt", "torch_tensorrt", "openvino")
    )
    parser.add_argument("--precision", default="all", help="fp32, fp16, int8 or fp8 (default: all)")
    parser.add_argument("--device", help="cpu, gpu, cuda:1, dla:0 (default: the backend's usual)")
    parser.add_argument("--trust-engine", action="store_true", help="do not check the answers")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    group = parser.add_argument_group("tensorrt")
    for option, settings in _TENSORRT_OPTIONS.items():
        group.add_argument(option, **settings)


def main(options: argparse.Namespace) -> int:
    from dense_perception.core.registry import find_model

    _only_for_tensorrt(options)
    model = find_model(options.model)
    kinds = model.precisions if options.precision == "all" else (options.precision,)
    rows: list[dict[str, Any]] = []
    if options.backend == "torch_tensorrt":
        rows = _torch_tensorrt(model, kinds, options)
        kinds = ()
    for kind in kinds:
        file, _ = model.artefact(kind)
        if options.backend != "tensorrt":
            rows.append(_checked(options, kind))
            continue
        for row in _tensorrt(file, kind, options):
            rows.append(row if options.compute_capability else {**row, **_checked(options, kind)})
    show(rows, _table, options.json)
    return 1 if any(row["problem"] for row in rows) else 0


def _only_for_tensorrt(options: argparse.Namespace) -> None:
    """An option that would change nothing is refused: whoever gave it expects something of it."""
    from dense_perception.core.errors import InputError

    surplus = [
        option
        for option, settings in _TENSORRT_OPTIONS.items()
        if getattr(options, option[2:].replace("-", "_")) != settings["default"]
    ]
    if surplus and options.backend != "tensorrt":
        raise InputError(
            f"got {', '.join(surplus)} with --backend {options.backend}, expected them with "
            "--backend tensorrt only: leave them out"
        )


def _tensorrt(file: OnnxFile, kind: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    from tqdm import tqdm

    from dense_perception.backends.device import find_gpu, parse_device
    from dense_perception.backends.nvidia.build import TensorRtOptions
    from dense_perception.backends.nvidia.engine import compile_engine, engine_key, fp8_refusal
    from dense_perception.backends.nvidia.module import RTX, load_runtime

    index, dla_core = parse_device(options.device or "gpu", "tensorrt", dla=True)
    runtime, trt = load_runtime(RTX if options.compute_capability else None)
    gpu = None if options.compute_capability else find_gpu(index)
    rows = []
    for capability in options.compute_capability or [""]:
        wish = TensorRtOptions(
            max_batch=options.max_batch,
            workspace_mb=options.workspace,
            compute_capability=capability,
            dla_core=max(options.dla_core, dla_core),
            version_compatible=options.version_compatible,
            hardware_compatible=options.hardware_compatible,
        )
        key = engine_key(file, runtime, trt, wish, gpu)
        refusal = fp8_refusal(key, wish, trt, gpu)
        if refusal and options.precision == "all":
            print(f"passed over: {refusal}", file=sys.stderr)
            continue
        start = time.perf_counter()
        with tqdm(unit="step", disable=None, file=sys.stderr) as bar:

            def on_progress(phase: str, done: int, total: int, bar: Any = bar) -> None:
                bar.total, bar.n = total, done
                bar.set_description(phase)

            engine = compile_engine(file, runtime, trt, wish, gpu, on_progress)
        seconds = time.perf_counter() - start
        rows.append(_row(kind, engine, seconds, "at its first load"))
    return rows


def _row(kind: str, engine: Engine, seconds: float, check: str) -> dict[str, Any]:
    """An engine in the cache, as a line of the table."""
    return {
        "precision": kind,
        "runtime": f"{engine.key.runtime} {engine.key.version}",
        "device": engine.key.device,
        "MB": round(len(engine.payload) / 1e6, 1),
        "seconds": round(seconds, 1),
        "built": engine.built,
        "reason": engine.reason,
        "engine": str(engine.key.path),
        "check": check,
        "problem": engine.problem,
    }


def _torch_tensorrt(
    model: Model, kinds: tuple[str, ...], options: argparse.Namespace
) -> list[dict[str, Any]]:
    from dense_perception.backends.nvidia.torch import load_modules

    load_modules()  # says what is missing before PyTorch does

    from tqdm import tqdm

    from dense_perception.export.torch_program import PRECISIONS, compile_program

    if options.precision == "all":
        kinds = tuple(kind for kind in kinds if kind in PRECISIONS)
    rows: list[dict[str, Any]] = []
    for kind in tqdm(kinds, unit="program", disable=None, file=sys.stderr):
        start = time.perf_counter()
        engine = compile_program(model, kind, options.device or "gpu")
        row = _row(kind, engine, time.perf_counter() - start, "not stored")
        rows.append(row if engine.problem else {**row, **_checked(options, kind)})
    return rows


def _checked(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    """Load it as a node does, which compiles, stores and checks it."""
    from dense_perception.backends.select import select_backend
    from dense_perception.core.registry import find_model

    device = options.device or ("cpu" if options.backend == "openvino" else "gpu")
    start = time.perf_counter()
    backend, _, selection = select_backend(
        find_model(options.model),
        backend=options.backend,
        precision=kind,
        device=device,
        trust_engine=options.trust_engine,
    )
    try:
        taken = selection.backend == options.backend
        row: dict[str, Any] = {
            "precision": kind,
            "check": "agrees with ONNX Runtime" if taken else "refused",
            "problem": "; ".join(selection.warnings),
        }
        if options.backend == "openvino":
            row |= {
                "runtime": backend.description,
                "device": device,
                "seconds": round(time.perf_counter() - start, 1),
            }
        if options.trust_engine:
            row["check"] = "skipped"
        return row
    finally:
        backend.close()


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'':<6} {'runtime':<32} {'device':<38} {'MB':>7} {'s':>6}  check"]
    for row in rows:
        lines.append(
            f"{row['precision']:<6} {row['runtime']:<32} {row['device']:<38} "
            f"{row.get('MB', ''):>7} {row['seconds']:>6}  {row['check']}"
        )
        lines += [f"       {row[key]}" for key in ("engine", "problem") if row.get(key)]
    return "\n".join(lines)
