"""The committed page of the commands is what the commands say."""

from __future__ import annotations

from pathlib import Path

import pytest

from dense_perception.commands import reference
from dense_perception.commands.verbs import VERBS

ROOT = Path(__file__).parents[2]


def test_the_committed_page_is_what_the_commands_say() -> None:
    assert (ROOT / reference.PAGE).read_text(encoding="utf-8") == reference.page(), (
        "stale: run `make docs`"
    )


def test_the_page_has_every_command_and_its_options() -> None:
    page = reference.page()
    for name, verb in VERBS.items():
        names = [name] if verb.module else []
        for each in [*names, *(f"{name} {kind}" for kind in verb.kinds)]:
            assert page.count(f"\n### {each}\n") == 1
    soup = page.partition("\n### train soup\n")[2].partition("\n### ")[0]
    assert "| `--share SHARE` | of the later one, 0 to 1 (default 0.5) |" in soup
    assert "| `--out FILE` | model.pt to write (required) |" in soup
    assert "dense-perception train soup runs/mine/model.pt" in soup


def test_it_writes_below_the_root_it_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reference.main([str(tmp_path)]) == 2
    assert "give the root of the project" in capsys.readouterr().err
    (tmp_path / "docs").mkdir()
    assert reference.main([str(tmp_path)]) == 0
    assert (tmp_path / reference.PAGE).read_text(encoding="utf-8") == reference.page()
