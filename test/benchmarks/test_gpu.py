"""On a machine with a GPU: every backend on the default and the published networks, as a table.

``python -m pytest -m gpu`` prints it, the most important networks first, within eight minutes with
the contract tests. What there was no time for is measured by the next run: results and exported
files stay in DENSE_PERCEPTION_GPU_TEST_FOLDER, by default a folder in /tmp.
DENSE_PERCEPTION_GPU_TEST_DEVICE=cpu runs the same on a CPU.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dense_perception.backends.device import find_gpu
from dense_perception.benchmarks.parity import OUT_OF_TIME, measure_parity
from dense_perception.core.errors import BackendError
from dense_perception.core.registry import find_model
from dense_perception.export.model_folder import Plan
from dense_perception.export.network import open_network
from dense_perception.export.package import export_model
from dense_perception.export.roofline import DEVICES, predict, traced
from test.benchmarks.gpu_table import summary

DEVICE = os.environ.get("DENSE_PERCEPTION_GPU_TEST_DEVICE", "gpu")
BUDGET_S = float(os.environ.get("DENSE_PERCEPTION_GPU_TEST_BUDGET_S", "400"))


@dataclass(frozen=True)
class Contender:
    """A model, the precisions to measure on the GPU, and the size that TensorRT's graph needs.

    Of a published network the weights are random and both precisions are exported.
    """

    name: str
    precisions: tuple[str, ...]
    size: str | None = None
    is_shipped: bool = False


CONTENDERS = (
    Contender("dpt_tiny_indoor", ("fp32", "int8"), is_shipped=True),
    Contender("dpt/base", ("fp16",), "384x384"),
    Contender("depth_anything_v2_small", ("fp16",), "518x518"),
    Contender("segmenter_small_mask_ade20k", ("fp16",)),
    Contender("vit_comer_tiny_upernet_ade20k", ("fp16",)),
    Contender("mult_tiny_indoor", ("fp32", "int8"), is_shipped=True),
)
# By a part of the GPU's name: whose peak rates are known.
ROOFLINES = {"H100": "h100", "4090": "rtx4090", "Thor": "thor", "AGX Orin": "agx-orin"}
# A wrong conversion is further off; the self-check's own limits are stricter and by precision.
MOST_OFF = 0.05

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def gpu() -> str:
    """Its name."""
    if DEVICE == "cpu":
        return "cpu"
    try:
        return find_gpu().name
    except BackendError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def folder(gpu: str) -> Path:
    """What stays for the next run, by GPU."""
    named = os.environ.get("DENSE_PERCEPTION_GPU_TEST_FOLDER")
    base = Path(named or f"{tempfile.gettempdir()}/dense_perception_gpu_{os.getuid()}")
    path = base / gpu.replace(" ", "_").replace("/", "_")
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="module")
def until_s(folder: Path, gpu: str, request: pytest.FixtureRequest) -> Iterator[float]:
    """When the time is up; prints the table of all that was measured, in this run or before."""
    yield time.monotonic() + BUDGET_S
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    manager = request.config.pluginmanager.getplugin("capturemanager")
    with manager.global_and_fixture_disabled():
        print(f"\n\n{summary(results, gpu)}\n")


@pytest.mark.parametrize("number", range(len(CONTENDERS)), ids=[c.name for c in CONTENDERS])
def test_every_backend_agrees_with_the_reference(
    number: int, folder: Path, gpu: str, until_s: float
) -> None:
    contender = CONTENDERS[number]
    kept = folder / f"{number}_{contender.name.replace('/', '_')}.json"
    if not kept.is_file():
        if time.monotonic() >= until_s:
            pytest.skip(f"{contender.name} was {OUT_OF_TIME}: run it again")
        model = contender.name if contender.is_shipped else str(exported(contender, folder))
        try:
            result = measure_parity(
                model, device=DEVICE, runs=50, precisions=contender.precisions, until_s=until_s
            )
        except BackendError as error:
            if OUT_OF_TIME not in str(error):
                raise
            pytest.skip(f"{contender.name} was {OUT_OF_TIME}: run it again")
        if any(row.get("error") == OUT_OF_TIME for row in result["rows"]):
            pytest.skip(f"{contender.name} was {OUT_OF_TIME}: run it again")
        kept.write_text(json.dumps({**result, "bound_ms": bounds(model, contender, gpu)}))
    result = json.loads(kept.read_text())
    answered = [row for row in result["rows"] if "error" not in row]
    assert len(answered) > 1, result["rows"]
    for row in answered:
        assert row.get("mean_of_range", 0.0) < MOST_OFF, row["name"]
        assert row.get("agreement", 1.0) > 1 - MOST_OFF, row["name"]


def exported(contender: Contender, folder: Path) -> Path:
    """The card of an untrained network in fp32 and wholly in fp16, whatever that costs."""
    models = folder / contender.name.replace("/", "_")
    if not (models / "whole").is_file():
        network, card, _ = open_network(contender.name, random=True, size=contender.size)
        export_model(network, card, models, Plan(("fp16",), fp16_drop=9.0))
        (models / "whole").touch()
    return next(models.glob("*.yaml"))


def bounds(model: str, contender: Contender, gpu: str) -> dict[str, float]:
    """The roofline of one frame in ms by precision; nothing for a GPU of unknown rates."""
    known = next((name for part, name in ROOFLINES.items() if part in gpu), "")
    if not known:
        return {}
    card = find_model(model).card
    window = card.segmentation.window if card.segmentation is not None else 0
    width, height = (window, window) if window else (card.input.width, card.input.height)
    operations, parameters = traced(card, width, height)
    return {
        kind: predict(operations, parameters, DEVICES[known], kind).bound_ms
        for kind in contender.precisions
        if kind in DEVICES[known].tera
    }
