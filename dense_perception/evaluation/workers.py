"""Parts of an evaluation to processes: here, in workers of this machine, or on many through Ray."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import contextmanager
from dataclasses import dataclass, replace

import cv2

from dense_perception.core.errors import BackendError, DensePerceptionError, InputError
from dense_perception.core.machine import end_with_parent, keep_freed_memory, usable_cores
from dense_perception.evaluation.ahead import repeatable_opencv
from dense_perception.evaluation.parts import Job, Opened, answer_part

Texts = dict[str, str]
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_AHEAD = 2
_MOST_LOST = 8  # in a row: then it is no matter of the parts
_ENDED = "its worker was ended by the system, as for want of memory"
_NO_MEMORY = "its worker ran out of memory"
_CURE = "give fewer --workers, smaller images (--max-pixels) or a smaller model, and run again"
_opened = Opened()


@dataclass(frozen=True)
class Workers:
    """How many processes, and with ``ray`` the address of a cluster (``local`` for this machine).

    Each worker's models get an equal share of the cores, unless their threads were named.
    """

    count: int = 1
    ray: str | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """A job that ended its worker, and how; the others are not concerned."""

    why: str


def run_jobs(jobs: Sequence[Job], workers: Workers) -> Iterator[tuple[int, Texts | Lost]]:
    """What came of each job, with its number, in any order.

    :raises DensePerceptionError: if a source or a contestant cannot be opened (any more), no
        worker lives, or the cluster cannot be reached.
    """
    if not jobs:
        return
    if workers.ray is not None:
        yield from _on_cluster(jobs, workers)
        return
    count = min(workers.count, len(jobs))
    jobs = [_sharing(job, max(1, usable_cores() // count), count) for job in jobs]
    if workers.count == 1:
        yield from _here(jobs)
    else:
        yield from _in_processes(jobs, count)


def _here(jobs: Sequence[Job]) -> Iterator[tuple[int, Texts | Lost]]:
    opened = Opened()
    keep_freed_memory()
    threads, is_intel = cv2.getNumThreads(), cv2.ipp.useIPP()
    try:
        for index, job in enumerate(jobs):
            repeatable_opencv()
            yield index, _answered(job, opened)
    finally:
        opened.close()
        cv2.setNumThreads(threads)
        cv2.ipp.setUseIPP(is_intel)


def _in_processes(jobs: Sequence[Job], count: int) -> Iterator[tuple[int, Texts | Lost]]:
    left, lost = dict.fromkeys(range(len(jobs))), 0
    with _shared_cores(count):
        while left:
            begun: set[int] = set()
            try:
                for index, came in _in_pool(jobs, list(left), count, begun):
                    del left[index]
                    lost = 0
                    yield index, came
            except BrokenExecutor:
                # It does not say whose worker ended: those that had begun are tried one by one.
                for index in sorted(begun):
                    del left[index]
                    alone = _alone(jobs, index)
                    lost = lost + 1 if isinstance(alone, Lost) else 0
                    yield index, alone
                    if isinstance(alone, Lost) and lost == _MOST_LOST:
                        raise BackendError(
                            f"{lost} parts one after the other: {alone.why}"
                        ) from None


def _alone(jobs: Sequence[Job], index: int) -> Texts | Lost:
    try:
        ((_, came),) = _in_pool(jobs, [index], 1, set())
    except BrokenExecutor:
        return Lost(f"{_ENDED}: {_CURE}")
    return came


def _in_pool(
    jobs: Sequence[Job], indices: list[int], count: int, begun: set[int]
) -> Iterator[tuple[int, Texts | Lost]]:
    """Those of ``indices``; ``begun`` has the ones that were handed out and did not come yet.

    :raises BrokenExecutor: if a worker ends.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, _begin) as pool:
        ahead = iter(indices)
        running: dict[Future[Texts | Lost], int] = {}

        def submit() -> None:
            for index in ahead:
                begun.add(index)
                running[pool.submit(_job, jobs[index])] = index
                return

        try:
            for _ in range(count * _AHEAD):
                submit()
            while running:
                for ended in wait(running, return_when=FIRST_COMPLETED).done:
                    came = ended.result()
                    index = running.pop(ended)
                    begun.remove(index)
                    yield index, came
                    submit()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _shared_cores(count: int) -> Iterator[None]:
    """Processes that begin meanwhile get a share of the cores."""
    before = {name: os.environ.get(name) for name in _THREADS}
    share = str(max(1, usable_cores() // count))
    # Read by the numeric libraries when they are loaded, so before the workers begin.
    os.environ.update(dict.fromkeys(_THREADS, share))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _begin() -> None:
    keep_freed_memory()
    end_with_parent()


def _job(job: Job) -> Texts | Lost:
    repeatable_opencv()
    return _answered(job, _opened)


def _answered(job: Job, opened: Opened) -> Texts | Lost:
    try:
        return answer_part(job, opened)
    except MemoryError:
        return Lost(f"{_NO_MEMORY}: {_CURE}")


def _on_cluster(jobs: Sequence[Job], workers: Workers) -> Iterator[tuple[int, Texts | Lost]]:
    """Ray's workers are processes that live on, so a model is loaded once in each; data has to lie
    under the same path on every machine, and scores come back to this one."""
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "--ray needs the package ray: pip install 'dense_perception[ray]'"
        ) from error
    address = None if workers.ray == "local" else workers.ray
    try:
        if address is None:
            ray.init(
                num_cpus=max(1, workers.count),
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
            )
        else:
            ray.init(address=address, log_to_driver=False)
    except Exception as error:  # Ray raises its own and plain ones
        raise InputError(f"cannot reach the cluster {workers.ray}: {error}") from error
    try:
        share = max(1, usable_cores() // workers.count) if address is None else 1
        environment = {"env_vars": dict.fromkeys(_THREADS, str(share))}
        remote = ray.remote(num_cpus=1, runtime_env=environment)(_job)
        count = max(1, int(ray.cluster_resources().get("CPU", 1)))
        ahead = iter(enumerate(_sharing(job, share, count) for job in jobs))
        running: dict[object, int] = {}
        for index, job in ahead:
            running[remote.remote(job)] = index
            if len(running) >= _AHEAD * count:
                break
        while running:
            (ended,), _ = ray.wait(list(running), num_returns=1)
            index = running.pop(ended)
            came: Texts | Lost
            try:
                came = ray.get(ended)
            except ray.exceptions.RayTaskError as error:
                cause = error.cause
                raise cause if isinstance(cause, DensePerceptionError) else error from None
            except ray.exceptions.RayError:  # Ray has tried it several times
                came = Lost(f"{_ENDED}: {_CURE}")
            yield index, came
            for index, job in ahead:
                running[remote.remote(job)] = index
                break
    finally:
        ray.shutdown()


def _sharing(job: Job, threads: int, workers: int) -> Job:
    """The same job beside so many ``workers``, its models on so many threads unless the user named
    a number. A worker with a core for itself alone has nothing to overlap with."""
    entries = tuple(
        entry
        if entry.options.threads
        else replace(entry, options=replace(entry.options, threads=threads))
        for entry in job.entries
    )
    return replace(job, entries=entries, workers=workers, overlaps=threads > 1)
