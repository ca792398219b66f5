"""Open a model in a backend; ``auto`` measures what is installed and says what it chose."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

from dense_perception.backends.base import Backend, check_graph
from dense_perception.backends.device import choose_device, find_gpu, parse_device
from dense_perception.backends.engine_cache import (
    EngineMissingError,
    compile_command,
    engines_dir,
    failed_build,
)
from dense_perception.backends.opening import (
    BACKENDS,
    installed_backends,
    is_gpu,
    open_backend,
)
from dense_perception.backends.selection import Broken, MissingEngine, Outcome, Selection
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
    BackendError,
    DensePerceptionError,
    EngineRefusedError,
)
from dense_perception.core.machine import return_freed_memory
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.core.registry import Model
from dense_perception.core.storage import cache_dir, why_untrusted

BUDGET_S = 0.8
"""After this long no candidate is begun but the first; the next start goes on from there."""

ENGINE_BUILDS = ("background", "block", "never")
"""What is done about a backend whose engine would have to be built first, for minutes perhaps.

``block`` builds it now. The others leave it out while anything else can run; ``background`` names
it in :attr:`Selection.missing`, and builds it now where nothing else can run.
"""

# The likely fastest first, so that a start that runs out of time has a good one already.
_PRECISION_ORDER = ("int8", "fp8", "fp16", "fp32")
# Remembered losers up to so many ms, and so many times slower than the best, get another chance.
_AGAIN_MS, _AGAIN_TIMES = 100.0, 5.0
_WORTH_A_WORD = 50e6
_log = logging.getLogger(__name__)
NOT_COMPARED = "trust_engine is set: the answers were not compared with the reference"
"""The warning of a check that was skipped as it was wished."""
_EMULATED = "fp8 is only emulated there, for comparing: it runs in tensorrt on an NVIDIA GPU"


def candidates(
    names: Sequence[str], precisions: Sequence[str]
) -> tuple[list[tuple[str, str]], list[Outcome]]:
    """What to open and measure, and what not: emulated fp8, where there is anything else."""
    every = [(name, kind) for kind in precisions for name in names]
    kept = [pair for pair in every if pair[1] != "fp8" or pair[0] == "tensorrt"] or every
    return kept, [Outcome(*pair, note=_EMULATED) for pair in every if pair not in kept]


def select_backend(
    model: Model,
    *,
    backend: str = "auto",
    precision: str = "auto",
    device: str = "auto",
    threads: int = 0,
    trust_engine: bool = False,
    engine_build: str = "block",
    batch: int = 1,
    broken: Broken = MappingProxyType({}),
) -> tuple[Backend, ModelCard, Selection]:
    """Open ``model`` in the wished or the fastest backend and precision.

    ``device`` ``auto`` is NVIDIA's GPU where it works, else the CPU; the selection says why. With
    ``engine_build`` other than ``block`` (:data:`ENGINE_BUILDS`) nothing waits for an engine.

    Whatever is opened must agree with ONNX Runtime on the card's reference frames, unless
    ``trust_engine`` skips that. If the wished backend does not, the next one is taken; the
    selection's ``warnings`` say so.

    What ``auto`` leaves open is measured here for a moment per candidate and remembered in the
    cache directory, keyed by the file's hash, the runtime's version, the CPU and the threads.

    :param batch: how many images will come at once: engines are built for 1 to so many.
    :param broken: what is not taken, as if it had been refused.
    :raises BackendError: if nothing can run it; the message says why for each candidate.
    :raises ArtefactError: if the only candidate's file is missing or damaged.
    :raises CardError: if there is no such precision or the card contradicts the file.
    """
    if precision == "auto":
        precisions = tuple(sorted(model.precisions, key=_PRECISION_ORDER.index))
    else:
        precisions = (precision,)
    place, reason = choose_device(device, backend)
    contest = _Contest(model, place, threads, trust_engine, engine_build, batch, broken)
    is_auto = device.lower() == "auto" and place != "cpu"
    # OpenVINO's "gpu" is Intel's: nobody asked for that one.
    contest.passed_over = ("openvino",) if is_auto else ()
    try:
        opened, card, selection, reason = _open(contest, backend, precisions, reason, is_auto)
    except BackendError as error:
        raise contest.explained(error) from error.__cause__
    note = contest.with_better(opened, selection)
    warnings = list(dict.fromkeys(contest.refusals))
    untrusted = why_untrusted(engines_dir())
    if untrusted:
        warnings.append(
            f"engines, checks and speeds of {cache_dir()} are not used: {untrusted}; make it yours "
            "alone (chown, chmod 700)"
        )
    if trust_engine:
        warnings.append(NOT_COMPARED)
    selection = replace(
        selection,
        warnings=tuple(warnings),
        device_reason=reason,
        missing=tuple(contest.missing.values()),
        note="; ".join(filter(None, (note, opened.unstored))),
    )
    return opened, card, selection


def _open(
    contest: _Contest, backend: str, precisions: Sequence[str], reason: str, is_auto: bool
) -> tuple[Backend, ModelCard, Selection, str]:
    """On the contest's device, else on the CPU where that is allowed; and why there.

    :raises BackendError: if nothing can run it.
    """
    place, passed_over = contest.device, contest.passed_over
    only_on_gpu = backend.endswith("tensorrt")
    try:
        return *_open_on_device(contest, backend, precisions), reason
    except BackendError as error:
        # Who names a backend that is not there gets its error, but for a wrong engine a robot must
        # not go blind.
        may_move = is_auto and (bool(contest.refusals) or not only_on_gpu)
        if not contest.missing and not may_move:
            raise
        is_said = bool(contest.missing or contest.refusals)
        where = "the DLA" if place.lower().startswith("dla") else "the GPU"
        moved = f"nothing runs on {where}" + (" yet" if contest.missing else "")
        contest.device, contest.passed_over = "cpu", ()
        # A backend that runs on the CPU, too, stays the one that was asked for.
        instead = "auto" if contest.missing or only_on_gpu else backend
        try:
            opened, card, selection = _open_on_device(contest, instead, precisions)
        except BackendError:
            if not contest.missing:
                raise error from None
            _log.warning(
                "nothing else can run %s: building its engine now", contest.model.card.name
            )
            contest.build_now(place, passed_over)
            opened, card, selection = _open_on_device(contest, backend, precisions)
            return opened, card, selection, "its engine had to be built first"
        if not is_said:
            contest.refusals.append(f"{reason}, but the GPU is not used: {error}")
        return opened, card, selection, moved


def _open_on_device(
    contest: _Contest, backend: str, precisions: Sequence[str]
) -> tuple[Backend, ModelCard, Selection]:
    """Among ``backend``, or all there are; among the others too where it has no usable engine."""
    there = [n for n in installed_backends(contest.device) if n not in contest.passed_over]
    names = there if backend == "auto" else [backend]
    if not names:
        packages = "onnxruntime-gpu" if is_gpu(contest.device) else "onnxruntime or openvino"
        raise BackendError(
            f"no backend that runs on {contest.device} is installed: pip install {packages}"
        )
    tried, passed = candidates(names, precisions)
    try:
        opened, card, selection = contest.open_best(tried)
    except BackendError:
        remaining = [name for name in there if name not in names]
        others, _ = candidates(remaining, precisions)
        if not others or not (contest.refusals or contest.missing):
            raise
        opened, card, selection = contest.open_best(others)
    return opened, card, replace(selection, considered=(*selection.considered, *passed))


class _LeftOutError(BackendError):
    """A candidate that was not opened, in a few words; the contest's refusals have them all."""


class _Contest:
    """Opens candidates of one model on one device, measures them and keeps the fastest open."""

    def __init__(
        self,
        model: Model,
        device: str,
        threads: int,
        trust_engine: bool,
        engine_build: str,
        batch: int,
        broken: Broken,
    ) -> None:
        self.model = model
        self.batch = batch
        self.broken = broken
        self.trust_engine = trust_engine
        self.engine_build = engine_build
        self.refusals: list[str] = []
        self.missing: dict[tuple[str, str], MissingEngine] = {}
        self.passed_over: tuple[str, ...] = ()
        self.device = device
        self.threads = threads
        self.memory = SpeedMemory()
        self._read: tuple[str, OnnxFile, ModelCard] | None = None

    def open(self, name: str, precision: str) -> tuple[Backend, ModelCard]:
        reason = self.broken.get((name, self.device))
        if reason:
            self.refusals.append(
                f"{name} on {self.device} failed again and again while it ran: {reason}; it is not "
                "used until a parameter of the model is set or the node is started again"
            )
            raise _LeftOutError("it failed while it ran")
        file, card = self._artefact(precision)
        try:
            backend = open_backend(
                name,
                file,
                device=self.device,
                threads=self.threads,
                batch=self.batch,
                build=self.engine_build == "block",
            )
        except EngineMissingError as missing:
            raise self._without_engine(name, precision, missing) from missing
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

    def _without_engine(
        self, name: str, precision: str, missing: EngineMissingError
    ) -> BackendError:
        """What comes of a candidate whose engine would have to be built first."""
        command = compile_command(self.model.word, name, precision, missing.batch, self.device)
        if reason := failed_build(missing.key):
            self.refusals.append(
                f"the engine of {name}/{precision} could not be built: {reason}; it is not tried "
                f"again for this graph, runtime and GPU, unless by {command}"
            )
            return _LeftOutError("its engine could not be built")
        if self.engine_build == "never":
            self.refusals.append(
                f"{name}/{precision} has no engine ({missing}), and engine_build is never: build "
                f"it with {command}"
            )
            return _LeftOutError("it has no engine")
        self.missing[name, precision] = MissingEngine(
            name, precision, self.device, missing.key, missing.batch, str(missing)
        )
        return _LeftOutError("its engine is not built yet")

    def explained(self, error: BackendError) -> BackendError:
        """``error``, and after it what was refused on the way, with the commands that cure it."""
        untold = [text for text in dict.fromkeys(self.refusals) if text not in str(error)]
        if not untold:
            return error
        if isinstance(error, _LeftOutError):  # which the refusals say better
            return BackendError("; ".join(untold))
        return type(error)("; ".join((str(error), *untold)))

    def with_better(self, opened: Backend, selection: Selection) -> str:
        """The problem of what runs; if its engine takes fewer images than come, with the cure."""
        better = opened.better_engine
        if better is None:
            return opened.problem
        name, precision, batch = selection.backend, selection.precision, self.batch
        failed = failed_build(better)
        if self.engine_build == "background" and not failed:
            reason = f"the stored one takes fewer than {batch} images at once"
            missing = MissingEngine(name, precision, self.device, better, batch, reason)
            self.missing[name, precision] = missing
            return opened.problem
        command = compile_command(self.model.word, name, precision, batch, self.device)
        why = f", and one for more could not be built ({failed})" if failed else ""
        return f"{opened.problem}{why}: build one with {command}"

    def build_now(self, device: str, passed_over: tuple[str, ...]) -> None:
        """Wait for engines from now on, for ``device``."""
        self.device, self.passed_over, self.engine_build = device, passed_over, "block"
        self.missing.clear()

    def open_best(
        self, candidates: Sequence[tuple[str, str]]
    ) -> tuple[Backend, ModelCard, Selection]:
        """The only one, or the fastest.

        :raises BackendError: if none can run.
        """
        if len(candidates) == 1:
            return self.open_only(*candidates[0])
        return self.open_fastest(list(candidates))

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
        return speed_key(name, package, sha256, device=self._place(), threads=self.threads)

    def _place(self) -> str:
        """The device, and which GPU that is: another one is another speed, and checked anew."""
        if not is_gpu(self.device):
            return self.device
        with contextlib.suppress(BackendError):
            return f"{self.device}, {find_gpu(parse_device(self.device, 'auto', dla=True)[0])}"
        return self.device

    def _artefact(self, precision: str) -> tuple[OnnxFile, ModelCard]:
        """The last one is kept for the next backend; never two, since each may be a gigabyte."""
        if self._read is None or self._read[0] != precision:
            self._read = None
            self._read = (precision, *self.model.artefact(precision))
        return self._read[1:]
