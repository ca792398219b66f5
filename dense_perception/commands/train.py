"""``dense-perception train``: from a configuration and corpora to a checkpoint."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

HELP = "train a model on generated rooms or on your own recordings"
EXAMPLES = """\
examples:
  dense-perception train config/training/dpt_tiny_indoor.yaml \\
      --data corpora/rooms --validation corpora/rooms_val --out runs/tiny --minutes 60
  dense-perception train config/training/dpt_tiny_indoor.yaml \\
      --data corpora/rooms --validation corpora/rooms_val --out runs/tiny --minutes 60 --resume
  dense-perception train config/training/dpt_tiny_indoor.yaml \\
      --init models/dpt_tiny_indoor_fp32.onnx --data corpora/mine --out runs/mine --minutes 30
"""
# Held out of the training corpora where no validation corpus is given.
_HELD_OUT = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="training configuration, YAML")
    parser.add_argument(
        "--data", type=Path, action="append", required=True, metavar="DIR", help="corpus; repeats"
    )
    parser.add_argument(
        "--validation",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="corpus to validate on; repeats; default: the last 5 %% of the data, not trained on",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="run folder")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument(
        "--init",
        type=Path,
        metavar="FILE",
        help="start from the weights of another model.pt, an exported fp32 ONNX file, or a "
        "published checkpoint of the network or its backbone (ImageNet, DINOv2, BEiT, Swin)",
    )
    parser.add_argument("--minutes", type=float, help="length of the run, over the configuration's")
    parser.add_argument("--steps", type=int, help="length in steps, over the configuration's")
    parser.add_argument("--seed", type=int, help="over the configuration's")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument(
        "--validation-frames", type=int, default=200, metavar="N", help="at most (default 200)"
    )
    parser.add_argument("--json", action="store_true", help="print every record as a JSON line")


def main(args: argparse.Namespace) -> int:
    from dense_perception.core.machine import keep_freed_memory

    keep_freed_memory(activations=True)
    # Read when torch is first loaded: threads that wait sleep, since other work may need the core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    from dense_perception.data.corpus import Corpus, Mixture, evenly, split
    from dense_perception.training import run_folder
    from dense_perception.training.batches import one_thread_for_opencv
    from dense_perception.training.config import TrainingConfig
    from dense_perception.training.loop import Task, fit
    from dense_perception.training.provenance import machine

    config = _overridden(TrainingConfig.from_yaml(args.config), args)
    train: Any = Mixture([Corpus(path) for path in args.data])
    data = train.describe()
    if args.validation:
        validation: Any = Mixture([Corpus(path) for path in args.validation])
        validation_data = validation.describe()
    else:
        train, validation = split(train, _HELD_OUT)
        validation_data = [{"name": "held out", "frames": len(validation)}]
    args.out.mkdir(parents=True, exist_ok=True)
    _refuse_overwriting(args, run_folder.STATE_FILE)
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    one_thread_for_opencv()
    task = Task(
        config=config,
        train=train,
        validation=validation,
        validation_indices=evenly(len(validation), args.validation_frames),
        out=args.out,
        provenance={
            "data": data,
            "validation_data": validation_data,
            "seed": config.seed,
            "command": _command(args),
            "machine": machine(),
        },
        initial=args.init,
        resume=args.resume,
    )
    printer = _Printer(args.json)
    try:
        results = fit(task, printer.show)
    finally:
        printer.close()
    if not args.json:
        print(f"{args.out / run_folder.MODEL_FILE}: {_line(results)}")
    return 0


def _overridden(config: Any, args: argparse.Namespace) -> Any:
    changes: dict[str, Any] = {}
    if args.minutes is not None:
        changes |= {"minutes": args.minutes, "steps": 0}
    if args.steps is not None:
        changes["steps"] = args.steps
    if args.seed is not None:
        changes["seed"] = args.seed
    return replace(config, **changes)


def _refuse_overwriting(args: argparse.Namespace, state_file: str) -> None:
    from dense_perception.core.errors import TrainingError

    if not args.resume and (args.out / state_file).exists():
        raise TrainingError(
            f"{args.out} already holds a run: go on with it (--resume), or choose another --out"
        )


def _command(args: argparse.Namespace) -> str:
    """The command that made the model, with folder names instead of this machine's paths."""
    words = ["dense-perception", "train", f"config/training/{args.config.name}"]
    for option, paths in (("--data", args.data), ("--validation", args.validation)):
        for path in paths:
            words += [option, path.name]
    if args.init is not None:
        words += ["--init", f"{args.init.parent.name}/{args.init.name}"]
    words += ["--out", args.out.name]
    for option in ("minutes", "steps", "seed"):
        if getattr(args, option) is not None:
            words += [f"--{option}", f"{getattr(args, option):g}"]
    return " ".join([*words, "--threads", str(args.threads)])


class _Printer:
    """A progress bar for people, JSON lines for programs."""

    def __init__(self, as_json: bool) -> None:
        from tqdm import tqdm

        self.as_json = as_json
        self.bar = tqdm(
            total=100,
            unit="%",
            disable=as_json,
            mininterval=1.0,
            bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}",
        )

    def show(self, record: dict[str, Any]) -> None:
        if self.as_json:
            print(json.dumps(record), flush=True)
            return
        if record["kind"] == "initialisation":
            self.bar.write(record["text"])
            return
        self.bar.n = round(100 * record["share"], 2)
        if record["kind"] == "validation":
            self.bar.write(f"step {record['step']}: {_line(record)}")
        else:
            self.bar.set_postfix_str(f"step {record['step']} loss {record['loss']:.4f}")

    def close(self) -> None:
        self.bar.close()


def _line(results: dict[str, Any]) -> str:
    names = ("abs_rel", "d1", "aligned_abs_rel", "aligned_d1", "miou", "normals_mean_deg")
    return ", ".join(f"{name} {results[name]:.4f}" for name in names if name in results)
