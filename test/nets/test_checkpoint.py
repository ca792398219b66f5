"""A checkpoint file: only tensors are read, nothing is executed, damage is named."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from dense_perception.core.errors import ArtefactError
from dense_perception.nets.checkpoint import read_checkpoint


def saved(data: object, folder: Path) -> Path:
    torch.save(data, folder / "checkpoint.pth")
    return folder / "checkpoint.pth"


class Malicious:
    """Runs a command when it is unpickled without care."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.witness),)


@pytest.mark.parametrize("name", ["checkpoint.pth", "model.safetensors"])
@pytest.mark.parametrize("with_torch", [True, False])
def test_code_in_a_checkpoint_is_not_run(name: str, with_torch: bool, tmp_path: Path) -> None:
    witness = tmp_path / "was_here"
    data = {"model": {"weight": torch.zeros(1)}, "extra": Malicious(witness)}
    path = tmp_path / name
    if with_torch:
        torch.save(data, path)
    else:
        path.write_bytes(pickle.dumps(data))
    with pytest.raises(ArtefactError, match=r"nothing of it was executed|cannot read") as caught:
        read_checkpoint(path)
    # The reader's own text says how to run the code after all.
    assert "weights_only" not in str(caught.value)
    assert not witness.exists()


@pytest.mark.parametrize("keep", [0, 10, 1000, -100])
def test_a_truncated_checkpoint_is_named(keep: int, tmp_path: Path) -> None:
    path = saved({"model": {"weight": torch.rand(64, 64)}}, tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtefactError, match=r"damaged|cut off"):
        read_checkpoint(path)


@pytest.mark.parametrize("data", [{}, [1, 2], {"model": {"epoch": 3}}, torch.zeros(2)])
def test_a_file_without_named_tensors_is_refused(data: object, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no named tensors"):
        read_checkpoint(saved(data, tmp_path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="there is no checkpoint"):
        read_checkpoint(tmp_path / "nothing.pth")
