"""``dense-perception train``: from a configuration and corpora to a checkpoint."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dense_perception.commands.arguments import add_validation
from dense_perception.commands.output import print_json, say

if TYPE_CHECKING:
    from dense_perception.training.training_run import TrainOptions

HELP = "train a model on generated rooms or on your own recordings"
EXAMPLES = """\
examples:
  dense-perception train config/training/dpt_tiny_indoor.yaml \\
      --data corpora/rooms --validation corpora/rooms_val --out runs/tiny --minutes 60
  dense-perception train config/training/dpt_tiny_indoor.yaml \\
      --data corpora/rooms --validation corpora/rooms_val --out runs/tiny --minutes 60 --resume
  dense-perception train config/training/dpt_tiny_indoor.yaml \\
      --init models/dpt_tiny_indoor_fp32.onnx --data corpora/mine --out runs/mine --minutes 30
  dense-perception train config/training/dpt_tiny_indoor_gpu.yaml --device cuda \\
      --data corpora/rooms --data corpora/walk=0.15 --validation corpora/val --out runs/gpu
  dense-perception train config/training/depth_anything_v2_lora.yaml \\
      --init depth_anything_v2_small_hypersim --data corpora/mine --out runs/lora
  dense-perception train config/training/upernet_swin.yaml --init swin_tiny_imagenet \\
      --data corpora/mine --out runs/labels
  dense-perception train config/training/dpt_tiny_indoor.yaml --init dpt_tiny_indoor \\
      --teacher depth_anything_v2_small_hypersim --data corpora/unlabelled --out runs/student
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="training configuration, YAML")
    parser.add_argument(
        "--data",
        type=_corpus,
        action="append",
        required=True,
        metavar="DIR[=SHARE]",
        help="corpus, and what share of the samples comes from it (0.15; default: each frame is "
        "equally likely); repeats",
    )
    add_validation(
        parser, "corpus to validate on; repeats; default: the last 5 %% of the data, not trained on"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="run folder")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in --out, if one is begun"
    )
    parser.add_argument(
        "--init",
        type=Path,
        metavar="FILE",
        help="start from the weights of another model.pt, an exported fp32 ONNX file, a model's "
        "name, a published checkpoint of the network or its backbone (ImageNet, DINOv2, BEiT, "
        "Swin), or the name of such a backbone, which is fetched (see `fetch --help`); default: "
        "the configuration's `init`",
    )
    parser.add_argument(
        "--teacher",
        type=Path,
        metavar="FILE",
        help="learn what this model says instead of the truth of --data, which needs none: a "
        "model.pt, an exported fp32 ONNX file or a model's name",
    )
    parser.add_argument("--minutes", type=float, help="length of the run, over the configuration's")
    parser.add_argument("--steps", type=int, help="length in steps, over the configuration's")
    parser.add_argument("--seed", type=int, help="over the configuration's")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: the GPU where PyTorch finds one (default %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that prepare batches; 0: one thread (default: 0 on a CPU, for a GPU all "
        "cores but two)",
    )
    parser.add_argument(
        "--augment",
        choices=("auto", "loader", "device"),
        default="auto",
        help="where views are cut and their colours changed: by whoever loads frames, or on the "
        "device in whole batches; auto: on a GPU, but for a CPU by the loader, which is faster "
        "there (default %(default)s)",
    )
    parser.add_argument(
        "--devices",
        type=int,
        default=1,
        metavar="N",
        help="GPUs, or processes on a CPU, on this machine; the samples are the same with any "
        "number of them (default 1)",
    )
    parser.add_argument(
        "--nodes",
        type=int,
        default=1,
        metavar="N",
        help="machines: run the same command on each, with MASTER_ADDR, MASTER_PORT and NODE_RANK "
        "in its environment, or under torchrun (default 1)",
    )
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="curves and pictures for TensorBoard in the run folder",
    )
    parser.add_argument(
        "--validation-frames", type=int, default=200, metavar="N", help="at most (default 200)"
    )
    parser.add_argument("--json", action="store_true", help="print every record as a JSON line")


def _corpus(text: str) -> tuple[Path, float | None]:
    folder, equals, share = text.rpartition("=")
    if not equals:
        return Path(text), None
    try:
        return Path(folder), float(share)
    except ValueError:
        return Path(text), None


def main(options: argparse.Namespace) -> int:
    # Read when PyTorch is first loaded: threads that wait sleep, since others may need the core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Each process of several would say that its search for unread parameters finds none.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from dense_perception.training.run_folder import MODEL_FILE
    from dense_perception.training.training_run import TrainOptions, train

    wanted = TrainOptions(
        config=options.config,
        data=[folder for folder, _ in options.data],
        shares={k: share for k, (_, share) in enumerate(options.data) if share is not None},
        out=options.out,
        validation=options.validation,
        resume=options.resume,
        initial=options.init,
        minutes=options.minutes,
        steps=options.steps,
        seed=options.seed,
        threads=options.threads,
        validation_frames=options.validation_frames,
        device=options.device,
        workers=options.workers,
        augment=options.augment,
        devices=options.devices,
        nodes=options.nodes,
        tensorboard=options.tensorboard,
        teacher=options.teacher,
    )
    _fetch(wanted, quiet=options.json)
    printer = _Printer(options.json)
    try:
        results = train(wanted, printer.show)
    finally:
        printer.close()
    if results and not options.json:
        say(f"{options.out / MODEL_FILE}: {_line(results)}")
    return 0


def _fetch(options: TrainOptions, *, quiet: bool) -> None:
    """Get the weights of a published backbone that the run starts from and this machine lacks."""
    from dense_perception.commands.fetch import fetch_backbone
    from dense_perception.nets.backbones import BACKBONES, backbone_path
    from dense_perception.training.config import TrainingConfig

    name = str(options.initial or TrainingConfig.from_yaml(options.config).init)
    if name not in BACKBONES or Path(name).exists() or backbone_path(name).is_file():
        return
    published = BACKBONES[name]
    if not quiet:
        say(f"fetching {name} ({published.licence}) from {published.source.url}")
    fetch_backbone(name, progress=not quiet)


class _Printer:
    """A progress bar for people, JSON lines for programs."""

    def __init__(self, as_json: bool) -> None:
        from tqdm import tqdm

        self.as_json = as_json
        # Of the processes of one run, the first one alone speaks.
        names = ("RANK", "LOCAL_RANK", "NODE_RANK")
        self.is_silent = any(os.environ.get(name, "0") != "0" for name in names)
        self.bar = tqdm(
            total=100,
            unit="%",
            disable=as_json or self.is_silent,
            mininterval=1.0,
            bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}",
        )

    def show(self, record: Mapping[str, Any]) -> None:
        if self.is_silent:
            return
        if self.as_json:
            print_json(record)
            return
        if record["kind"] in ("initialisation", "notice", "unreadable"):
            self.bar.write(record["text"])
            return
        if "parameters" in record:
            share = record["trained"] / record["parameters"]
            self.bar.write(
                f"trains {record['trained']:,} of {record['parameters']:,} parameters "
                f"({share:.1%}), in {record['memory_mb']:,} MB"
            )
        self.bar.n = round(100 * record["share"], 2)
        if record["kind"] == "validation":
            self.bar.write(f"step {record['step']}: {_line(record)}")
        else:
            self.bar.set_postfix_str(
                f"step {record['step']} loss {record['loss']:.4f}, "
                f"{record['waiting']:.0%} waiting for data"
            )

    def close(self) -> None:
        self.bar.close()


def _line(results: Mapping[str, Any]) -> str:
    depth = ("abs_rel", "d1", "aligned_abs_rel", "aligned_d1")
    further = ("miou", "normals_mean_deg", "things_pq", "box_ap50")
    names = (*depth, "depth_normals_median_deg", "edge_share", *further)
    return ", ".join(f"{name} {results[name]:.4f}" for name in names if name in results)
