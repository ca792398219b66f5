"""What went wrong in a step: which frames, and whether it was the memory."""

from __future__ import annotations

import torch

from dense_perception.training.batch import Batch
from dense_perception.training.objective import Learner

# What PyTorch says on a CPU; a GPU has a class of its own.
_CPU_MEMORY = ("can't allocate memory", "not enough memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or a CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(text in str(error) for text in _CPU_MEMORY)


@torch.no_grad()
def explain_not_finite(learner: Learner, batch: Batch) -> list[str]:
    """The frames of a batch whose loss is not finite by itself, and the parts of it that are not.

    Leaves the learner in evaluation mode: the statistics of BatchNorms must not see the frame.
    """
    learner.eval()
    causes = []
    for index, key in enumerate(batch.keys):
        loss, parts = learner(batch.only(index))
        if not bool(torch.isfinite(loss)):
            broken = [name for name, value in parts.items() if not bool(torch.isfinite(value))]
            causes.append(f"{key}: {', '.join(broken) or 'the loss'} {float(loss)}")
    return causes
