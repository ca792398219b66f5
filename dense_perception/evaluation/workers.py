"""Parts of an evaluation to processes: here, in workers of this machine, or on many through Ray."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace

import cv2

from dense_perception.core.errors import DensePerceptionError, InputError
from dense_perception.core.machine import end_with_parent, keep_freed_memory, usable_cores
from dense_perception.evaluation.parts import Job, Opened, answer_part

Texts = dict[str, str]
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# OpenCV rounds otherwise where one thread's rows end: always one, so that all workers agree.
_CV_THREADS = 1
_AHEAD = 2
_opened = Opened()


@dataclass(frozen=True)
class Workers:
    """How many processes, and with ``ray`` the address of a cluster (``local`` for this machine).

    Each worker's models get an equal share of the cores, unless their threads were named.
    """

    count: int = 1
    ray: str | None = None


def run_jobs(jobs: Sequence[Job], workers: Workers) -> Iterator[tuple[int, Texts]]:
    """What came of each job, with its number, in any order.

    :raises DensePerceptionError: if a source or a contestant cannot be opened (any more), or the
        cluster cannot be reached.
    """
    if not jobs:
        return
    if workers.ray is not None:
        yield from _on_cluster(jobs, workers)
        return
    count = min(workers.count, len(jobs))
    jobs = [_with_threads(job, max(1, usable_cores() // count)) for job in jobs]
    if count == 1:
        yield from _here(jobs)
    else:
        yield from _in_processes(jobs, count)


def _here(jobs: Sequence[Job]) -> Iterator[tuple[int, Texts]]:
    opened = Opened()
    keep_freed_memory()
    threads = cv2.getNumThreads()
    try:
        for index, job in enumerate(jobs):
            cv2.setNumThreads(_CV_THREADS)
            yield index, answer_part(job, opened)
    finally:
        opened.close()
        cv2.setNumThreads(threads)


def _in_processes(jobs: Sequence[Job], count: int) -> Iterator[tuple[int, Texts]]:
    before = {name: os.environ.get(name) for name in _THREADS}
    share = str(max(1, usable_cores() // count))
    # Read by the numeric libraries when they are loaded, so before the workers begin.
    os.environ.update(dict.fromkeys(_THREADS, share))
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(count, context, _begin) as pool:
            ahead = iter(enumerate(jobs))
            running: dict[Future[Texts], int] = {}

            def submit() -> None:
                for index, job in ahead:
                    running[pool.submit(_job, job)] = index
                    return

            for _ in range(count * _AHEAD):
                submit()
            try:
                while running:
                    for ended in wait(running, return_when=FIRST_COMPLETED).done:
                        index = running.pop(ended)
                        yield index, ended.result()
                        submit()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _begin() -> None:
    keep_freed_memory()
    end_with_parent()


def _job(job: Job) -> Texts:
    cv2.setNumThreads(_CV_THREADS)
    return answer_part(job, _opened)


def _on_cluster(jobs: Sequence[Job], workers: Workers) -> Iterator[tuple[int, Texts]]:
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
        ahead = iter(enumerate(jobs))
        running: dict[object, int] = {}
        slots = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        for index, job in ahead:
            running[remote.remote(_with_threads(job, share))] = index
            if len(running) >= slots:
                break
        while running:
            (ended,), _ = ray.wait(list(running), num_returns=1)
            index = running.pop(ended)
            try:
                texts = ray.get(ended)
            except ray.exceptions.RayTaskError as error:
                cause = error.cause
                raise cause if isinstance(cause, DensePerceptionError) else error from None
            yield index, texts
            for index, job in ahead:
                running[remote.remote(_with_threads(job, share))] = index
                break
    finally:
        ray.shutdown()


def _with_threads(job: Job, threads: int) -> Job:
    """The same job, its models on so many threads unless the user named a number."""
    entries = tuple(
        entry
        if entry.options.threads
        else replace(entry, options=replace(entry.options, threads=threads))
        for entry in job.entries
    )
    return replace(job, entries=entries)
