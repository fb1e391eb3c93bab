"""Laws of the strict reader: what is written reads back, and every doubt is one clear line."""

from __future__ import annotations

import math
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codi import config
from codi.config import ConfigError


@dataclass(frozen=True)
class Optimiser:
    rate: float
    betas: tuple[float, float] = (0.9, 0.999)
    name: Literal["adamw", "sgd"] = "adamw"


@dataclass(frozen=True)
class Stage:
    steps: int
    train: tuple[str, ...] = ()
    optimiser: Optimiser = field(default_factory=lambda: Optimiser(rate=1e-4))


@dataclass(frozen=True)
class Recipe:
    title: str
    stages: list[Stage]
    mixture: dict[str, float] = field(default_factory=dict)
    output: Path = Path("runs")
    ema: bool = True
    limit: int | None = None
    level: Literal["shared", 3] = "shared"
    warmup: int | str = 0
    notes: Any = ""

    def __post_init__(self) -> None:
        if any(weight < 0 for weight in self.mixture.values()):
            raise ValueError("mixture: weights cannot be negative")


def small_table(**changes: Any) -> dict[str, Any]:
    return {"title": "tiny", "stages": [{"steps": 10}], **changes}


def build_recipe(**changes: Any) -> Recipe:
    return config.build(Recipe, small_table(**changes), "recipe.toml")


# Reading


def test_values_are_read_by_their_hints_and_defaults_fill_the_rest() -> None:
    recipe = build_recipe(
        stages=[{"steps": 5, "train": ["a", "b"], "optimiser": {"rate": 1, "betas": [0, 0.5]}}],
        mixture={"text": 1},
        output="elsewhere",
        limit=3,
        level=3,
        warmup="cosine",
        notes=[1, "two"],
    )
    optimiser = Optimiser(rate=1.0, betas=(0.0, 0.5))
    assert recipe == Recipe(
        title="tiny",
        stages=[Stage(5, ("a", "b"), optimiser)],
        mixture={"text": 1.0},
        output=Path("elsewhere"),
        limit=3,
        level=3,
        warmup="cosine",
        notes=[1, "two"],
    )
    assert type(recipe.stages[0].optimiser.rate) is float


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"titel": "x"}, "recipe.toml: unknown key 'titel'; did you mean 'title'? known: title, "),
        ({"zzz": 1}, "recipe.toml: unknown key 'zzz'; known: title, stages, "),
        (
            {"stages": [{"steps": 1}, {"steps": 1, "optimiser": {"rates": 1.0}}]},
            "recipe.toml: unknown key 'stages[1].optimiser.rates'; "
            "did you mean 'stages[1].optimiser.rate'? known: rate, betas, name",
        ),
        ({"stages": [{}]}, "recipe.toml: missing key 'stages[0].steps': expected an integer"),
        ({"title": 1}, "recipe.toml: key 'title': expected a string, got 1 (int)"),
        ({"ema": 1}, "recipe.toml: key 'ema': expected true or false, got 1 (int)"),
        ({"limit": True}, "recipe.toml: key 'limit': expected an integer, got True (bool)"),
        ({"limit": 1.0}, "recipe.toml: key 'limit': expected an integer, got 1.0 (float)"),
        (
            {"mixture": {"text": "half"}},
            "recipe.toml: key 'mixture.text': expected a number, got 'half' (str)",
        ),
        ({"mixture": [1]}, "recipe.toml: key 'mixture': expected a table, got an array of 1"),
        ({"output": 3}, "recipe.toml: key 'output': expected a path (a string), got 3 (int)"),
        ({"stages": {}}, "recipe.toml: key 'stages': expected an array, got a table"),
        ({"stages": [3]}, "recipe.toml: key 'stages[0]': expected a table, got 3 (int)"),
        (
            {"stages": [{"steps": 1, "optimiser": {"rate": 1.0, "betas": [0.9]}}]},
            "recipe.toml: key 'stages[0].optimiser.betas': expected an array of 2, "
            "got an array of 1",
        ),
        (
            {"stages": [{"steps": 1, "optimiser": {"rate": 1.0, "name": "adam"}}]},
            "recipe.toml: key 'stages[0].optimiser.name': "
            "unknown value 'adam'; did you mean 'adamw'? known: adamw, sgd",
        ),
        (
            {"level": True},
            "recipe.toml: key 'level': expected one of 'shared', 3, got True (bool)",
        ),
        ({"warmup": []}, "recipe.toml: key 'warmup': expected an integer or a string "),
        ({"mixture": {"text": -1}}, "recipe.toml: mixture: weights cannot be negative"),
    ],
)
def test_a_mistake_names_the_file_the_key_and_the_mend(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build_recipe(**changes)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_missing_keys_say_what_they_expect() -> None:
    @dataclass(frozen=True)
    class Needy:
        size: tuple[int, int] | None

    with pytest.raises(ConfigError, match="x: missing key 'size': expected an array"):
        config.build(Needy, {}, "x")


def test_a_table_reads_as_the_only_dataclass_of_a_union_and_keeps_its_message() -> None:
    with pytest.raises(ConfigError, match=r"missing key 'choice\.rate': expected a number"):
        config.build(Choice, {"choice": {}}, "x")
    assert config.build(Choice, {"choice": "none"}, "x") == Choice("none")


@dataclass(frozen=True)
class Choice:
    choice: Optimiser | str


@dataclass(frozen=True)
class Square:
    shape: Literal["square"]
    side: int


@dataclass(frozen=True)
class Circle:
    shape: Literal["circle"]
    radius: int


@dataclass(frozen=True)
class Picture:
    figure: Square | Circle


def test_a_literal_field_tells_the_dataclasses_of_a_union_apart() -> None:
    table = {"figure": {"shape": "circle", "radius": 2}}
    assert config.build(Picture, table, "x") == Picture(Circle("circle", 2))
    with pytest.raises(
        ConfigError, match=r"'figure': expected a table \(.*: square \| .*: circle\)"
    ):
        config.build(Picture, {"figure": {"shape": "line"}}, "x")


@dataclass(frozen=True)
class Bare:
    anything: list
    several: tuple
    table: dict


def test_bare_containers_hold_anything() -> None:
    table = {"anything": [1, "a"], "several": [True, 2], "table": {"a": [1]}}
    assert config.build(Bare, table, "x") == Bare([1, "a"], (True, 2), {"a": [1]})


@dataclass(frozen=True)
class Unreadable:
    value: complex


@dataclass(frozen=True)
class Numbered:
    names: dict[int, str]


@pytest.mark.parametrize(
    ("cls", "table"), [(Unreadable, {"value": 1}), (Numbered, {"names": {"1": "a"}})]
)
def test_a_hint_that_toml_cannot_fill_is_a_programming_error(
    cls: type, table: dict[str, Any]
) -> None:
    with pytest.raises(TypeError):
        config.build(cls, table, "x")


def test_the_file_itself_must_be_a_table() -> None:
    with pytest.raises(ConfigError, match="x: the file: expected a table, got an array of 0"):
        config.build(Stage, [], "x")  # type: ignore[arg-type]


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    with pytest.raises(ConfigError, match=r"a\.toml: cannot be read: No such file"):
        config.load_toml(path)
    path.write_text("a = ]")
    with pytest.raises(ConfigError, match=r"a\.toml: is not valid TOML: .*line 1"):
        config.load_toml(path)
    path.write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError, match=r"a\.toml: is not valid TOML"):
        config.load_toml(path)
    path.write_text("a = 1e-4")
    assert config.load_toml(str(path)) == {"a": 1e-4}


# Overriding


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-4", 1e-4),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ("{a = 1}", {"a": 1}),
        ('"3"', "3"),
        ("a red ball", "a red ball"),
        ("a=b", "a=b"),
        ("", ""),
        ("2024-05-01", "2024-05-01"),
        ("1\nother = 2", "1\nother = 2"),
    ],
)
def test_an_override_is_toml_or_else_a_string(text: str, value: object) -> None:
    assert config.override({}, [f"a.b={text}"]) == {"a": {"b": value}}


def test_overrides_come_in_order_and_leave_the_table_as_it_was() -> None:
    table = small_table()
    changed = config.override(table, ["stages.0.steps=1", "stages.0.steps = 2", "title=other"])
    assert changed == {"title": "other", "stages": [{"steps": 2}]}
    assert table == small_table()


def test_an_override_of_an_unknown_section_is_refused_by_build() -> None:
    with pytest.raises(ConfigError, match="unknown key 'stage'; did you mean 'stages'"):
        config.build(Recipe, config.override(small_table(), ["stage.steps=1"]), "x")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("title", "expected key=value"),
        ("=3", "expected key=value"),
        ("a..b=3", "expected key=value"),
        ("title.a=3", "'title.a': 'title' is not a table"),
        ("title.a.b=3", "'title.a': 'title' is not a table"),
        ("stages.1.steps=3", "'stages.1': expected a number from 0 to 0"),
        ("stages.x=3", "'stages.x': expected a number from 0 to 0"),
        ("none.0=3", "'none.0': the array is empty"),
    ],
)
def test_an_override_that_leads_nowhere_is_refused(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^--set.*{message}"):
        config.override(small_table(none=[]), [assignment])


# Writing

keys = st.text(max_size=8)
scalars = st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
tables = st.dictionaries(keys, values, max_size=5)
optimisers = st.builds(
    Optimiser,
    rate=st.floats(allow_nan=False),
    betas=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    name=st.sampled_from(["adamw", "sgd"]),
)
stages = st.builds(
    Stage,
    steps=st.integers(),
    train=st.lists(st.text()).map(tuple),
    optimiser=optimisers,
)
recipes = st.builds(
    Recipe,
    title=st.text(),
    stages=st.lists(stages, max_size=3),
    mixture=st.dictionaries(keys, st.floats(min_value=0), max_size=3),
    output=st.text("ab/.\"\\ '", min_size=1).map(Path),
    ema=st.booleans(),
    limit=st.none() | st.integers(),
    level=st.sampled_from(["shared", 3]),
    warmup=st.integers() | st.text(),
    notes=values,
)


@given(tables)
def test_a_table_reads_back_as_it_was_written(table: dict[str, Any]) -> None:
    assert tomllib.loads(config.to_toml(table)) == table


@given(recipes)
def test_a_dataclass_reads_back_as_it_was_written(recipe: Recipe) -> None:
    text = config.to_toml(recipe)
    assert config.build(Recipe, tomllib.loads(text), "recipe.toml") == recipe


@given(tables, st.lists(st.sampled_from("abc"), min_size=1, max_size=3), scalars)
def test_an_override_sets_one_key_and_no_other(
    table: dict[str, Any], path: list[str], value: object
) -> None:
    table = {key: item for key, item in table.items() if key not in "abc"}
    (written,) = config.to_toml({"v": value}).splitlines()
    changed = config.override(table, [f"{'.'.join(path)}={written.removeprefix('v = ')}"])
    for part in path[:-1]:
        assert set(changed) - set(table) == {part}
        changed, table = changed[part], {}
    assert changed == {**table, path[-1]: value}


def test_nan_is_written_as_nan() -> None:
    assert math.isnan(tomllib.loads(config.to_toml({"a": math.nan}))["a"])


def test_a_written_file_is_laid_out_for_people() -> None:
    recipe = Recipe("tiny", [Stage(1), Stage(2, tuple("x" * 30 for _ in range(3)))], {"a b": 1.0})
    assert config.to_toml(recipe) == (
        'title = "tiny"\noutput = "runs"\nema = true\nlevel = "shared"\nwarmup = 0\nnotes = ""\n'
        '\n[mixture]\n"a b" = 1.0\n'
        "\n[[stages]]\nsteps = 1\ntrain = []\n"
        '\n[stages.optimiser]\nrate = 0.0001\nbetas = [0.9, 0.999]\nname = "adamw"\n'
        "\n[[stages]]\nsteps = 2\n"
        f'train = [\n    "{"x" * 30}",\n    "{"x" * 30}",\n    "{"x" * 30}",\n]\n'
        '\n[stages.optimiser]\nrate = 0.0001\nbetas = [0.9, 0.999]\nname = "adamw"\n'
    )


@dataclass(frozen=True)
class Limit:
    value: int | None = 3


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (Limit(None), "Limit: key 'value': expected a value that TOML can hold, got None"),
        ({"a": [None]}, r"dict: key 'a\[0\]': expected a value that TOML can hold, got None"),
        ({"a": object}, "dict: key 'a': expected a value that TOML can hold"),
        ({"a": {1: 2}}, "dict: key 1 of 'a' is not a string"),
        ([1], "list: the file: expected a dataclass or a table, got an array of 1"),
    ],
)
def test_what_toml_cannot_hold_is_refused(item: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.to_toml(item)


# Names


def test_the_nearest_name_ignores_case() -> None:
    assert config.nearest("DDIM", ["euler", "ddim"]) == "ddim"
    assert config.nearest("heum", ["Euler", "Heun"]) == "Heun"
    assert config.nearest("ddim", []) is None


def test_an_unknown_name_lists_what_is_known() -> None:
    assert config.unknown("sampler", "x", iter(["ddim"])) == "unknown sampler 'x'; known: ddim"
    assert config.unknown("sampler", "x", []) == "unknown sampler 'x'; known: none"


def test_reading_a_configuration_does_not_import_torch() -> None:
    program = "import sys, codi.config; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
