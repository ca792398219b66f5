"""README and docs/: links resolve, every page is found from the index, commands are valid."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from dense_perception.commands.verbs import RENAMED, resolve
from dense_perception.core.errors import InputError
from test.test_import_rules import ALLOWED

ROOT = Path(__file__).parents[1]
INDEX = ROOT / "docs" / "index.md"
UPGRADING = ROOT / "docs" / "upgrading.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^\s*```(\w*)\n(.*?)^\s*```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def prose_of(page: Path) -> str:
    """The page without its code blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def links_of(page: Path) -> list[str]:
    """Targets of the page's links and pictures that are not web addresses."""
    # A picture may stand inside a link's text: what is left of it is found in a second pass.
    text = prose_of(page)
    targets = _LINK.findall(text) + _LINK.findall(_LINK.sub("", text))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors_of(page: Path) -> set[str]:
    """What GitHub makes of the page's headings."""
    headings = re.findall(r"^#+ +(.*?)\s*$", prose_of(page), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=_NAMES)
def test_links_resolve(page: Path) -> None:
    for target in links_of(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}, which does not exist"
        if anchor:
            assert anchor in anchors_of(file), f"{page.name} links to {target}: no such heading"


def test_every_page_and_picture_is_found_from_the_index() -> None:
    found: set[Path] = set()
    ahead = [INDEX]
    while ahead:
        page = ahead.pop()
        if page in found or not page.is_relative_to(ROOT / "docs"):
            continue
        found.add(page)
        if page.suffix == ".md":
            linked = {target.partition("#")[0] for target in links_of(page)} - {""}
            ahead += [(page.parent / path).resolve() for path in linked]
    shown = {(ROOT / target).resolve() for target in links_of(ROOT / "README.md")}
    pages = set((ROOT / "docs").rglob("*.md"))
    pictures = {path for path in (ROOT / "docs").rglob("*") if path.suffix in {".jpg", ".png"}}
    assert pages - found == set()
    assert pictures - found - shown == set()
    assert INDEX in shown


def test_the_architecture_page_has_the_import_table_of_the_test() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("| room | may import |\n|---|---|\n")[2].partition("\n\n")[0]
    allowed: dict[str, set[str]] = {}
    for line in table.splitlines():
        rooms, below = line.strip("| ").split(" | ")
        named = set(re.findall(r"`(\w+)`", below))
        for room in re.findall(r"`(\w+)`", rooms):
            allowed[room] = set(ALLOWED) - {room} if "every other room" in below else named
    assert allowed == {**ALLOWED, "commands": set(ALLOWED) - {"commands"}}
    assert ALLOWED["commands"] | {"commands"} == set(ALLOWED)


def test_source_files_that_pages_name_exist() -> None:
    for page in PAGES:
        if page.is_relative_to(ROOT / "docs" / "experiments"):
            continue  # dated records name the files of their day
        for name in re.findall(r"`((?:\w+/)+\w+\.(?:py|yaml|xml|json))`", prose_of(page)):
            places = [ROOT / name, ROOT / "dense_perception" / name]
            assert any(place.exists() for place in places), f"{page.name} names {name}"


def test_functions_of_the_recipes_exist() -> None:
    """A name in code font on the recipes' page is defined somewhere in the sources."""
    defined = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("dense_perception", "launch")
        for path in (ROOT / folder).rglob("*.py")
    )
    text = prose_of(ROOT / "docs" / "extending.md")
    for code in re.findall(r"`([A-Za-z_][\w.]*)(?:\([^`]*\))?`", text):
        if code.endswith(".py"):
            assert list(ROOT.rglob(f"dense_perception/**/{code}")), f"extending.md names {code}"
            continue
        for name in code.split("."):
            uses = rf"\b(class|def) {name}\b|\b{name}\b\s*[:=(]|[\"']{name}[\"']"
            known = re.search(uses, defined) or (ROOT / "dense_perception" / name).exists()
            assert known, f"extending.md names {code}"


def test_tests_of_the_field_reports_exist() -> None:
    text = prose_of(ROOT / "docs" / "experiments" / "field_reports.md")
    named = re.findall(r"`(test/[\w/]+\.py)::(\w+)`", text)
    assert len(named) == text.count("::") > 100
    for file, name in named:
        source = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf"^(?:    )?def {name}\(", source, re.MULTILINE), f"{file}::{name}"
    rows = re.findall(r"^\| ([A-Z]\d+) \|", text, re.MULTILINE)
    counts = {"B": 12, "C": 15, "F": 18, "G": 6}
    assert set(rows) == {f"{k}{n}" for k, last in counts.items() for n in range(1, last + 1)}


def test_modules_of_the_upgrade_page_exist_now() -> None:
    now = re.findall(
        r"^\| `dense_perception\.[^|]* \| `(dense_perception[\w.]*)`",
        UPGRADING.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(now) > 3
    for name in now:
        path = ROOT / name.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").exists(), name


def command_lines(text: str) -> Iterator[list[str]]:
    """The words after ``dense-perception`` of each complete command in the page's shell blocks."""
    for language, block in _FENCE.findall(text):
        if language != "sh":
            continue
        for line in block.replace("\\\n", " ").splitlines():
            if not re.match(r"\s*(\w+=\S+ +)*(\S*/)?dense-perception ", line):
                continue
            words = shlex.split(line, comments=True)
            start = next(i for i, w in enumerate(words) if w.endswith("dense-perception"))
            if "..." not in words:
                yield words[start + 1 :]


def named_commands(text: str) -> Iterator[list[str]]:
    """The words after ``dense-perception`` of commands in running text."""
    for code in re.findall(r"`dense-perception ([^`]+)`", _FENCE.sub("", text)):
        words = code.split()
        if words[0] != "VERB":
            yield [word.rstrip(":,") for word in words]


def parser_of(words: list[str]) -> tuple[argparse.ArgumentParser, list[str]]:
    """The real parser of the command that ``words`` start with, and the words it gets."""
    name, verb, rest = resolve(words)
    parser = argparse.ArgumentParser(prog=name, exit_on_error=False)
    if verb.module:
        import_module(verb.module).add_arguments(parser)
    return parser, rest


@pytest.mark.parametrize("page", PAGES, ids=_NAMES)
def test_commands_parse(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = page.read_text(encoding="utf-8")
    for words in command_lines(text):
        parser, rest = parser_of(words) if words[0] != "--version" else (None, [])
        try:
            if parser is not None:
                parser.parse_args(rest)
        except (SystemExit, argparse.ArgumentError) as error:
            pytest.fail(f"{page.name}: {' '.join(words)}: {error} {capsys.readouterr().err}")
    for words in named_commands(text):
        if page == UPGRADING and (words[0] in RENAMED or words == ["benchmark", "MODEL"]):
            continue
        parser, rest = parser_of(words)
        options = {word.partition("=")[0] for word in rest if word.startswith("--")}
        unknown = options - set(parser._option_string_actions)
        assert not unknown, f"{page.name}: {' '.join(words)}: no such option as {unknown}"


def test_the_upgrade_page_has_every_renamed_command() -> None:
    rows = re.findall(
        r"^\| `dense-perception ([^`]+)` \| `dense-perception ([^`]+)` \|$",
        UPGRADING.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    before = {old.split()[0] for old, _ in rows}
    assert before == {*RENAMED, "benchmark"}
    for old, new in rows:
        with pytest.raises(InputError, match="is now"):
            resolve(old.split())
        resolve(new.split())
        assert old.split()[0] == "benchmark" or new.startswith(RENAMED[old.split()[0]])


def test_the_checks_find_what_they_are_for() -> None:
    assert list(
        command_lines("```sh\nA=b dense-perception run x \\\n  --input y  # why\n```\n")
    ) == [["run", "x", "--input", "y"]]
    assert list(named_commands("Use `dense-perception train soup`.")) == [["train", "soup"]]
    parser, rest = parser_of(["run", "x", "--input", "y", "--output", "z", "--wrong"])
    with pytest.raises((SystemExit, argparse.ArgumentError)):
        parser.parse_args(rest)
    assert _LINK.findall("[a](b.md#c) and ![d](e.jpg)") == ["b.md#c", "e.jpg"]
