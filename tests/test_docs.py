"""The documentation: its links lead somewhere, its commands exist, its examples run."""

from __future__ import annotations

import io
import re
import shlex
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from codi import media, weights
from codi.build import KINDS, load_config
from codi.cli import build_parser, main
from codi.cli.plugins import split_plugins
from codi.data.source import ShardsConfig
from codi.training.recipe import TASKS, load_recipe
from codi.weights import save_model
from tests.small import awake_model

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
GUIDES = [ROOT / "README.md", DOCS / "tutorial.md", *sorted((DOCS / "howto").glob("*.md"))]


def blocks(page: Path, language: str = "") -> list[str]:
    """Return the fenced blocks of a page in one language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [text for name, text in found if name == language]


def commands(page: Path) -> list[list[str]]:
    """Return the words of every `codi` command in a page's blocks."""
    lines = "\n".join(blocks(page)).replace("\\\n", " ").splitlines()
    pieces = [piece.strip() for line in lines for piece in line.split("&&")]
    return [shlex.split(p, comments=True)[1:] for p in pieces if p.startswith("codi ")]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(
        r"\]\(([^)#]+)[^)]*\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    )
    for link in links:
        if not link.startswith(("http", "NNNN")):
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_commands_exist(page: Path) -> None:
    for words in commands(page):
        _, own = split_plugins(words)
        # What a plugin brings (`--depth`) is known only with it: tests/test_example_modality.py.
        build_parser().parse_args([w.replace("--depth", "--image") for w in own])


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_recipes_and_stages_that_are_named_exist(page: Path) -> None:
    for words in commands(page):
        if words[0] == "train" and words[1].startswith("recipe-"):
            recipe = load_recipe(words[1])
            only = words[words.index("--only") + 1 :] if "--only" in words else []
            stages = [word for word in only[: _options(only)] if word]
            assert set(stages) <= {stage.name for stage in recipe.stage}


def _options(words: list[str]) -> int:
    """Return how many words come before the next option."""
    return next((i for i, word in enumerate(words) if word.startswith("--")), len(words))


def test_every_kind_of_part_and_every_task_is_listed() -> None:
    parts = (DOCS / "howto" / "add-a-modality.md").read_text()
    assert [kind for kind in KINDS if f"`{kind}`" not in parts] == []
    tasks = (DOCS / "howto" / "train-on-your-data.md").read_text()
    assert [task for task in TASKS if f"| `{task}` |" not in tasks] == []


def test_the_tree_in_the_architecture_is_the_tree() -> None:
    [tree] = [block for block in blocks(DOCS / "architecture.md") if block.startswith("src/codi/")]
    named = set(re.findall(r"[\w/]+(?:\.py\b|/)", tree)) - {"src/codi/"}
    package = ROOT / "src" / "codi"
    existing = {path.name for path in package.rglob("*.py")}
    assert {n for n in named if n.endswith(".py")} <= existing
    folders = {n for n in named if n.endswith("/")}
    assert all((package / n).is_dir() or (ROOT / n).is_dir() for n in folders)
    top = {f"{p.name}/" if p.is_dir() else p.name for p in package.iterdir()}
    top -= {"__pycache__/", "__main__.py", "py.typed", "weights/", "worlds/"}
    assert top <= named


# Running what the pages say -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of models with one called `tiny`, small and untrained."""
    folder = tmp_path_factory.mktemp("shipped")
    save_model(awake_model(), folder / "tiny")
    return folder


@pytest.fixture
def desk(shipped: Path, tmp_cwd: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder that has the files the pages speak of."""
    monkeypatch.setattr(weights, "SHIPPED", shipped)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    Image.fromarray(frames[0]).save("ball.png")
    media.Video(frames, 8.0).save("silent.mp4")
    return tmp_cwd


def test_the_tutorial_makes_what_it_says(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = [words for words in commands(DOCS / "tutorial.md") if words[0] in ("generate", "data")]
    for words in done:
        if "runs/tiny/model" not in words:
            assert main(words) == 0, capsys.readouterr().err
    files = {path.name for path in (desk / "first").iterdir()}
    assert files == {"000-image.png", "000-video.mp4", "000-audio.wav", "000-text.txt"} | {
        "manifest.json"
    }
    assert media.has_audio(desk / "first" / "000-video.mp4")
    assert media.has_audio(desk / "soundtrack" / "000-video.mp4")
    assert (desk / "soundtrack" / "000-audio.wav").is_file()
    for block in blocks(DOCS / "tutorial.md", "python"):
        exec(compile(block, "tutorial.md", "exec"), {})


def test_the_python_api_page_runs(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in blocks(DOCS / "howto" / "python-api.md", "python"):
        exec(compile(block, "python-api.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "did you mean 'image'" in printed
    assert all(
        (desk / file).is_file() for file in ("star.png", "star.wav", "ball.mp4", "walk-2.png")
    )


def test_packed_clips_are_training_data(desk: Path) -> None:
    page = DOCS / "howto" / "train-on-your-data.md"
    assert main(["data", "bounce", "--out", "clips", "--count", "3", "--quiet"]) == 0
    [pack] = blocks(page, "python")
    exec(compile(pack, page.name, "exec"), {})
    [recipe] = blocks(page, "toml")
    Path("mine.toml").write_text(recipe)
    read = load_recipe("mine.toml")
    source = read.sources()["mine"].build(load_config("tiny"), desk)
    assert len(source) == 3
    arrays, record = source.read(2)
    assert {name: array.shape for name, array in arrays.items()} == {
        "video": (16, 64, 64, 3),
        "audio": (32_000,),
    }
    assert record["captions"] == [Path("clips/002-text.txt").read_text().strip()]


def test_the_record_says_what_each_modality_shows(tmp_path: Path) -> None:
    [record] = blocks(DOCS / "howto" / "train-on-your-data.md", "json")
    with tarfile.open(tmp_path / "mine.tar", "w") as shard:
        member = tarfile.TarInfo("dog.json")
        member.size = len(record.encode())
        shard.addfile(member, io.BytesIO(record.encode()))
    source = ShardsConfig(("mine.tar",)).build(load_config("tiny"), tmp_path)
    assert source is not None
    kept = source.read(0)[1]
    said = {
        name: {source.caption(kept, name, np.random.default_rng(i)).text for i in range(30)}
        for name in ("image", "audio", "video")
    }
    assert said["image"] == {"a dog in the snow"}
    assert said["audio"] == {"barking"}
    assert said["video"] == {"a dog barks in the snow", "a dog", "barking"}


def test_fragments_are_python() -> None:
    for block in blocks(DOCS / "howto" / "add-a-modality.md", "python"):
        compile(block, "add-a-modality.md", "exec")
