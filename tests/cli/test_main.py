"""Laws of the whole command line: light help, frozen option names, one line for every mistake."""

from __future__ import annotations

import argparse
import errno
import os
import resource
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import codi
from codi import cli
from codi.cli import build_parser, commands, main
from codi.config import ConfigError
from codi.diffusion import SAMPLERS, SPACINGS

ROOT = Path(__file__).parents[2]

OPTIONS = {
    "generate": "--audio --batch --compile --compute-dtype --device --dtype --eta --guidance "
    "--guidance-interval --image --json --keep --model --negative-audio --negative-image "
    "--negative-text --negative-video --num --offload --out --quiet --reuse --sampler --seed "
    "--spacing --steps --text --to --unconditional --video --weights",
    "train": "--bf16 --cache --checkpoint-every --data --device --dry-run --estimate --graphs "
    "--no-bf16 --no-graphs --only --out --quiet --sample-every --set --threads --workers",
    "evaluate": "--batch --data --device --eta --extractors --guidance --guidance-interval --model "
    "--num --out --quiet --results --reuse --sampler --samples --seed --spacing --splits --steps "
    "--suite --tasks",
    "ablate": "--bf16 --cache --checkpoint-every --data --device --graphs --no-bf16 --no-graphs "
    "--only --out --quiet --results --runs --sample-every --samples --threads --workers",
    "data bounce": "--count --out --quiet --seed --shards --sheet --split",
    "data judges": "--data --out --quiet",
    "data tokenizer": "--clips --data --extend --out --quiet --shards --vocabulary",
    "bench generate": "--device --json --model --no-cold --repeat --steps",
    "bench flops": "--device --model",
    "bench train": "--bf16 --data --device --json",
    "bench unet": "--against --batch --compile --device --dtype --frames --json --plain "
    "--prepared --preset --repeat --size --stream --tokens",
    "bench memory": "--compute-dtype --dtype --folder --offload --preset --quiet --set --steps "
    "--to",
    "bench growth": "--bf16 --data --device --estimate --order --plot --results",
    "bench sampling": "--batch --device --intervals --model --out --quiet --reference --reuse "
    "--samplers --samples --spacings --steps --tasks",
    "presets": "--describe",
    "convert": "--dry-run --dtype --force --model --quiet --to --verbose",
    "export": "--as --list --quiet --to --verbose",
    "verify": "--json --quiet --tokenizers",
}
"""Options people rely on: adding one is a line here, taking one away breaks somebody's script."""


def subcommands(
    parser: argparse.ArgumentParser, name: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    below = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    if not below:
        yield name, parser
    for choices in below:
        for word, child in choices.items():
            yield from subcommands(child, f"{name} {word}".strip())


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    environment.pop("OMP_WAIT_POLICY", None)
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env=environment
    )


def test_option_names_are_frozen() -> None:
    found = {
        name: " ".join(
            sorted(o for o in parser._option_string_actions if o not in ("-h", "--help"))
        )
        for name, parser in subcommands(build_parser())
    }
    assert found == OPTIONS


def test_every_command_explains_itself_with_an_example() -> None:
    for name in commands():
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0
    for name, parser in subcommands(build_parser()):
        assert parser.description, name
        top = name.split(maxsplit=1)[0]
        assert f"codi {top}" in parser.format_help(), name


@pytest.mark.parametrize("words", [["--help"], ["generate", "--help"], ["--version"]])
def test_help_imports_no_heavy_library(words: list[str]) -> None:
    script = (
        "import sys\n"
        "from codi.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'rich', 'av', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = python("-c", script, *words)
    assert done.returncode == 0, done.stderr


def test_help_is_quick() -> None:
    def spent_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    # Processor time, so that a busy machine does not turn the law into a guess.
    before_s = spent_s()
    assert python("-m", "codi", "--help").returncode == 0
    assert spent_s() - before_s <= 0.5


def test_importing_codi_makes_threads_sleep_soon_and_imports_no_torch() -> None:
    script = (
        "import codi, os, sys\n"
        "assert os.environ['OMP_WAIT_POLICY'] == 'passive'\n"
        "assert os.environ['GOMP_SPINCOUNT'] == '1000'\n"
        "assert 'torch' not in sys.modules\n"
        "codi.register, codi.Modality\n"
        "assert 'torch' not in sys.modules\n"
        "codi.load, codi.Pipeline, codi.Condition\n"
        "assert 'torch' in sys.modules\n"
    )
    done = python("-c", script)
    assert done.returncode == 0, done.stderr


def test_a_user_says_how_threads_wait() -> None:
    script = (
        "import os\n"
        "os.environ['OMP_WAIT_POLICY'] = 'active'\n"
        "import codi\n"
        "assert 'GOMP_SPINCOUNT' not in os.environ\n"
    )
    done = python("-c", script)
    assert done.returncode == 0, done.stderr


def test_public_names_are_listed_and_unknown_ones_refused() -> None:
    assert set(codi.__all__) <= set(dir(codi))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = codi.nothing


def test_version_is_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert codi.__version__ == project.get("version", codi.__version__)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"codi {codi.__version__}\n"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["genrate"], ["unknown command 'genrate'", "did you mean 'generate'"]),
        (["generate", "--txt", "a"], ["unknown option --txt", "did you mean --text"]),
        (["generate", "--tex", "a"], ["unknown option --tex", "codi generate --help"]),
        (
            ["generate", "a red ball", "--to", "image"],
            ["'a red ball' belongs to no option; did you mean --text \"a red ball\"?"],
        ),
        (["generate", "--text", "a", "red", "ball"], ['did you mean --text "a red ball"?']),
        (["generate", "a", "$5", "ball"], ["did you mean --text 'a $5 ball'?"]),
        (["generate", __file__], [f"'{__file__}' belongs to no option; see"]),
        (["presets", "tiny"], ["'tiny' belongs to no option; see codi presets --help"]),
        (["generate", "--num", "0"], ["--num", "'0' is not a whole number from 1 up"]),
        (["generate", "--text"], ["--text", "expected one argument"]),
        (["bench"], ["KIND", "codi bench --help"]),
        (["data", "bounce"], ["--sheet FILE.png", "--out DIR"]),
        (["data", "bounce", "--out", "x", "--split", "train"], ["did you mean 'trained'"]),
        (["train", "recipe-tiny-cpu"], ["--out DIR", "--dry-run"]),
        (["train", "recipe-tiny-cp", "--dry-run"], ["did you mean 'recipe-tiny-cpu'"]),
        (["train", "recipe-tiny-cpu", "--dry-run", "--device", "tpu9"], ["device 'tpu9'"]),
        (["presets", "--describe", "tinny"], ["unknown model 'tinny'", "did you mean 'tiny'"]),
    ],
)
def test_a_mistake_is_one_line_with_the_mend(
    words: list[str], parts: list[str], capsys: pytest.CaptureFixture[str], tmp_cwd: Path
) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("codi: error: ")
    assert printed.err.count("\n") == 1
    for part in parts:
        assert part in printed.err
    assert not list(tmp_cwd.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("could not create a primitive"),
        SystemError("error return without exception set"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("told", [False, True])
def test_too_little_memory_is_one_line(
    error: Exception,
    told: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_words: list[str]) -> int:
        if told:  # by what takes it for a damaged file
            raise ConfigError("weights.safetensors: damaged or unreadable") from error
        raise error

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("codi: error: out of memory; work on fewer samples")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("could not create a primitive descriptor for a convolution"),
        ImportError("No module named 'x'"),
    ],
    ids=repr,
)
def test_a_bug_shows_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_words: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_dispatch", fail)
    with pytest.raises(type(error)):
        main([])


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize(
    "words", ["--help", "presets", "generate --unconditional --to text --json"]
)
def test_a_reader_that_has_read_enough_is_no_error(
    words: str, buffered: bool, tmp_path: Path
) -> None:
    words += f" --quiet --steps 1 --out {tmp_path}" if "generate" in words else ""
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    reading, writing = os.pipe()
    os.close(reading)
    try:
        found = subprocess.run(
            [sys.executable, "-m", "codi", *words.split()],
            stdout=writing,
            stderr=subprocess.PIPE,
            env=variables | ({} if buffered else {"PYTHONUNBUFFERED": "1"}),
            text=True,
            check=False,
        )
    finally:
        os.close(writing)
    assert (found.returncode, found.stderr) == (0, "")


def test_a_pipe_that_breaks_elsewhere_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_words: list[str]) -> int:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr(cli, "_dispatch", fail)
    with pytest.raises(BrokenPipeError):
        main([])


def test_an_interrupt_is_heard_from_the_first_import_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Until `main` is entered, Ctrl-C is a traceback: the modules of commands are imported in it.
    script = (
        "import sys\n"
        "from codi.cli import main\n"
        "early = [n for n in sys.modules if n == 'argparse' or n.startswith('codi.')]\n"
        "assert early == ['codi.cli'], early\n"
    )
    done = python("-c", script)
    assert done.returncode == 0, done.stderr

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "commands", interrupted)
    assert main(["generate", "--help"]) == 130
    assert capsys.readouterr().err == "codi: stopped\n"


def test_help_lists_all_samplers_and_spacings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert f"of the steps: {', '.join(SPACINGS)} " in printed
    assert set(SAMPLERS) <= set(printed.replace(",", " ").split())


def test_no_command_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "codi generate --text" in capsys.readouterr().err
