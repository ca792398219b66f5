"""The dispatcher: verbs, errors, exit codes."""

from __future__ import annotations

import argparse
import errno
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from dense_perception import __version__, cli
from dense_perception.commands import verbs
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
    monkeypatch.setitem(verbs.VERBS, name, verbs.Verb("a verb of the test", f"test_verb_{name}"))


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"dense-perception {__version__}"
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for name in (*verbs.VERBS, "examples:", "usage:"):
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


def test_a_full_disk_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verb("probe", monkeypatch, OSError(errno.ENOSPC, "No space left on device", "out/a.png"))
    assert cli.main(["probe"]) == 2
    said = capsys.readouterr().err
    assert "the disk is full at out/a.png" in said
    assert said.count("\n") == 1


def test_a_path_that_the_system_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    verb("probe", monkeypatch, PermissionError(errno.EACCES, "Permission denied", "/root/x"))
    assert cli.main(["probe"]) == 2
    said = capsys.readouterr().err
    assert "cannot use /root/x (Permission denied): check the path" in said
    assert said.count("\n") == 1
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for words in (["extract", str(loop), "--out", "c"], ["extract", "bag", "--out", str(loop)]):
        assert cli.main(words) == 2
        assert capsys.readouterr().err.count("\n") == 1


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
    gone = verbs.Verb("gone", "dense_perception.commands.gone_command")
    monkeypatch.setitem(verbs.VERBS, "gone", gone)
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


def test_the_overview_has_a_heading_for_each_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for heading, names in {
        "use": ["run", "demo", "replay"],
        "models": ["models", "get", "fetch", "export", "import", "compile"],
        "data and training": ["data", "extract", "train"],
        "measuring": ["evaluate", "benchmark"],
    }.items():
        block = out.partition(f"\n{heading}:\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in block.splitlines() if line[2] != " "] == names
    assert len(verbs.VERBS) <= 14


@pytest.mark.parametrize(
    ("earlier", "today"),
    [
        ("stream-benchmark --seconds 3", "'stream-benchmark' is now 'benchmark stream'"),
        ("cameras-benchmark", "'cameras-benchmark' is now 'benchmark cameras'"),
        ("nav2-benchmark", "'nav2-benchmark' is now 'benchmark nav2'"),
        ("outputs-benchmark", "'outputs-benchmark' is now 'benchmark outputs'"),
        ("parity dpt_tiny_indoor", "'parity' is now 'benchmark parity'"),
        ("scale-accuracy rooms", "'scale-accuracy' is now 'benchmark scale'"),
        ("plan", "'plan' is now 'benchmark plan'"),
        ("soup a b", "'soup' is now 'train soup'"),
        ("synthesize rooms", "'synthesize' is now 'data synthesize'"),
        (
            "benchmark dpt_tiny_indoor --runs 3",
            "'benchmark dpt_tiny_indoor' is now 'benchmark model dpt_tiny_indoor'",
        ),
    ],
)
def test_an_earlier_spelling_answers_with_todays(
    earlier: str, today: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(earlier.split()) == 2
    captured = capsys.readouterr()
    assert captured.err == f"dense-perception: {today}\n"
    assert captured.out == ""


def test_a_kind_is_looked_for_below_its_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["benchmark", "--help"]) == 0
    out = capsys.readouterr().out
    assert "usage: dense-perception benchmark {model,stream," in out
    assert cli.main(["benchmark"]) == 2
    assert "usage: dense-perception benchmark {model," in capsys.readouterr().err
    assert cli.main(["benchmark", "steam"]) == 2
    assert "no command 'benchmark steam', did you mean stream?" in capsys.readouterr().err
    assert cli.main(["data", "make"]) == 2
    assert "no command 'data make'" in capsys.readouterr().err
    # train takes a configuration where the word is none of its kinds.
    assert verbs.resolve(["train", "tiny.yaml", "--data", "x"])[0] == "train"
    assert verbs.resolve(["train", "soup", "a"])[::2] == ("train soup", ["a"])


def spellings() -> list[str]:
    """Every command line that has options of its own: ``train``, ``train soup``, ..."""
    names = []
    for name, verb in verbs.VERBS.items():
        names += [name, *(f"{name} {kind}" for kind in verb.kinds)]
    return names


@pytest.mark.parametrize("name", spellings())
def test_help_of_every_verb_shows_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*name.split(), "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: dense-perception {name}" in out
    assert f"  dense-perception {name}" in out.partition("examples:")[2]


def test_help_of_every_verb_is_had_without_the_heavy_packages() -> None:
    """A fresh process in which PyTorch, rclpy and the runtimes refuse to be imported."""
    program = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "rclpy", "onnxruntime", "openvino", "mujoco", "cv2"):
            raise AssertionError(f"--help imports {{name}}")
sys.meta_path.insert(0, Refuse())
from dense_perception import cli
for words in {spellings()!r}:
    assert cli.main([*words.split(), "--help"]) == 0, words
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("usage: dense-perception") == len(spellings())
