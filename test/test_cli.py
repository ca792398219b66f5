"""The dispatcher: verbs, errors, exit codes."""

from __future__ import annotations

import argparse
import subprocess
import sys
from types import ModuleType

import pytest

from dense_perception import __version__, cli
from dense_perception.core.errors import InputError


def verb(name: str, monkeypatch: pytest.MonkeyPatch, error: BaseException | None = None) -> None:
    module = ModuleType(name)
    module.HELP = "A verb of the test."  # type: ignore[attr-defined]
    module.EXAMPLES = "examples:\n  keep  my   spaces\n"  # type: ignore[attr-defined]

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--code", type=int, default=0)

    def main(options: argparse.Namespace) -> int:
        if error is not None:
            raise error
        print("done")
        return int(options.code)

    module.add_arguments = add_arguments  # type: ignore[attr-defined]
    module.main = main  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, f"test_verb_{name}", module)
    monkeypatch.setitem(cli.VERBS, name, (f"test_verb_{name}", "a verb of the test"))


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"dense-perception {__version__}"
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for name in (*cli.VERBS, "examples:", "usage:"):
        assert name in out
    assert cli.main([]) == 2


def test_verb_gets_its_options_and_gives_the_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verb("probe", monkeypatch)
    assert cli.main(["probe", "--code", "1"]) == 1
    assert capsys.readouterr().out == "done\n"
    assert cli.main(["probe", "--help"]) == 0
    out = capsys.readouterr().out
    assert "A verb of the test." in out
    assert "  keep  my   spaces" in out
    assert cli.main(["probe", "--nonsense"]) == 2


def test_unknown_verb_names_the_close_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluat"]) == 2
    err = capsys.readouterr().err
    assert "'evaluat'" in err
    assert "did you mean evaluate?" in err
    assert err.count("\n") == 1


def test_errors_become_one_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verb("probe", monkeypatch, InputError("the picture is upside down: turn it"))
    assert cli.main(["probe"]) == 2
    assert capsys.readouterr().err == "dense-perception: the picture is upside down: turn it\n"
    verb("probe", monkeypatch, KeyboardInterrupt())
    assert cli.main(["probe"]) == 130
    verb("probe", monkeypatch, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        cli.main(["probe"])


def test_missing_dependency_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package, extra in (("torch", "train"), ("rclpy.node", "ros"), ("mujoco", "synthetic")):
        verb("probe", monkeypatch, ModuleNotFoundError("no", name=package))
        assert cli.main(["probe"]) == 2
        assert f"pip install 'dense_perception[{extra}]'" in capsys.readouterr().err
    verb("probe", monkeypatch, ModuleNotFoundError("no", name="a_bug"))
    with pytest.raises(ModuleNotFoundError):
        cli.main(["probe"])


def test_missing_verb_module_is_a_clean_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.VERBS, "gone", ("dense_perception.runtime.gone_command", "gone"))
    assert cli.main(["gone"]) == 2
    assert "'gone' is not part of this installation" in capsys.readouterr().err


def test_a_closed_pipe_is_no_error() -> None:
    code = "import sys, time; from dense_perception import cli\nsys.exit(cli.main(['--help']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(30) == 0


@pytest.mark.parametrize("name", ["run", "models", "evaluate", "benchmark", "compile"])
def test_help_of_every_verb_shows_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: dense-perception {name}" in out
    assert f"  dense-perception {name}" in out
