"""``dense-perception compile``: an ONNX file becomes a checked engine in the cache."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from dense_perception.commands.output import show

if TYPE_CHECKING:
    from dense_perception.export.compile import CompiledRow

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


_MAX_BATCH = "--max-batch"
_TAKE_MAX_BATCH = ("tensorrt", "onnxruntime_tensorrt")
_TENSORRT_OPTIONS: dict[str, dict[str, Any]] = {
    "--compute-capability": {
        "nargs": "+",
        "default": [],
        "metavar": "X.Y",
        "help": "for RTX GPUs elsewhere",
    },
    _MAX_BATCH: {
        "type": int,
        "default": 1,
        "metavar": "N",
        "help": "images at once (default 1); onnxruntime_tensorrt takes it, too",
    },
    "--workspace": {"type": int, "default": 0, "metavar": "MB", "help": "scratch memory"},
    "--dla-core": {
        "type": int,
        "default": -1,
        "metavar": "N",
        "help": "a Jetson's DLA, for fp16 and int8; as --device dla:N",
    },
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
        "--backend",
        required=True,
        choices=("tensorrt", "torch_tensorrt", "onnxruntime_tensorrt", "openvino"),
    )
    parser.add_argument("--precision", default="all", help="fp32, fp16, int8 or fp8 (default: all)")
    parser.add_argument("--device", help="cpu, gpu, cuda:1, dla:0 (default: the backend's usual)")
    parser.add_argument("--trust-engine", action="store_true", help="do not check the answers")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--progress", action="store_true", help="print the progress in lines, for other programs"
    )
    group = parser.add_argument_group("tensorrt")
    for option, settings in _TENSORRT_OPTIONS.items():
        group.add_argument(option, **settings)


def main(options: argparse.Namespace) -> int:
    """Returns 0, or 1 if an engine was refused or not stored, or one of several was not built.

    Slower ones are noted. That the only one was not built is raised, which ends the command with 2.
    """
    from dense_perception.export.compile import CompileOptions, compile_model

    _only_for_tensorrt(options)
    rows = compile_model(
        CompileOptions(
            model=options.model,
            backend=options.backend,
            precision=options.precision,
            device=options.device or "",
            trust_engine=options.trust_engine,
            compute_capabilities=options.compute_capability,
            max_batch=options.max_batch,
            workspace_mb=options.workspace,
            dla_core=options.dla_core,
            version_compatible=options.version_compatible,
            hardware_compatible=options.hardware_compatible,
            progress_in_lines=options.progress,
        )
    )
    show(rows, _table, options.json)
    return int(any(row["problem"] for row in rows))


def _only_for_tensorrt(options: argparse.Namespace) -> None:
    """An option that would change nothing is refused: whoever gave it expects something of it."""
    from dense_perception.core.errors import InputError

    surplus = [
        option
        for option, settings in _TENSORRT_OPTIONS.items()
        if getattr(options, option[2:].replace("-", "_")) != settings["default"]
        and options.backend not in (_TAKE_MAX_BATCH if option == _MAX_BATCH else ("tensorrt",))
    ]
    if surplus:
        raise InputError(
            f"got {', '.join(surplus)} with --backend {options.backend}, expected them with "
            f"--backend tensorrt only ({_MAX_BATCH} also with onnxruntime_tensorrt): leave them out"
        )


def _table(rows: list[CompiledRow]) -> str:
    lines = [f"{'':<6} {'runtime':<32} {'device':<38} {'MB':>7} {'s':>6}  check"]
    for row in rows:
        lines.append(
            f"{row['precision']:<6} {row['runtime']:<32} {row['device']:<38} "
            f"{row.get('MB', ''):>7} {row['seconds']:>6}  {row['check']}"
        )
        lines += [f"       {row[key]}" for key in ("engine", "problem") if row.get(key)]
        lines += [f"       note: {row['note']}"] if row.get("note") else []
    return "\n".join(lines)
