"""One training run from its configuration: the corpora, what is held out, and the record."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import torch

from dense_perception.core.errors import ArtefactError, CardError, TrainingError
from dense_perception.core.labels import LABEL_SETS, folded
from dense_perception.core.machine import keep_freed_memory
from dense_perception.core.printable import short
from dense_perception.core.registry import find_card, list_models
from dense_perception.data.check import (
    check_depth,
    check_labels,
    check_things,
    doubts,
    has_instances,
    has_labels,
    shows_things,
)
from dense_perception.data.corpus import Mixture, evenly, split
from dense_perception.data.sample import Frames, NamedFrames
from dense_perception.data.sources import open_frames, problems_of
from dense_perception.data.unnumbered import VoidUnnumbered
from dense_perception.nets.checkpoint import read_checkpoint
from dense_perception.nets.segmenter import score_norm_of
from dense_perception.nets.zoo import classes_of
from dense_perception.training import run_folder
from dense_perception.training.config import OWN_START, TrainingConfig
from dense_perception.training.engine import Placement
from dense_perception.training.figures import LABELLED
from dense_perception.training.initialisation import file_of
from dense_perception.training.instance_truth import thing_classes
from dense_perception.training.loop import Report, Task, fit
from dense_perception.training.provenance import LABELS, machine
from dense_perception.training.thing_scores import why_no_precision

# Held out of the training corpora where no validation corpus is given.
_HELD_OUT = 0.05


@dataclass(frozen=True)
class TrainOptions:
    """What to train on what; ``minutes``, ``steps`` and ``seed`` replace the configuration's.

    ``initial`` is a model.pt or an exported fp32 ONNX file to start from. ``shares`` are those of
    :class:`~dense_perception.data.corpus.Mixture`, by position in ``data``. ``device`` is cpu, cuda
    or auto: the GPU where PyTorch finds one; ``devices`` of them train on each of ``nodes``
    machines. ``workers`` processes prepare the batches of each device, 0 for a thread; None takes a
    thread for a CPU, and for GPUs all cores but two. ``augment`` says where views are made: by the
    ``loader``, on the ``device``, or ``auto``: on a GPU, but for a CPU by the loader, which is
    faster there.
    """

    config: Path
    data: Sequence[Path]
    out: Path
    validation: Sequence[Path] = ()
    resume: bool = False
    initial: Path | None = None
    minutes: float | None = None
    steps: int | None = None
    seed: int | None = None
    threads: int = 2
    validation_frames: int = 200
    shares: Mapping[int, float] = field(default_factory=dict)
    device: str = "auto"
    workers: int | None = None
    augment: str = "auto"
    devices: int = 1
    nodes: int = 1
    tensorboard: bool = False
    teacher: Path | None = None

    def command(self) -> str:
        """The command that makes the model, with folder names instead of this machine's paths."""
        words = ["dense-perception", "train", f"config/training/{self.config.name}"]
        for k, path in enumerate(self.data):
            share = f"={self.shares[k]:g}" if k in self.shares else ""
            words += ["--data", f"{path.name}{share}"]
        for path in self.validation:
            words += ["--validation", path.name]
        if self.initial is not None:
            words += ["--init", _short(self.initial)]
        if self.teacher is not None:
            words += ["--teacher", _short(self.teacher)]
        words += ["--out", self.out.name]
        for option, value in (
            ("--minutes", self.minutes),
            ("--steps", self.steps),
            ("--seed", self.seed),
            ("--threads", self.threads),
            ("--workers", self.workers),
            ("--augment", self.augment if self.augment != "auto" else None),
            ("--devices", self.devices if self.devices > 1 else None),
            ("--nodes", self.nodes if self.nodes > 1 else None),
        ):
            if value is not None:
                words += [option, value if isinstance(value, str) else f"{value:g}"]
        return " ".join(words if self.device == "auto" else [*words, "--device", self.device])


def _short(path: Path) -> str:
    """A file with its folder alone, a name as it is."""
    return f"{path.parent.name}/{path.name}".lstrip("/")


def train(options: TrainOptions, on_record: Report) -> dict[str, float]:
    """Train, and write checkpoints and ``model.pt`` to ``options.out``; returns the last metrics.

    Of several processes the first one alone returns metrics and reports.

    ``on_record`` gets each record of the loop: see :func:`~dense_perception.training.loop.fit`.

    :raises TrainingError: if the configuration or a corpus cannot be read, ``out`` holds a run
        that is not to be resumed, there is no GPU where one is asked for, or shares are given
        without ``validation``.
    """
    keep_freed_memory(activations=True)
    config = _overridden(TrainingConfig.from_yaml(options.config), options)
    device = _device(options.device)
    data = Mixture([open_frames(str(path)) for path in options.data], options.shares)
    frames: Frames = data
    validation: Frames
    if options.validation:
        given = Mixture([open_frames(str(path)) for path in options.validation])
        validation, validation_data, given_data = given, given.describe(), given
    elif options.shares:
        raise TrainingError(
            "a corpus with a share recurs, so nothing can be held out of it: give --validation DIR"
        )
    else:
        given_data = None
        frames, validation = split(data, _HELD_OUT)
        validation_data = [{"name": "held out", "frames": len(validation)}]
    is_begun = (options.out / run_folder.STATE_FILE).exists()
    if is_begun and not options.resume:
        raise TrainingError(
            f"{options.out} already holds a run: go on with it (--resume), or choose another --out"
        )
    named = options.initial or (Path(config.init) if config.init != OWN_START else None)
    initial = file_of(named) if named else None
    config = _with_classes(config, data, on_record)
    before = options.out / run_folder.STATE_FILE if is_begun else initial
    config = _with_score_norm(config, before, on_record)
    checked = () if options.teacher else data.corpora
    classes = _checked(config, checked, given_data.corpora if given_data else (), on_record)
    if options.teacher and not classes:
        classes = _taught_classes(config, options.teacher)
    judged = given_data.corpora if given_data else ()
    frames, validation = _with_void(config, (*data.corpora, *judged), frames, validation, on_record)
    options.out.mkdir(parents=True, exist_ok=True)
    task = Task(
        config=config,
        train=frames,
        validation=validation,
        validation_indices=evenly(len(validation), options.validation_frames),
        out=options.out,
        provenance={
            **({"classes": list(classes)} if classes else {}),
            "data": data.describe(),
            "validation_data": validation_data,
            "seed": config.seed,
            "command": options.command(),
            "machine": machine(device),
            **({"teacher": options.teacher.name} if options.teacher else {}),
        },
        initial=initial,
        # A run that was killed before it saved anything begins again with the same command.
        resume=options.resume and is_begun,
        placement=Placement(device, options.devices, options.nodes),
        workers=_workers(device, options.devices) if options.workers is None else options.workers,
        augment_on_device=options.augment == "device"
        or (options.augment == "auto" and device == "cuda"),
        tensorboard=options.tensorboard,
        teacher=options.teacher,
    )
    with _process_tuned(options.threads):
        return fit(task, on_record)


@contextmanager
def _process_tuned(threads: int) -> Iterator[None]:
    """Speed settings that hold for the whole process, taken back afterwards: it may go on to
    compute something else, whose smallest numbers must not be flushed to zero.
    """
    threads_before, opencv_before = torch.get_num_threads(), cv2.getNumThreads()
    flushed_before = sys.float_info.min / 2 == 0
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    # Batches are prepared beside the optimiser; OpenCV's own threads would only contend.
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        torch.set_flush_denormal(flushed_before)
        cv2.setNumThreads(opencv_before)


def _device(asked: str) -> str:
    found = torch.cuda.is_available()
    if asked == "cuda" and not found:
        raise TrainingError(
            "PyTorch finds no GPU: train with --device cpu, or install PyTorch for CUDA"
        )
    return "cuda" if found and asked != "cpu" else "cpu"


def _workers(device: str, devices: int) -> int:
    here = max(devices, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))  # torchrun's
    return max(1, ((os.cpu_count() or 1) - 2) // here) if device == "cuda" else 0


def _checked(
    config: TrainingConfig,
    data: Sequence[NamedFrames],
    validation: Sequence[NamedFrames],
    on_record: Report,
) -> tuple[str, ...]:
    """Refuse corpora that teach nothing or something else; returns the names of the classes."""
    classes = classes_of(config.network)
    labelled = bool(classes)
    names: tuple[str, ...] = ()
    unlabelled: list[str] = []
    labelled_data = False
    for corpus in (*data, *validation):
        if "depth" in config.tasks:
            check_depth(corpus, config.min_m, config.max_m)
        for doubt in [*problems_of(corpus), *doubts(corpus)]:
            on_record({"kind": "notice", "text": f"{corpus.name}: {doubt}"})
        if labelled:
            if has_labels(corpus):
                labelled_data = labelled_data or corpus in data
                found = check_labels(corpus, classes)
            else:
                unlabelled.append(corpus.name)
                if "instances" not in config.tasks or not has_instances(corpus):
                    continue
                found = check_things(corpus, classes)
            if found and names and folded(found) != folded(names):
                raise TrainingError(
                    f"{corpus.name} has the classes {short(list(found))}, another corpus "
                    f"{short(list(names))}: train on corpora of one list of classes"
                )
            names = names or found
    if "instances" in config.tasks and data:
        numberless = [corpus.name for corpus in data if not has_instances(corpus)]
        if len(numberless) == len(data):
            raise TrainingError(
                f"no corpus of {', '.join(numberless)} has instance ids, and the task 'instances' "
                "needs some: add a corpus whose things are numbered"
            )
        if numberless:
            text = f"no instance ids in {', '.join(numberless)}: their things teach nothing"
            on_record({"kind": "notice", "text": text})
        _check_shown(data, validation, on_record)
        if missing := why_no_precision():
            if config.keep_best == "box_ap50":
                missing += "; so best.pt is not kept, which goes by it"
            on_record({"kind": "notice", "text": missing})
    segmented = "segmentation" in config.tasks
    if segmented and data and not labelled_data:
        raise TrainingError(
            f"no corpus of {', '.join(corpus.name for corpus in data)} has labels, and "
            "the task 'segmentation' needs some: leave the task out, or add a labelled corpus"
        )
    if unlabelled and segmented:
        text = f"no labels in {', '.join(unlabelled)}: teaches every task but segmentation"
        on_record({"kind": "notice", "text": text})
    judged = validation or data
    if config.keep_best in LABELLED and judged and not (segmented and any(map(has_labels, judged))):
        text = (
            f"best.pt is not kept: keep_best is {config.keep_best}, and no labels are validated; "
            "set another figure, or give a labelled validation corpus"
        )
        on_record({"kind": "notice", "text": text})
    if labelled and data and not names:
        text = f"no corpus names its classes: the card names them as {LABELS} does"
        if classes != len(LABEL_SETS[LABELS].labels):
            text = (
                f"no corpus names its classes, of which the network has {classes}: `export` wants "
                "a card with their names (--card), or name them in corpus.json"
            )
        on_record({"kind": "notice", "text": text})
    return names


def _check_shown(
    data: Sequence[NamedFrames], validation: Sequence[NamedFrames], on_record: Report
) -> None:
    """Name the corpora with numbers whose pictures show no thing, which may be.

    :raises TrainingError: if nothing that is trained on shows one.
    """
    numbered = [corpus for corpus in (*data, *validation) if has_instances(corpus)]
    bare = [corpus for corpus in numbered if not shows_things(corpus)]
    if all(corpus in bare for corpus in numbered if corpus in data):
        raise TrainingError(
            f"no frame that was looked at of {', '.join(corpus.name for corpus in data)} shows a "
            "thing of a class, only crowds or none, and the task 'instances' needs some: add a "
            "corpus whose pictures show things"
        )
    if bare:
        names = ", ".join(dict.fromkeys(corpus.name for corpus in bare))
        text = (
            f"no thing of a class in {names}, as far as was looked: those pictures teach, or test, "
            "that there is none"
        )
        on_record({"kind": "notice", "text": text})


def _with_void(
    config: TrainingConfig,
    corpora: Sequence[NamedFrames],
    train: Frames,
    validation: Frames,
    on_record: Report,
) -> tuple[Frames, Frames]:
    """Both with pixels of things that have no number as void, which is said."""
    if "instances" not in config.tasks:
        return train, validation
    things, problems = thing_classes(config.network, corpora)
    for problem in problems:
        on_record({"kind": "notice", "text": problem})
    return VoidUnnumbered(train, things), VoidUnnumbered(validation, things)


def _with_classes(config: TrainingConfig, data: Mixture, on_record: Report) -> TrainingConfig:
    """With the corpora's number of classes, where a network of classes does not say its own."""
    if not {"segmentation", "instances"} & set(config.tasks):
        return config
    network = dict(config.network)
    if "classes" not in network:
        counts = {len(corpus.classes) for corpus in data.corpora} - {0}
        if len(counts) != 1:
            return config  # the check says what is wrong
        network["classes"] = counts.pop()
    return replace(config, network=network)


def _with_score_norm(
    config: TrainingConfig, before: Path | None, on_record: Report
) -> TrainingConfig:
    """With what Segmenter's mask decoder puts after its scores, where two classes leave it open.

    :param before: the file that the run goes on from, which decides.
    """
    network = dict(config.network)
    if (
        network.get("family") != "segmenter"
        or network.get("decoder", "mask") != "mask"
        or network.get("classes") != 2
        or "score_norm" in network
    ):
        return config
    try:
        found = score_norm_of(read_checkpoint(before).weights, 2) if before else None
    except (ArtefactError, CardError):
        found = None  # whoever loads it says what is wrong with it
    if found == "layer":
        text = (
            f"{before} has a LayerNorm over its two classes, which is kept (score_norm: layer) and "
            "leaves hardly a gradient: start with score_norm: scale to train that part anew"
        )
    else:
        network["score_norm"] = "scale"
        text = (
            "with two classes, Segmenter's LayerNorm over the classes leaves hardly a gradient: "
            "training with score_norm: scale instead (write score_norm: layer to keep it)"
        )
    on_record({"kind": "notice", "text": text})
    return replace(config, network=network)


def _taught_classes(config: TrainingConfig, teacher: Path) -> tuple[str, ...]:
    """The names of the teacher's classes, where the student learns them."""
    if "segmentation" not in config.tasks:
        return ()
    known = str(teacher) in list_models() and not teacher.exists()
    card = find_card(str(teacher)) if known else read_checkpoint(teacher).card()
    return card.segmentation.label_set.labels if card.segmentation else ()


def _overridden(config: TrainingConfig, options: TrainOptions) -> TrainingConfig:
    if options.minutes is not None:
        config = replace(config, minutes=options.minutes, steps=0)
    if options.steps is not None:
        config = replace(config, steps=options.steps)
    if options.seed is not None:
        config = replace(config, seed=options.seed)
    return config
