"""The roofline against arithmetic done by hand, and the command on a known model."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dense_perception import cli
from dense_perception.core.registry import find_card
from dense_perception.export.roofline import DEVICES, Device, predict, this_cpu, traced
from dense_perception.nets.trace import Operation

ROUND = Device("round", {"fp32": 1.0, "fp16": 2.0, "int8": 4.0}, 100.0, 1, "invented")
BUSY = Operation("conv", 2_000_000_000, 1000, 1000, True)
WIDE = Operation("softmax", 0, 50_000_000, 50_000_000, False)
ATTENTION = Operation("bmm", 2_000_000_000, 1000, 1000, False)


def test_the_longer_of_arithmetic_and_traffic() -> None:
    launch_ms = 0.003
    assert predict([BUSY], 0, ROUND, "fp32").bound_ms == pytest.approx(2 + launch_ms)
    assert predict([BUSY], 0, ROUND, "int8").bound_ms == pytest.approx(0.5 + launch_ms)
    # 100 M elements of 4 bytes at 100 GB/s.
    assert predict([WIDE], 0, ROUND, "fp32").bound_ms == pytest.approx(4 + launch_ms)
    # In int8 what has no weights stays fp16.
    assert predict([WIDE], 0, ROUND, "int8").bound_ms == pytest.approx(2 + launch_ms)
    assert predict([WIDE], 0, ROUND, "fp8").bound_ms == pytest.approx(2 + launch_ms)
    assert predict([ATTENTION], 0, ROUND, "int8").bound_ms == pytest.approx(1 + launch_ms)
    found = predict([BUSY, WIDE], 10_000_000, ROUND, "fp32", efficiency=0.5)
    assert found.planned_ms == pytest.approx(2 * found.bound_ms)
    assert found.memory_mb == pytest.approx(40 + 2 * 400)


def test_a_cpu_has_a_cache_and_no_launches() -> None:
    cpu = Device("cpu", {"fp32": 1.0, "fp16": 1.0, "int8": 4.0}, 100.0, 1, "invented", 1000.0)
    assert predict([BUSY, WIDE], 0, cpu, "fp32").bound_ms == pytest.approx(2)
    here = this_cpu()
    assert 0.01 < here.tera["fp32"] < 100
    assert here.gb_per_s > 0.5


@pytest.mark.parametrize(
    ("name", "multiprocessors", "clock_ghz", "tensor", "bus_bits", "transfers_gt"),
    [
        # Per multiprocessor and clock: 128 fp32 FMAs, and dense fp16 FMAs of the tensor cores.
        ("orin-nano", 8, 1.020, 1024, 128, 6.4),
        ("orin-nx", 8, 0.918, 1024, 128, 6.4),
        ("agx-orin", 16, 1.300, 1024, 256, 6.4),
        ("thor", 20, 1.575, 4096, 256, 8.533),
        ("rtx4090", 128, 2.520, 256, 384, 21.0),
        ("h100", 132, 1.830, 2048, 5120, 5.23),
    ],
)
def test_published_rates_follow_from_the_chip(
    name: str,
    multiprocessors: int,
    clock_ghz: float,
    tensor: int,
    bus_bits: int,
    transfers_gt: float,
) -> None:
    """Cores x clock and bus width x transfer rate, from the makers' architecture papers."""
    device = DEVICES[name]
    per_clock = 2 * multiprocessors * clock_ghz / 1e3
    assert device.tera["fp32"] == pytest.approx(128 * per_clock, rel=0.10)
    assert device.tera["fp16"] == pytest.approx(tensor * per_clock, rel=0.10)
    assert device.gb_per_s == pytest.approx(bus_bits / 8 * transfers_gt, rel=0.02)
    assert device.tera["int8"] == pytest.approx(
        (4 if name == "rtx4090" else 2) * device.tera["fp16"], rel=0.01
    )


def test_every_device_has_its_chip_checked() -> None:
    (mark,) = test_published_rates_follow_from_the_chip.pytestmark  # type: ignore[attr-defined]
    assert {row[0] for row in mark.args[1]} == set(DEVICES)


def test_the_command_says_which_size_fits(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "benchmark",
        "plan",
        "dpt_tiny_indoor",
        "--device",
        "orin-nano",
        "--fps",
        "250",
        "--json",
    ]
    assert cli.main(words) == 0
    summary = json.loads(capsys.readouterr().out)
    found = {(row["size"], row["precision"]): row for row in summary["rows"]}
    assert set(summary["devices"]) == {"orin-nano"}
    assert found["256x192", "int8"]["fits"]
    assert not found["256x192", "fp32"]["fits"]
    assert found["128x96", "fp32"]["fits"]
    for row in found.values():
        assert row["fps"] == pytest.approx(1e3 / row["planned_ms"], rel=0.01)


@pytest.mark.parametrize(
    ("name", "precision", "measured_ms"),
    [("dpt_tiny_indoor", "fp32", 1.42), ("dpt/base", "fp16", 2.02)],
)
def test_the_plan_is_within_a_third_of_what_an_h100_took(
    name: str, precision: str, measured_ms: float
) -> None:
    """TensorRT 8.6.1, copies included: docs/experiments/backends.md."""
    if name == "dpt/base":
        network = {**find_card("dpt_large_midas").network, "variant": "base"}
        card, size = replace(find_card("dpt_large_midas"), network=network), (384, 384)
    else:
        card = find_card(name)
        size = card.input.width, card.input.height
    operations, parameters = traced(card, *size)
    planned_ms = predict(operations, parameters, DEVICES["h100"], precision).planned_ms
    assert planned_ms == pytest.approx(measured_ms, rel=0.30)


def test_what_tensorrt_8_takes_is_said_of_each_file(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["benchmark", "plan", "dpt_tiny_indoor", "--device", "orin-nx", "--no-measure"]
    assert cli.main([*words, "--tensorrt", "8.6", "--json"]) == 0
    fp32, int8 = json.loads(capsys.readouterr().out)["tensorrt"]
    assert "dpt_tiny_indoor fp32: read after rewriting" in fp32
    assert "int8, symmetric, float weights" in int8
    assert cli.main([*words, "--tensorrt", "8.5"]) == 0
    assert "TensorRT 8, by its sources:" in capsys.readouterr().out


def test_fp8_only_where_the_device_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    devices = ["agx-orin", "thor", "rtx4090", "h100", "cpu"]
    words = ["benchmark", "plan", "dpt_tiny_indoor", "--device", *devices, "--no-measure", "--json"]
    assert cli.main(words) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {r["device"] for r in rows if r["precision"] == "fp8"} == {"thor", "rtx4090", "h100"}


def test_wrong_options_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    for words, complaint in (
        (["--device", "toaster"], "--device is toaster, expected some of orin-nano"),
        (["--fps", "0"], "--fps is 0.0"),
        (["--efficiency", "2"], "--efficiency is 2.0"),
    ):
        assert cli.main(["benchmark", "plan", "dpt_tiny_indoor", *words]) == 2
        assert complaint in capsys.readouterr().err
