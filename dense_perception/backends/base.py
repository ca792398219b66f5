"""The one protocol every runtime is driven through."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dense_perception.core.errors import BackendError


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, NumPy dtype and shape of a graph input or output; ``None`` is a free dimension."""

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        sides = ", ".join("?" if side is None else str(side) for side in self.shape)
        return f"{self.name}: {self.dtype} ({sides})"

    def admits(self, array: np.ndarray) -> bool:
        return (
            array.dtype == self.dtype
            and array.ndim == len(self.shape)
            and all(want in (None, got) for want, got in zip(self.shape, array.shape, strict=True))
        )


class Backend(ABC):
    """A loaded graph in one runtime: :meth:`infer` until :meth:`close`.

    ``name`` is the backend's name in parameters and tables, ``description`` what actually runs
    (runtime version, device, threads). Not thread-safe: one worker drives one backend.
    """

    name: str
    description: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    identity: str = ""
    """Names the engine that runs, where there is one: its key and its bytes."""
    is_reference: bool = False
    """Whether the others are compared with this one."""

    def infer(
        self, feeds: Mapping[str, np.ndarray], wanted: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Run the graph on C-contiguous arrays, one per input; returns one array per output.

        ``wanted`` names the outputs to return; only these are copied and, where the runtime can,
        computed. None is all of them. The returned arrays may be overwritten by the next call.

        :raises BackendError: if an input is missing, unknown or of another dtype or shape, an
            output is unknown, or the runtime fails.
        """
        taken = {spec.name for spec in self.inputs}
        if set(feeds) != taken:
            raise BackendError(f"got inputs {sorted(feeds)}, the graph takes {sorted(taken)}")
        for spec in self.inputs:
            array = feeds[spec.name]
            if not spec.admits(array):
                raise BackendError(
                    f"got input {spec.name} as {array.dtype} {array.shape}, the graph takes {spec}"
                )
        names = [spec.name for spec in self.outputs]
        if wanted is not None:
            if not wanted or not set(wanted) <= set(names):
                raise BackendError(f"wanted outputs {sorted(wanted)}, the graph gives {names}")
            names = [name for name in names if name in wanted]
        return self._run(feeds, names)

    @abstractmethod
    def _run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
        """Run on checked inputs; returns the outputs ``names``."""

    @abstractmethod
    def close(self) -> None:
        """Free the runtime's memory. Safe to call twice."""
