"""Bounds, and the commands and tables of docs/supply_chain.md."""

from __future__ import annotations

import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest

from test.support.setup_script import ROOT, described_by_setup

PAGE = ROOT / "docs" / "supply_chain.md"


@pytest.fixture(scope="module")
def licences() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / ".ci" / "licences.py"))


def requirements() -> set[str]:
    described = described_by_setup()
    extras = described["extras_require"].values()
    return {*described["install_requires"], *(line for extra in extras for line in extra)}


def test_every_requirement_has_a_bound_that_was_tried() -> None:
    """The ROS 2 wheels belong to one distribution."""
    free = {line for line in requirements() if not re.search(r"[=>]=", line)}
    assert {line for line in free if not line.startswith("ros-")} == set()


def test_all_extras_ask_for_one_version_of_a_package() -> None:
    """Bounds are tried together. Why export asks for more of PyTorch than train is on the page."""
    bounds: dict[str, set[str]] = {}
    for lines in described_by_setup()["extras_require"].values():
        for name, bound in (
            re.split(r"(?=[<>=!~])", line, maxsplit=1) for line in lines if "=" in line
        ):
            bounds.setdefault(name, set()).add(bound)
    several = {name: each for name, each in bounds.items() if len(each) > 1}
    assert several == {"torch": {">=2.6", ">=2.13"}}


def test_the_page_has_the_licence_of_every_requirement() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("| package | wanted by | licence |")[2]
    listed = set(re.findall(r"^\| (\S+) \| ", table.partition("\n\n")[0], re.MULTILINE))
    wanted = {re.split(r"[<>=!~]", line)[0] for line in requirements()}
    grouped = {"ros-kilted-*" if name.startswith("ros-") else name for name in wanted}
    assert listed - {"|---|---|---|"} == grouped, "run `make licences` and put its tables there"


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("Apache Software License", ["Apache-2.0"]),
        ("BSD-3-Clause AND 0BSD AND MIT", ["MIT", "BSD"]),
        ("GNU Library or Lesser General Public License (LGPL)", ["LGPL"]),
        ("LGPL-2.1-or-later", ["LGPL"]),
        ("GPL-3.0-only", []),
        ("GNU General Public License v2 (GPLv2)", []),
        ("MIT AND GPL-2.0-or-later", []),
        ("AGPL-3.0", []),
        ("not stated", []),
        ("Limited use", []),  # no "MIT"
    ],
)
def test_gpl_and_unknown_licences_are_not_passed_over(
    licences: dict[str, Any], stated: str, expected: list[str]
) -> None:
    assert licences["families"](stated) == expected


def test_bounds_says_what_it_takes() -> None:
    done = subprocess.run(
        [str(ROOT / ".ci" / "bounds"), "highest"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "lowest|newest" in done.stderr
    assert "'highest'" in done.stderr


def test_ros_licences_come_from_package_xml(licences: dict[str, Any], tmp_path: Path) -> None:
    for name, stated in (("a", "Apache-2.0"), ("b", "BSD-3-Clause")):
        (tmp_path / name).mkdir()
        text = f"<package><license> {stated}</license></package>"
        (tmp_path / name / "package.xml").write_text(text)
    assert licences["of_ros"](tmp_path) == "Apache-2.0, BSD-3-Clause"
