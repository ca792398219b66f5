"""Runs a generator over all shards of a corpus, in worker processes, resuming what is there."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from dense_perception.core.errors import InputError, TrainingError
from dense_perception.core.json_text import json_text, parse_json
from dense_perception.core.machine import end_with_parent
from dense_perception.core.storage import atomic_write_text
from dense_perception.data.description import write_description
from dense_perception.data.numpy_layout import shard_folders
from dense_perception.data.sample import Sample
from dense_perception.data.shards import scan, shard_path, write_shard

NICENESS = 10


class Generator(Protocol):
    """A source of frames. Instances travel to worker processes, so they must be picklable."""

    @property
    def name(self) -> str:
        """Its name on the command line."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the label images; 0 is void."""

    @property
    def frames_per_shard(self) -> int:
        """How many frames a full shard holds."""

    def settings(self) -> dict[str, object]:
        """What must be equal for a corpus to be continued; JSON types."""

    def assets(self) -> list[dict[str, str]]:
        """Name, licence and source of the material."""

    def make_shard(
        self, seed: int, index: int, frames: int, width: int, height: int
    ) -> list[Sample]:
        """The first ``frames`` frames of a shard: a pure function of its arguments."""


def corpus(
    generator: Generator,
    out: Path,
    frames: int,
    size: tuple[int, int],
    seed: int,
    workers: int = 1,
    command: str = "",
) -> None:
    """Generate a corpus of ``frames`` frames of ``size`` (width, height) into ``out``.

    Finished shards are kept; a corpus can be continued, or enlarged with more ``frames``.

    :raises InputError: when ``out`` holds a corpus made with other settings.
    :raises TrainingError: when a worker process dies.
    """
    from tqdm import tqdm

    out = Path(out)
    settings = {
        "generator": generator.name,
        "width": size[0],
        "height": size[1],
        "seed": seed,
        "frames_per_shard": generator.frames_per_shard,
        **generator.settings(),
    }
    _check_settings(out, settings)
    counts = shard_sizes(frames, generator.frames_per_shard)
    todo = [i for i, count in enumerate(counts) if _frames_in(out, i) < count]
    done = frames - sum(counts[i] for i in todo)
    with tqdm(total=frames, initial=done, unit="frame") as bar:
        if workers == 1:
            for i in todo:
                bar.update(_job(generator, out, seed, i, counts[i], size))
        elif todo:
            with worker_pool(min(workers, len(todo)), "finished shards") as pool:
                jobs = [pool.submit(_job, generator, out, seed, i, counts[i], size) for i in todo]
                for job in concurrent.futures.as_completed(jobs):
                    bar.update(job.result())
    write_description(
        out,
        {
            "name": out.name,
            **settings,
            "frames": frames,
            "classes": list(generator.classes),
            "command": command,
            "assets": generator.assets(),
        },
    )


def shard_sizes(frames: int, per_shard: int) -> list[int]:
    """Frames of each shard; the last may be smaller."""
    whole, rest = divmod(frames, per_shard)
    return [per_shard] * whole + ([rest] if rest else [])


def _frames_in(out: Path, index: int) -> int:
    """Frames of a finished shard, 0 where there is none or it cannot be read."""
    try:
        path = shard_path(out, index)
        return len(scan(path)) if path.exists() else 0
    except TrainingError:
        return 0


def _check_settings(out: Path, settings: dict[str, object]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if shard_folders(out):
        raise InputError(
            f"{out} holds a corpus in the earlier layout, which cannot be continued: turn it into "
            "shards with `dense-perception data convert`, or choose another --out"
        )
    path = out / "settings.json"
    if path.exists():
        try:
            found = parse_json(path.read_text())
        except ValueError:
            found = None
        if found != settings:
            found = found if isinstance(found, dict) else {}
            different = sorted(k for k in settings if found.get(k) != settings[k])
            raise InputError(
                f"{out} was begun with other settings ({', '.join(different)}): give those of "
                f"{path} to go on, or another --out"
            )
        return
    atomic_write_text(path, json_text(settings, indent=1) + "\n")


@contextmanager
def worker_pool(count: int, kept: str) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """Processes for jobs; Ctrl-C and SIGTERM end them at once, an error after what they are at.

    :param kept: what a job leaves when it is done, in the plural, for the message.
    :raises TrainingError: when one of them dies.
    """
    context = multiprocessing.get_context("spawn")
    others = {process.pid for process in multiprocessing.active_children()}
    with concurrent.futures.ProcessPoolExecutor(count, context, _start_worker) as pool:
        try:
            yield pool
        except concurrent.futures.BrokenExecutor as error:
            raise TrainingError(
                f"a worker process died ({error}): {kept} are kept, run the same command again, "
                "with fewer --workers if memory was short"
            ) from error
        except Exception:
            pool.shutdown(cancel_futures=True)
            raise
        except BaseException:
            # A job may take a minute, and half of one is of no use.
            for process in multiprocessing.active_children():
                if process.pid not in others:
                    process.terminate()
            raise


def _start_worker() -> None:
    """What each worker process does first: it yields to others, and ends with its parent."""
    # Ctrl-C goes to all processes of a terminal: the parent ends these, without their tracebacks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    end_with_parent()


def _job(
    generator: Generator, out: Path, seed: int, index: int, frames: int, size: tuple[int, int]
) -> int:
    write_shard(out, index, generator.make_shard(seed, index, frames, *size))
    return frames
