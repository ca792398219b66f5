"""The project's exceptions.

Every message names what was got, what was expected and the cure; the classes only say who can
act on it. All derive from :class:`DensePerceptionError`, so a node or a command catches one type.
"""

from __future__ import annotations

from dense_perception.core.printable import printable


class DensePerceptionError(Exception):
    """Base of everything this package raises on purpose.

    Messages quote files and topics, so control characters in them are written out.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class InputError(DensePerceptionError, ValueError):
    """An image, a message, a calibration or a file from the user cannot be used as it is."""


class CardError(DensePerceptionError, ValueError):
    """A model card is malformed or contradicts the graph that carries it."""


class ModelNotFoundError(DensePerceptionError, LookupError):
    """No model of that name or path; the message lists the ones there are."""


class ArtefactError(DensePerceptionError, ValueError):
    """A model file is missing, truncated, corrupt or fails its hash."""


class BackendError(DensePerceptionError, RuntimeError):
    """A runtime is not installed, refuses the graph or fails while running it."""


class UnavailableError(BackendError):
    """A runtime does not start on this machine now: a library, a driver or a device is missing.

    Whatever the graph, and until somebody mends the machine: nothing is remembered of it.
    """


class EngineRefusedError(BackendError):
    """A runtime or an engine gives other answers than the reference."""


class TrainingError(DensePerceptionError, RuntimeError):
    """A corpus, a checkpoint or a training configuration cannot be used."""
