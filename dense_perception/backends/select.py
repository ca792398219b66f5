"""Open a model in a backend; ``auto`` measures what is installed and says what it chose."""

from __future__ import annotations

import hashlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dense_perception.backends.base import Backend, check_graph
from dense_perception.backends.engine_cache import engines_dir
from dense_perception.backends.nvidia.module import installed_runtimes
from dense_perception.backends.self_check import check_sizes, self_check
from dense_perception.backends.speed import (
    OtherWork,
    Speed,
    SpeedMemory,
    SpeedWatch,
    measure_ms,
    speed_key,
)
from dense_perception.core.card import ModelCard
from dense_perception.core.errors import (
    ArtefactError,
    BackendError,
    DensePerceptionError,
    EngineRefusedError,
)
from dense_perception.core.machine import return_freed_memory
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.registry import Model
from dense_perception.core.storage import cache_dir, why_untrusted

BACKENDS: dict[str, tuple[str, str, str]] = {
    "onnxruntime": ("dense_perception.backends.onnxruntime", "OnnxRuntimeBackend", "onnxruntime"),
    "openvino": ("dense_perception.backends.openvino", "OpenVinoBackend", "openvino"),
    "tensorrt": ("dense_perception.backends.nvidia.backend", "TensorRtBackend", "tensorrt"),
    "torch_tensorrt": (
        "dense_perception.backends.nvidia.torch",
        "TorchTensorRtBackend",
        "torch_tensorrt",
    ),
}
"""Name: our module, its class, and the runtime package it needs."""

BUDGET_S = 0.8
"""After this long no candidate is begun but the first; the next start goes on from there."""

# The likely fastest first, so that a start that runs out of time has a good one already.
_PRECISION_ORDER = ("int8", "fp8", "fp16", "fp32")
_NVIDIA = ("gpu", "cuda", "dla")
# Remembered losers up to so many ms, and so many times slower than the best, get another chance.
_AGAIN_MS, _AGAIN_TIMES = 100.0, 5.0
_WORTH_A_WORD = 50e6
_log = logging.getLogger(__name__)
_EMULATED = "fp8 is only emulated there, for comparing: it runs in tensorrt on an NVIDIA GPU"


@dataclass(frozen=True)
class Outcome:
    """One candidate: its median time, or why it was passed over."""

    backend: str
    precision: str
    median_ms: float | None = None
    note: str = ""

    def __str__(self) -> str:
        time_ms = "" if self.median_ms is None else f" {self.median_ms:.1f} ms"
        return f"{self.backend}/{self.precision}{time_ms}{f' ({self.note})' if self.note else ''}"


@dataclass(frozen=True)
class Selection:
    """What runs, and why."""

    backend: str
    precision: str
    device: str
    reason: str
    considered: tuple[Outcome, ...] = ()
    warnings: tuple[str, ...] = ()
    """What somebody should look at: an engine that was refused, a check that was skipped."""
    watch: SpeedWatch | None = None
    """Told of live times, where measured ones decided."""

    def summary(self) -> str:
        """One line for a log: the choice, the reason, and what was passed over."""
        others = [
            str(outcome)
            for outcome in self.considered
            if (outcome.backend, outcome.precision) != (self.backend, self.precision)
        ]
        passed = f"; passed over: {', '.join(others)}" if others else ""
        warned = f"; WARNING: {'; '.join(self.warnings)}" if self.warnings else ""
        return f"{self.backend}/{self.precision} on {self.device}: {self.reason}{passed}{warned}"


def candidates(
    names: Sequence[str], precisions: Sequence[str]
) -> tuple[list[tuple[str, str]], list[Outcome]]:
    """What to open and measure, and what not: emulated fp8, where there is anything else."""
    every = [(name, kind) for kind in precisions for name in names]
    kept = [pair for pair in every if pair[1] != "fp8" or pair[0] == "tensorrt"] or every
    return kept, [Outcome(*pair, note=_EMULATED) for pair in every if pair not in kept]


def installed_backends(device: str = "cpu") -> tuple[str, ...]:
    """Names of the backends that are importable here and know that kind of device.

    Not ``torch_tensorrt``: it loads PyTorch and needs a compiled program, so it is only opened
    where it is asked for.
    """
    names = [name for name in ("onnxruntime", "openvino") if find_spec(BACKENDS[name][2])]
    if device.lower().split(":")[0] in _NVIDIA and installed_runtimes():
        names.insert(0, "tensorrt")
    return tuple(names)


def open_backend(
    name: str, source: Path | OnnxFile, *, device: str = "cpu", threads: int = 0
) -> Backend:
    """Load an ONNX file, or what is at a path now, in the named backend.

    :raises BackendError: for an unknown or missing backend, a file that cannot be read, or a
        refused device or graph.
    """
    if name not in BACKENDS:
        raise BackendError(f"backend is {name!r}, expected 'auto' or one of {list(BACKENDS)}")
    if threads < 0:
        raise BackendError(f"threads is {threads}, expected 0 (all cores) or more")
    module, cls, _ = BACKENDS[name]
    constructor: Callable[..., Any] = getattr(import_module(module), cls)
    try:
        file = OnnxFile.of(source)
        backend: Backend = constructor(file, device=device, threads=threads)
        try:
            file.verify()
        except BaseException:
            backend.close()
            raise
    except ArtefactError as error:
        raise BackendError(str(error)) from error
    return backend


def select_backend(
    model: Model,
    *,
    backend: str = "auto",
    precision: str = "auto",
    device: str = "cpu",
    threads: int = 0,
    trust_engine: bool = False,
) -> tuple[Backend, ModelCard, Selection]:
    """Open ``model`` in the wished or the fastest backend and precision.

    Whatever is opened must agree with ONNX Runtime on the card's reference frames, unless
    ``trust_engine`` skips that. If the wished backend does not, the next one is taken; the
    selection's ``warnings`` say so.

    What ``auto`` leaves open is measured here for a moment per candidate and remembered in the
    cache directory, keyed by the file's hash, the runtime's version, the CPU and the threads.

    :raises BackendError: if nothing can run it; the message says why for each candidate.
    :raises ArtefactError: if the only candidate's file is missing or damaged.
    :raises CardError: if there is no such precision or the card contradicts the file.
    """
    names = installed_backends(device) if backend == "auto" else (backend,)
    if not names:
        raise BackendError(f"no backend is installed: pip install {' or '.join(BACKENDS)}")
    if precision == "auto":
        precisions = tuple(sorted(model.precisions, key=_PRECISION_ORDER.index))
    else:
        precisions = (precision,)
    contest = _Contest(model, device, threads, trust_engine)
    tried, passed = candidates(names, precisions)
    try:
        if len(tried) == 1:
            opened, card, selection = contest.open_only(*tried[0])
        else:
            opened, card, selection = contest.open_fastest(tried)
    except BackendError:
        remaining = [name for name in installed_backends(device) if name not in names]
        others, _ = candidates(remaining, precisions)
        if not contest.refusals or not others:
            raise
        opened, card, selection = contest.open_fastest(others)
    warnings = list(dict.fromkeys(contest.refusals))
    untrusted = why_untrusted(engines_dir())
    if untrusted:
        warnings.append(
            f"engines, checks and speeds of {cache_dir()} are not used: {untrusted}; make it yours "
            "alone (chown, chmod 700)"
        )
    if trust_engine:
        warnings.append("trust_engine is set: the answers were not compared with the reference")
    considered = (*selection.considered, *passed)
    return opened, card, replace(selection, warnings=tuple(warnings), considered=considered)


class _Contest:
    """Opens candidates of one model on one device, measures them and keeps the fastest open."""

    def __init__(self, model: Model, device: str, threads: int, trust_engine: bool) -> None:
        self.model = model
        self.trust_engine = trust_engine
        self.refusals: list[str] = []
        self.device = device
        self.threads = threads
        self.memory = SpeedMemory()
        self._read: tuple[str, OnnxFile, ModelCard] | None = None

    def open(self, name: str, precision: str) -> tuple[Backend, ModelCard]:
        file, card = self._artefact(precision)
        backend = open_backend(name, file, device=self.device, threads=self.threads)
        try:
            check_graph(card, backend, str(file.path))
            if not self.trust_engine and not backend.is_reference:
                key = hashlib.sha256(self._key((name, precision)).encode()).hexdigest()[:24]
                self_check(card, file, backend, f"{name}_{backend.identity or key}")
                check_sizes(card, backend)
        except EngineRefusedError as error:
            self.refusals.append(str(error))
            backend.close()
            raise
        except BaseException:
            backend.close()
            raise
        return backend, card

    def open_only(self, name: str, precision: str) -> tuple[Backend, ModelCard, Selection]:
        backend, card = self.open(name, precision)
        return backend, card, Selection(name, precision, self.device, "the only choice")

    def open_fastest(
        self, candidates: list[tuple[str, str]]
    ) -> tuple[Backend, ModelCard, Selection]:
        start, work = time.perf_counter(), OtherWork()
        outcomes: dict[tuple[str, str], Outcome] = {}
        errors: list[DensePerceptionError] = []
        best: tuple[float, Backend, ModelCard, tuple[str, str]] | None = None
        known, unknown = self._split(candidates, outcomes, errors)
        # Among the remembered ones only the fastest is opened, the next one if it fails.
        for speed, candidate in known:
            opened = self._try(candidate, outcomes, errors)
            if opened is None:
                continue
            median_ms: float | None = speed.median_ms
            if speed.is_due(work.share()):
                median_ms = self._measured(*opened, candidate, outcomes, errors)
            if median_ms is not None:
                best = (median_ms, *opened, candidate)
                break
            opened[0].close()
        others, chosen = work.share(), best[3] if best is not None else None
        due = [
            candidate
            for speed, candidate in known
            if candidate != chosen and not outcomes[candidate].note and speed.is_due(others)
        ]
        if chosen is not None and not (unknown or due or self.memory.measured):
            unknown = self._doubtful(known, chosen)
        if len(unknown) > 1 and self._is_large():
            _log.warning(
                "measuring %s of %s for the first time: this start takes longer, from seconds to "
                "a minute; later ones remember",
                ", ".join("/".join(candidate) for candidate in unknown),
                self.model.card.name,
            )
        for candidate in (*unknown, *due):
            if self.memory.measured and time.perf_counter() - start > BUDGET_S:
                if candidate in unknown:
                    outcomes[candidate] = Outcome(*candidate, note="measured at a later start")
                continue
            opened = self._try(candidate, outcomes, errors)
            if opened is None:
                continue
            median_ms = self._measured(*opened, candidate, outcomes, errors)
            if median_ms is not None and (best is None or median_ms < best[0]):
                if best is not None:
                    best[1].close()
                best = (median_ms, *opened, candidate)
            else:
                opened[0].close()
        self.memory.save()
        return_freed_memory(collect=False)  # glibc keeps some 50 MB of the losers otherwise
        if best is None:
            if len({str(error) for error in errors}) == 1:
                raise errors[0]
            reasons = "; ".join(str(outcome) for outcome in outcomes.values())
            raise BackendError(f"nothing can run {self.model.card.name}: {reasons}")
        median_ms, backend, card, (name, precision) = best
        when = "measured" if self._key((name, precision)) in self.memory.measured else "remembered"
        reason = f"the fastest, {median_ms:.1f} ms {when}"
        ordered = tuple(outcomes[candidate] for candidate in candidates if candidate in outcomes)
        keys = [self._key((each.backend, each.precision)) for each in ordered if each.median_ms]
        watch = SpeedWatch(f"{name}/{precision}", median_ms, keys)
        selection = Selection(name, precision, self.device, reason, ordered, watch=watch)
        return backend, card, selection

    def _measured(
        self,
        backend: Backend,
        card: ModelCard,
        candidate: tuple[str, str],
        outcomes: dict[tuple[str, str], Outcome],
        errors: list[DensePerceptionError],
    ) -> float | None:
        """The median of an open candidate in milliseconds, ``None`` if it fails."""
        work = OtherWork()
        try:
            median_ms = measure_ms(backend, card)
        except BackendError as error:
            errors.append(error)
            outcomes[candidate] = Outcome(*candidate, note=str(error))
            return None
        median_ms = self.memory.add(self._key(candidate), median_ms, work.share())
        outcomes[candidate] = Outcome(*candidate, median_ms=median_ms)
        return median_ms

    def _is_large(self) -> bool:
        """Whether opening the files takes long enough to be worth a word."""
        return sum(entry.bytes for entry in self.model.card.files.values()) > _WORTH_A_WORD

    def _split(
        self,
        candidates: list[tuple[str, str]],
        outcomes: dict[tuple[str, str], Outcome],
        errors: list[DensePerceptionError],
    ) -> tuple[list[tuple[Speed, tuple[str, str]]], list[tuple[str, str]]]:
        """Candidates with a remembered speed, fastest first, and those without."""
        known: list[tuple[Speed, tuple[str, str]]] = []
        unknown: list[tuple[str, str]] = []
        for candidate in candidates:
            try:
                speed = self.memory.get(self._key(candidate))
            except DensePerceptionError as error:
                errors.append(error)
                outcomes[candidate] = Outcome(*candidate, note=str(error))
                continue
            if speed is None:
                unknown.append(candidate)
            else:
                known.append((speed, candidate))
                outcomes[candidate] = Outcome(*candidate, median_ms=speed.median_ms)
        return sorted(known, key=lambda pair: (pair[0].median_ms, pair[1])), unknown

    @staticmethod
    def _doubtful(
        known: list[tuple[Speed, tuple[str, str]]], chosen: tuple[str, str]
    ) -> list[tuple[str, str]]:
        """A loser to measure again: its first measurement may have met what no count shows.

        A random one, so that each gets its turn; none that would make the start slow.
        """
        others = [
            candidate
            for speed, candidate in known
            if candidate != chosen
            and speed.median_ms < min(_AGAIN_MS, _AGAIN_TIMES * known[0][0].median_ms)
        ]
        return [random.choice(others)] if others else []

    def _try(
        self,
        candidate: tuple[str, str],
        outcomes: dict[tuple[str, str], Outcome],
        errors: list[DensePerceptionError],
    ) -> tuple[Backend, ModelCard] | None:
        try:
            return self.open(*candidate)
        except DensePerceptionError as error:
            errors.append(error)
            outcomes[candidate] = Outcome(*candidate, note=str(error))
            return None

    def _key(self, candidate: tuple[str, str]) -> str:
        name, precision = candidate
        # What is opened is checked against the card's hash: a loser's file need not be read.
        described = self.model.card.files.get(precision)
        sha256 = described.sha256 if described else self._artefact(precision)[0].sha256
        package = BACKENDS[name][2] if name in BACKENDS else name
        return speed_key(name, package, sha256, device=self.device, threads=self.threads)

    def _artefact(self, precision: str) -> tuple[OnnxFile, ModelCard]:
        """The last one is kept for the next backend; never two, since each may be a gigabyte."""
        if self._read is None or self._read[0] != precision:
            self._read = None
            self._read = (precision, *self.model.artefact(precision))
        return self._read[1:]
