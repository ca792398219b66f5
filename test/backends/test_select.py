"""What ``auto`` chooses, remembers and says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dense_perception.backends import select
from dense_perception.backends.select import select_backend
from dense_perception.backends.speed import SpeedMemory
from dense_perception.core.errors import ArtefactError, BackendError, CardError
from dense_perception.core.registry import Model, find_model
from test.support.bench import FOUR, Bench, FakeBackend
from test.support.models import write_model


def test_fastest_wins_the_others_are_closed_and_named(bench: Bench, model: Model) -> None:
    bench.speeds = dict(FOUR)
    backend, card, selection = select_backend(model)
    assert (selection.backend, selection.precision) == ("openvino", "fp32")
    assert card.precision == "fp32"
    assert [fake for fake in bench.opened if not fake.closed] == [backend]
    summary = selection.summary()
    for word in ("openvino/fp32 on cpu", "20.0 ms measured", "onnxruntime/int8 30.0 ms"):
        assert word in summary


def test_emulated_fp8_is_not_tried_but_where_it_is_asked_for(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = find_model(write_model(tmp_path / "models", precisions=("fp32", "fp8")))
    bench.speeds = {(name, "fp32"): 20.0 for name in ("onnxruntime", "openvino")}
    bench.speeds |= {(name, "fp8"): 1.0 for name in ("onnxruntime", "openvino")}
    _, _, selection = select_backend(model)
    assert selection.precision == "fp32"
    assert {kind for _, kind in bench.measured} == {"fp32"}
    for name in ("onnxruntime", "openvino"):
        assert f"{name}/fp8 (fp8 is only emulated there" in selection.summary()
    assert select_backend(model, precision="fp8")[1].precision == "fp8"


def test_second_start_remembers(bench: Bench, model: Model) -> None:
    bench.speeds = dict(FOUR)
    select_backend(model)
    bench.measured.clear()
    bench.opened.clear()
    _, _, selection = select_backend(model)
    assert (bench.opened[0].name, bench.opened[0].precision) == ("openvino", "fp32")
    assert not bench.opened[0].closed
    assert "remembered" in selection.reason
    # One of the losers is looked at again, and closed.
    assert len(bench.measured) == 1
    assert ("openvino", "fp32") not in bench.measured
    assert [fake.closed for fake in bench.opened[1:]] == [True]
    assert len(selection.considered) == 4


def test_other_threads_device_or_file_are_measured_anew(
    bench: Bench, model: Model, tmp_path: Path
) -> None:
    bench.speeds = dict(FOUR)
    select_backend(model)
    for changes in ({"threads": 1}, {"device": "gpu"}):
        bench.measured.clear()
        select_backend(model, **changes)  # type: ignore[arg-type]
        assert len(bench.measured) == 4


@pytest.mark.parametrize("junk", ["", "{", "[]", '{"a": "b"}', '{"a": NaN}'])
def test_damaged_memory_is_ignored_and_rewritten(
    bench: Bench, model: Model, tmp_path: Path, junk: str
) -> None:
    bench.speeds = dict(FOUR)
    memory = tmp_path / "cache/dense_perception/speeds.json"
    memory.parent.mkdir(parents=True)
    memory.write_text(junk)
    select_backend(model)
    assert len(bench.measured) == 4
    assert len(json.loads(memory.read_text())) >= 4


def test_read_only_cache_does_not_matter(
    bench: Bench, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.speeds = dict(FOUR)
    (tmp_path / "a_file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a_file"))
    _, _, selection = select_backend(model)
    assert selection.backend == "openvino"


def test_budget_ends_the_contest_and_the_next_start_goes_on(
    bench: Bench, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.speeds = dict(FOUR)
    monkeypatch.setattr(select, "BUDGET_S", -1.0)
    _, _, first = select_backend(model)
    assert len(bench.measured) == 1, "one candidate is measured however little time there is"
    assert (first.backend, first.precision) == bench.measured[0]
    assert "later start" in first.summary()
    for count in (2, 3, 4, 5):
        _, _, selection = select_backend(model)
        assert len(bench.measured) == count, "one more at each start, however slow the machine"
    assert sorted(bench.measured[:4]) == sorted(FOUR)
    assert (selection.backend, selection.precision) == ("openvino", "fp32")


def test_a_measurement_on_a_busy_machine_is_mended_at_later_starts(
    bench: Bench, model: Model
) -> None:
    bench.speeds = {**FOUR, ("openvino", "int8"): 90.0}
    assert select_backend(model)[2].precision == "fp32"
    bench.speeds["openvino", "int8"] = 10.0
    chosen = [select_backend(model)[2] for _ in range(60)]  # a loser in three: (2/3)^60 to fail
    assert (chosen[-1].backend, chosen[-1].precision) == ("openvino", "int8")
    bench.speeds["openvino", "int8"] = 90.0  # busy again: what was measured before stays
    assert select_backend(model)[2].precision == "int8"


def test_what_a_busy_machine_measured_is_measured_again_when_it_is_calm(
    bench: Bench, model: Model
) -> None:
    bench.others = 0.9
    bench.speeds = {**FOUR, ("openvino", "int8"): 213.0, ("openvino", "fp32"): 77.0}
    assert select_backend(model)[2].backend == "onnxruntime"
    bench.measured.clear()
    bench.speeds |= {("openvino", "int8"): 17.0, ("openvino", "fp32"): 33.0}
    select_backend(model)
    assert len(bench.measured) == 1, "as busy as before: only the usual second look at a loser"
    bench.others = 0.1
    bench.measured.clear()
    _, _, selection = select_backend(model)
    assert (selection.backend, selection.precision) == ("openvino", "int8")
    assert "17.0 ms measured" in selection.reason
    assert sorted(bench.measured) == sorted(FOUR)
    bench.measured.clear()
    assert "17.0 ms remembered" in select_backend(model)[2].reason
    assert len(bench.measured) == 1, "settled"


def test_speeds_that_earlier_versions_remembered_are_measured_once_more(
    bench: Bench, model: Model, tmp_path: Path
) -> None:
    bench.speeds = dict(FOUR)
    select_backend(model)
    memory = tmp_path / "cache/dense_perception/speeds.json"
    memory.write_text(json.dumps(dict.fromkeys(json.loads(memory.read_text()), 300.0)))
    bench.measured.clear()
    assert select_backend(model)[2].reason == "the fastest, 20.0 ms measured"
    assert sorted(bench.measured) == sorted(FOUR)


def test_live_times_that_contradict_have_everything_measured_again(
    bench: Bench, model: Model
) -> None:
    bench.speeds = {**FOUR, ("openvino", "fp32"): 5.0}
    watch = select_backend(model)[2].watch
    assert watch is not None
    SpeedMemory().doubt(watch._keys)
    bench.speeds = dict(FOUR)  # a slower power mode, say: what was measured before is void
    bench.speeds["onnxruntime", "int8"] = 15.0
    bench.measured.clear()
    _, _, selection = select_backend(model)
    assert (selection.backend, selection.precision) == ("onnxruntime", "int8")
    assert sorted(bench.measured) == sorted(FOUR)
    bench.measured.clear()
    assert "15.0 ms remembered" in select_backend(model)[2].reason


def test_a_fastest_one_that_fails_when_it_is_measured_again_gives_way(
    bench: Bench, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.speeds = dict(FOUR)
    watch = select_backend(model)[2].watch
    assert watch is not None
    SpeedMemory().doubt(watch._keys)
    measure = bench.measure

    def fail(backend: FakeBackend, card: object) -> float:
        if (backend.name, backend.precision) == ("openvino", "fp32"):
            raise BackendError("the device is gone")
        return measure(backend, card)

    monkeypatch.setattr(select, "measure_ms", fail)
    backend, _, selection = select_backend(model)
    assert (selection.backend, selection.precision) == ("openvino", "int8")
    assert "openvino/fp32 (the device is gone)" in selection.summary()
    live = [fake for fake in bench.opened if not fake.closed][-1]
    assert live is backend


def test_slow_losers_are_not_opened_again(bench: Bench, model: Model) -> None:
    bench.speeds = {key: value * 100 for key, value in FOUR.items()}
    select_backend(model)
    bench.opened.clear()
    select_backend(model)
    assert [(fake.name, fake.precision) for fake in bench.opened] == [("openvino", "fp32")]


def test_failures_are_passed_over_and_named(bench: Bench, model: Model) -> None:
    bench.speeds = {**FOUR, ("openvino", "fp32"): BackendError("too old for this graph")}
    _, _, selection = select_backend(model)
    assert (selection.backend, selection.precision) == ("openvino", "int8")
    assert "openvino/fp32 (too old for this graph)" in selection.summary()


def test_remembered_winner_that_fails_gives_way(bench: Bench, model: Model) -> None:
    bench.speeds = dict(FOUR)
    select_backend(model)
    bench.speeds["openvino", "fp32"] = BackendError("driver gone")
    _, _, selection = select_backend(model)
    assert (selection.backend, selection.precision) == ("openvino", "int8")


def test_damaged_precision_is_passed_over(bench: Bench, model: Model) -> None:
    bench.speeds = dict(FOUR)
    model.files["fp32"].write_bytes(b"damaged")
    _, _, selection = select_backend(model)
    assert selection.precision == "int8"
    assert "its card says" in selection.summary()


def test_nothing_runs(bench: Bench, model: Model) -> None:
    bench.speeds = {key: BackendError(f"no {key[0]}") for key in FOUR}
    with pytest.raises(BackendError, match=r"nothing can run red_depth.*no openvino"):
        select_backend(model)


def test_one_common_reason_is_raised_as_it_is(bench: Bench, model: Model) -> None:
    bench.speeds = dict(FOUR)
    model.files["int8"].write_bytes(b"damaged")
    with pytest.raises(ArtefactError, match="its card says"):
        select_backend(model, precision="int8")


def test_wish_is_granted_without_measuring(bench: Bench, model: Model) -> None:
    bench.speeds = dict(FOUR)
    backend, _, selection = select_backend(model, backend="onnxruntime", precision="fp32")
    assert (backend.name, selection.precision) == ("onnxruntime", "fp32")
    assert bench.measured == []


def test_wished_backend_leaves_the_precision_open(bench: Bench, model: Model) -> None:
    bench.speeds = dict(FOUR)
    _, _, selection = select_backend(model, backend="onnxruntime")
    assert (selection.backend, selection.precision) == ("onnxruntime", "int8")


def test_unknown_precision(bench: Bench, model: Model) -> None:
    with pytest.raises(CardError, match="no fp16 file"):
        select_backend(model, precision="fp16")


def test_real_runtimes(model: Model) -> None:
    backend, _, selection = select_backend(model, threads=1)
    try:
        feeds = {
            "image": np.full((1, 48, 64, 3), 255, np.uint8),
            "focal_px": np.float32([64]),
        }
        np.testing.assert_allclose(backend.infer(feeds)["depth"], 10.0, rtol=1e-5)
        assert selection.backend == backend.name
    finally:
        backend.close()


@pytest.mark.parametrize("wish", ["openvino", "auto"])
def test_a_backend_that_is_wrong_gives_way_with_a_warning(
    bench: Bench, model: Model, wish: str
) -> None:
    bench.speeds = dict(FOUR)
    bench.wrong = {"openvino"}
    backend, _, selection = select_backend(model, backend=wish, precision="fp32")
    assert backend.name == selection.backend == "onnxruntime"
    assert selection.warnings == ("openvino differs by 0.3",)
    assert "WARNING: openvino differs by 0.3" in selection.summary()
    assert [fake for fake in bench.opened if not fake.closed] == [backend]


def test_nothing_is_left_when_all_are_wrong(bench: Bench, model: Model) -> None:
    bench.speeds = dict(FOUR)
    bench.wrong = {"openvino", "onnxruntime"}
    with pytest.raises(BackendError, match=r"differs by 0\.3"):
        select_backend(model, backend="openvino", precision="fp32")


def test_trusted_engines_are_not_checked_and_that_is_said(bench: Bench, model: Model) -> None:
    bench.speeds = dict(FOUR)
    bench.wrong = {"openvino"}
    _, _, selection = select_backend(model, backend="openvino", precision="fp32", trust_engine=True)
    assert selection.backend == "openvino"
    assert "trust_engine is set" in selection.summary()
