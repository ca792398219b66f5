"""Weights of another network of ours, part by part: whatever is alike in both is taken.

A student is smaller than the model it goes on from, a network for other tasks has other heads: the
stem, or the first blocks, are the same. Published checkpoints are the business of
:mod:`dense_perception.nets.weights`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from dense_perception.core.errors import ArtefactError
from dense_perception.core.onnx_file import OnnxFile
from dense_perception.nets import beit
from dense_perception.nets.checkpoint import Checkpoint, read_checkpoint
from dense_perception.nets.positions import PositionEmbedding, resize_positions
from dense_perception.nets.weights import refuse_broken, some_of, unfolded

# Of a network at least so much has to fit: less is a mistake, and training would begin anew.
_LEAST_TAKEN = 0.05
# Of BatchNorm; nothing reads it here, and some files do not have it.
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class PartsReport:
    """What a network took of another one.

    ``taken`` are the outermost modules, or parameters beside modules, that fit whole; ``anew``
    those that keep the values they began with; ``resized`` are position tables of another grid.
    ``filled`` of ``parameters`` numbers were taken.
    """

    taken: tuple[str, ...]
    anew: tuple[str, ...]
    resized: tuple[str, ...]
    filled: int
    parameters: int

    def __str__(self) -> str:
        text = f"{self.filled:,} of {self.parameters:,} parameters taken: {some_of(self.taken)}"
        if self.resized:
            text += f"; {len(self.resized)} of them resized: {some_of(self.resized)}"
        if self.anew:
            text += f"; what differs begins anew: {some_of(self.anew)}"
        return text


def load_parts(
    module: nn.Module,
    source: Path | OnnxFile | Checkpoint,
    other: nn.Module | None = None,
    *,
    deep: bool = False,
) -> PartsReport:
    """Fill those parts of ``module`` that another network of ours has alike; the rest is left.

    Alike is a part whose tensors have the same names and shapes, and whose attention has as many
    heads.

    :param other: the network of the file; its weights do not matter, so it may be on the meta
        device. With it position tables of another grid are resized, and heads compared.
    :param deep: of a part that does not fit, try the parts of it: for two networks of one kind,
        where the same name means the same. Else top-level parts fit whole or not at all.
    :raises ArtefactError: if the file cannot be read, has weights that are not finite, or under
        a twentieth of ``module`` fits.
    """
    checkpoint = source if isinstance(source, Checkpoint) else read_checkpoint(source)
    theirs = unfolded(module, checkpoint)
    twins = dict(other.named_modules()) if other is not None else {}
    resized = _resize(module, twins, theirs)
    ours = module.state_dict()
    comparison = _Comparison(ours, theirs, twins, deep)
    taken, anew = comparison.of(module)
    chosen = {key: theirs[key] for key in ours if key in theirs and _is_within(key, taken)}
    sizes = {key: value.numel() for key, value in module.named_parameters()}
    filled = sum(sizes.get(key, 0) for key in chosen)
    if filled < _LEAST_TAKEN * sum(sizes.values()):
        fits = f"next to nothing of it fits ({some_of(taken)})" if taken else "no part of it fits"
        raise ArtefactError(
            f"{checkpoint.path} is of another network and {fits}: expected one with the same "
            f"{' or '.join(name for name, _ in module.named_children())}"
        )
    refuse_broken(checkpoint.path, chosen)
    module.load_state_dict(chosen, strict=False)
    kept = tuple(key for key in resized if key in chosen)
    return PartsReport(tuple(taken), tuple(anew), kept, filled, sum(sizes.values()))


@dataclass(frozen=True)
class _Comparison:
    """Two networks' tensors, and the other one's modules where they are known."""

    ours: Mapping[str, Tensor]
    theirs: Mapping[str, Tensor]
    twins: Mapping[str, nn.Module]
    deep: bool

    def of(self, module: nn.Module, prefix: str = "") -> tuple[list[str], list[str]]:
        """The outermost parts of ``module`` that fit, and what is left."""
        taken: list[str] = []
        anew: list[str] = []
        for name in (key.removeprefix(prefix) for key in self.ours if key.startswith(prefix)):
            if "." not in name:  # a parameter beside the modules
                (taken if self._fits(prefix + name) else anew).append(prefix + name)
        for name, part in module.named_children():
            path = prefix + name
            if not any(_is_within(key, [path]) for key in self.ours):
                continue
            if self._fits(path, part):
                taken.append(path)
            elif self.deep and any(part.children()) and self._as_many_heads(path, part):
                inner_taken, inner_anew = self.of(part, f"{path}.")
                taken += inner_taken
                # What differs altogether is one thing to say.
                anew += inner_anew if inner_taken else [path]
            else:
                anew.append(path)
        return taken, anew

    def _fits(self, path: str, part: nn.Module | None = None) -> bool:
        own, their = (
            {key for key in names if _is_within(key, [path]) and not key.endswith(_COUNTER)}
            for names in (self.ours, self.theirs)
        )
        if own != their:
            return False
        if any(self.ours[key].shape != self.theirs[key].shape for key in own):
            return False
        inner = part.named_modules(prefix=path) if part is not None else ()
        return all(self._as_many_heads(name, one) for name, one in inner)

    def _as_many_heads(self, path: str, part: nn.Module) -> bool:
        """Attention's tensors have the same shapes with any number of heads, and another meaning.

        Where a network keeps several layers under that name they are compared by themselves.
        """
        ours, theirs = (getattr(one, "heads", 0) for one in (part, self.twins.get(path, part)))
        return not isinstance(ours, int) or not isinstance(theirs, int) or ours == theirs


def _is_within(key: str, parts: Iterable[str]) -> bool:
    return any(key == part or key.startswith(f"{part}.") for part in parts)


def _resize(
    module: nn.Module, twins: Mapping[str, nn.Module], tensors: dict[str, Tensor]
) -> list[str]:
    """Position tables of another grid to ours, in place; the keys that changed."""
    resized = []
    for name, part in module.named_modules():
        twin = twins.get(name)
        if isinstance(part, PositionEmbedding) and isinstance(twin, PositionEmbedding):
            key, stored = f"{name}.table_1nc", twin.table_1nc.shape
            is_alike = twin.prefix == part.prefix
        elif isinstance(part, beit.GridPositionBias) and isinstance(twin, beit.GridPositionBias):
            key, stored, is_alike = f"{name}.table", twin.table.shape, True
        else:
            continue
        table = tensors.get(key)
        grids = twin.grid_hw, part.grid_hw
        if table is None or table.shape != stored or not is_alike or grids[0] == grids[1]:
            continue
        if isinstance(part, PositionEmbedding):
            tensors[key] = resize_positions(table.float(), *grids, part.prefix, part.method)
        else:
            tensors[key] = beit.resize_table(table.float(), *grids)
        resized.append(key)
    return resized
