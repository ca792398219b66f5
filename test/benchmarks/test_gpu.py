"""On a machine with a GPU: every backend on the default and the published networks, as a table.

``python -m pytest -m gpu`` prints it. DENSE_PERCEPTION_GPU_TEST_DEVICE=cpu runs the same on a CPU.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dense_perception.backends.device import find_gpu
from dense_perception.benchmarks.parity import measure_parity
from dense_perception.commands.benchmark_parity import table
from dense_perception.core.errors import BackendError
from dense_perception.export.model_folder import Plan
from dense_perception.export.network import open_network
from dense_perception.export.package import export_model

DEVICE = os.environ.get("DENSE_PERCEPTION_GPU_TEST_DEVICE", "gpu")
# Name, and the size of a fixed graph, which TensorRT needs.
PUBLISHED: dict[str, str | None] = {
    "dpt/base": "384x384",
    "depth_anything_v2_small": "518x518",
    "segmenter_small_mask_ade20k": None,
    "vit_comer_tiny_upernet_ade20k": None,
}
SMALL = ("dpt_tiny_indoor", "mult_tiny_indoor")
# A wrong conversion is further off; the self-check's own limits are stricter and by precision.
MOST_OFF = 0.05

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def _there_is_a_gpu() -> None:
    if DEVICE == "cpu":
        return
    try:
        find_gpu()
    except BackendError as error:
        pytest.skip(str(error))


def exported(name: str, folder: Path) -> Path:
    """The card of an untrained network in fp32 and wholly in fp16, whatever that costs."""
    network, card, _ = open_network(name, random=True, size=PUBLISHED[name])
    export_model(network, card, folder, Plan(("fp16",), fp16_drop=9.0))
    return next(folder.glob("*.yaml"))


@pytest.mark.parametrize("name", [*SMALL, *PUBLISHED])
def test_every_backend_agrees_with_the_reference(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(exported(name, tmp_path)) if name in PUBLISHED else name
    result = measure_parity(model, device=DEVICE, runs=50)
    with capsys.disabled():
        print(f"\n{table(result)}")
    answered = [row for row in result["rows"] if "error" not in row]
    assert len(answered) > 1
    for row in answered:
        assert row.get("mean_of_range", 0.0) < MOST_OFF, row["name"]
        assert row.get("agreement", 1.0) > 1 - MOST_OFF, row["name"]
