"""ONNX Runtime on a GPU without waste: memory that stays, and a CUDA graph for each shape.

A plain run copies from and to memory that may be moved (pageable), allocates the answers anew, and
hands the GPU each operator by itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dense_perception.backends.base import one_line
from dense_perception.backends.nvidia.memory import Buffer, Memory
from dense_perception.core.difference import Difference
from dense_perception.core.errors import BackendError

Shapes = tuple[tuple[int, ...], ...]
"""Of every input, in the graph's order."""
KEPT_SHAPES = 8
"""So many sets of buffers; beyond them the one goes that was not used for longest."""
# Rounding between two runs of the same session is a hundredth of it; an answer of another frame or
# to no frame at all is a hundred times it.
_MOST_OFF = 1e-3
_ALL = "every output"


class BindingError(BackendError):
    """Bound memory does not work here; a plain run does."""


class BoundSession:
    """Runs a session on buffers that stay where they are.

    The first run of each shape is answered by a plain run, too, and compared.

    :param device: what the session's memory is called, and its number: ``("cuda", 0)``.
    :param captures: whether the session was made with ``enable_cuda_graph``.
    :param fixed: whether all sides of its inputs but the first are fixed. Where both are true, each
        batch size becomes a CUDA graph, which always computes all outputs.
    """

    def __init__(
        self,
        ort: Any,
        session: Any,
        memory: Memory,
        *,
        device: tuple[str, int],
        inputs: Sequence[str],
        outputs: Sequence[str],
        captures: bool = False,
        fixed: bool = True,
    ) -> None:
        self._ort = ort
        self._session = session
        self._memory = memory
        self._device = device
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._captures = captures
        self._in_graphs = captures and fixed
        self._graphs = 0
        self._sets: OrderedDict[Shapes, _Set] = OrderedDict()

    def input_buffer(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """Where that input of that shape is taken from without a copy, once it has been in use."""
        for found in self._sets.values():
            if name in found.buffers and found.buffers[name].array.shape == shape:
                return found.buffers[name].array
        return None

    def run(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
        """The outputs ``names``; the arrays are overwritten by the next run.

        :raises BindingError: if it fails, or the first run of a shape differs from a plain one.
        """
        try:
            return self._answer(feeds, names)
        except BindingError:
            raise
        except Exception as error:  # the runtime's exceptions share no base class
            raise BindingError(f"a run on bound memory failed: {one_line(error)}") from error

    def _answer(
        self, feeds: Mapping[str, np.ndarray], names: Sequence[str]
    ) -> dict[str, np.ndarray]:
        self._memory.use()
        shapes = tuple(feeds[name].shape for name in self._inputs)
        found = self._sets.get(shapes)
        if found is None:
            found = self._begin(shapes, feeds)
        else:
            self._sets.move_to_end(shapes)
            self._run(found, feeds, names)
        return {name: found.buffers[name].array for name in names}

    def close(self) -> None:
        """Safe to call twice."""
        self._sets.clear()
        self._session = None
        self._memory.close()

    def _begin(self, shapes: Shapes, feeds: Mapping[str, np.ndarray]) -> _Set:
        """Buffers for these shapes, of answers whose shapes a plain run tells."""
        no_graph = NO_GRAPH if self._captures else None
        options = run_options(self._ort, no_graph)
        values = self._session.run(list(self._outputs), dict(feeds), options)
        plain = dict(zip(self._outputs, values, strict=True))
        found = self._sets[shapes] = self._new_set({**feeds, **plain}, no_graph)
        # On something else first: a captured run that does not see its inputs change is found.
        ones = {name: np.ones_like(feeds[name]) for name in self._inputs}
        self._run(found, ones, self._outputs)
        self._run(found, feeds, self._outputs)
        off = Difference.worst(
            Difference.between(found.buffers[name].array, plain[name]) for name in self._outputs
        )
        if not off.mean_of_range < _MOST_OFF:
            raise BindingError(
                f"a run on bound memory differs from a plain one by {off.mean_of_range:.1e} of the "
                "range"
            )
        return found

    def _new_set(self, arrays: Mapping[str, np.ndarray], no_graph: int | None) -> _Set:
        """Buffers as these arrays are, in place of the oldest where there are too many."""
        if len(self._sets) >= KEPT_SHAPES:
            _, oldest = self._sets.popitem(last=False)
            for buffer in oldest.buffers.values():
                self._memory.free(buffer)
        graph = no_graph
        if self._in_graphs and self._graphs < KEPT_SHAPES:
            # No more than so many: what was captured stays in the session's memory.
            graph = self._graphs = self._graphs + 1
        buffers = {n: self._memory.buffer(a.shape, a.dtype) for n, a in arrays.items()}
        return _Set(buffers, graph)

    def _run(self, found: _Set, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
        buffers = found.buffers
        for name in self._inputs:
            if feeds[name] is not buffers[name].array:
                buffers[name].array[...] = feeds[name]
            self._memory.upload(buffers[name])
        self._memory.synchronize()  # the session has a stream of its own
        computed = self._outputs if self._in_graphs else names
        kept = _ALL if len(computed) == len(self._outputs) else "/".join(computed)
        if kept not in found.bindings:
            found.bindings[kept] = self._bind(found, computed)
        self._session.run_with_iobinding(*found.bindings[kept])
        for name in names:
            self._memory.download(buffers[name])
        self._memory.synchronize()

    def _bind(self, found: _Set, names: Sequence[str]) -> tuple[Any, Any]:
        """The binding of these outputs, and the options to run it with."""
        binding = self._session.io_binding()
        for bind, some in ((binding.bind_input, self._inputs), (binding.bind_output, names)):
            for name in some:
                array, address = found.buffers[name].array, found.buffers[name].address
                bind(name, *self._device, array.dtype.type, list(array.shape), address)
        options = run_options(self._ort, found.graph)
        options.only_execute_path_to_fetches = len(names) < len(self._outputs)
        return binding, options


NO_GRAPH = -1


def run_options(ort: Any, graph: int | None) -> Any:
    """``graph``: number of the CUDA graph to capture or replay, :data:`NO_GRAPH` for a run without
    one in a session that captures, ``None`` in a session that does not.
    """
    options = ort.RunOptions()
    if graph is not None:
        options.add_run_config_entry("gpu_graph_id", str(graph))
    return options


@dataclass(slots=True)
class _Set:
    """Of one shape: its buffers, its CUDA graph, and the bindings by the outputs they compute."""

    buffers: dict[str, Buffer]
    graph: int | None
    bindings: dict[str, tuple[Any, Any]] = field(default_factory=dict)
