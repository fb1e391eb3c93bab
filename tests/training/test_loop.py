"""The training loop: what is trained, how fast, and how a run is stopped and goes on."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from codi.config import ConfigError
from codi.tokenizer import train_tokenizer
from codi.training.loop import (
    Run,
    RunSettings,
    fingerprint,
    learning_rate,
)
from codi.training.parameters import fresh_model, select_parameters
from codi.training.recipe import Objective, Recipe
from codi.weights import load_model, save_model
from tests.small import PRESET, small_config
from tests.training.conftest import recipe, reconstruct, stage

DENOISE = Objective("denoise", {"bounce": 1.0}, {"modality": "audio", "captions": ["audio"]})


def _run(recipe_: Recipe, out: Path, cache: Path, **hooks: Any) -> Run:
    settings = {"log_every": 1, "checkpoint_every": 1000, "sample_every": 0}
    settings |= {key: hooks.pop(key) for key in list(hooks) if key in RunSettings.__annotations__}
    return Run(recipe_, RunSettings(out, cache, **settings), **hooks)  # type: ignore[arg-type]


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.rglob("*.safetensors"))
    assert files
    return {
        f"{file.relative_to(folder)}/{k}": v for file in files for k, v in load_file(file).items()
    }


def _same(one: Path, other: Path) -> bool:
    first, second = _weights(one), _weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


# --- what is trained ---


def _module() -> nn.Module:
    return nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.ModuleDict({"c": nn.Linear(2, 2)})})


@pytest.mark.parametrize(
    ("globs", "chosen"),
    [
        (["a.*"], {"a.weight", "a.bias"}),
        (["*"], {"a.weight", "a.bias", "b.c.weight", "b.c.bias"}),
        (["*.bias"], {"a.bias", "b.c.bias"}),
        (["*", "!b.*"], {"a.weight", "a.bias"}),
        (["*", "!*.bias", "a.bias"], {"a.weight", "a.bias", "b.c.weight"}),
    ],
)
def test_globs_choose_and_the_rest_is_frozen(globs: list[str], chosen: set[str]) -> None:
    module = _module()
    assert set(select_parameters(module, globs, "test")) == chosen
    assert {name for name, p in module.named_parameters() if p.requires_grad} == chosen


@pytest.mark.parametrize("glob", ["d.*", "!d.*"])
def test_a_glob_without_a_match_is_an_error(glob: str) -> None:
    with pytest.raises(ConfigError, match=r"stage 'first': no parameter matches 'd.\*'; .*a\.bias"):
        select_parameters(_module(), ["*", glob], "first")


def test_a_part_is_initialised_from_its_own_name() -> None:
    config = small_config()
    alone = fresh_model(config, ["encoders.image"], seed=0)
    among = fresh_model(config, ["codecs.text", "encoders.video", "encoders.image"], seed=0)
    assert fingerprint(alone.encoder("image")) == fingerprint(among.encoder("image"))
    assert fingerprint(among.encoder("image")) != fingerprint(among.encoder("video"))
    other = fresh_model(config, ["encoders.image"], seed=1)
    assert fingerprint(other.encoder("image")) != fingerprint(alone.encoder("image"))


# --- how fast ---


def test_the_rate_warms_up_and_decays() -> None:
    first = stage(steps=110, warmup=10, learning_rate=1.0)
    rates = [learning_rate(first, step) for step in range(110)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[60] == pytest.approx(0.55)  # half-way between 1 and a tenth
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


def test_the_rate_may_stay() -> None:
    constant = stage(steps=50, warmup=0, decay="constant", learning_rate=0.5)
    assert {learning_rate(constant, step) for step in range(50)} == {0.5}


# --- stages ---


def test_a_stage_leaves_its_parts_and_is_done_once(tmp_path: Path, cache: Path) -> None:
    said: list[str] = []
    _run(recipe(), tmp_path, cache, say=said.append).run()
    first = _weights(tmp_path / "model")
    assert set(load_model(tmp_path / "model", ["codecs.image"]).role("codecs")) == {"image"}
    _run(recipe(), tmp_path, cache, say=said.append).run()
    assert said[-1] == "codec: done already"
    again = _weights(tmp_path / "model")
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_only_the_stages_named_are_done(tmp_path: Path, cache: Path) -> None:
    both = recipe(stage("one", steps=1), stage("two", reconstruct("text"), steps=1))
    run = _run(both, tmp_path, cache)
    run.run(only=["two"])
    assert [run.done(s) for s in both.stage] == [False, True]
    with pytest.raises(ConfigError, match="unknown stage 'tow'; did you mean 'two'"):
        run.run(only=["tow"])


def test_the_same_seed_trains_the_same_weights(tmp_path: Path, cache: Path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        _run(recipe(stage(steps=2), seed=seed), tmp_path / name, cache).run()
    assert _same(tmp_path / "one" / "model", tmp_path / "same" / "model")
    assert not _same(tmp_path / "one" / "model", tmp_path / "other" / "model")


def test_a_part_may_start_from_another(tmp_path: Path, cache: Path) -> None:
    def align(name: str) -> Objective:
        return Objective("align", {"bounce": 1.0}, {"modality": name})

    still = {"steps": 1, "learning_rate": 1e-6, "ema": 0.0}
    copied = recipe(
        stage("image", align("image"), **still),
        stage("video", align("video"), starts_from={"encoders.video": "encoders.image"}, **still),
    )
    _run(copied, tmp_path, cache).run()
    model = load_model(tmp_path / "model", ["encoders.image", "encoders.video"])
    for one, other in zip(
        model.encoder("image").parameters(), model.encoder("video").parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_a_part_cannot_start_from_what_is_not_trained(tmp_path: Path, cache: Path) -> None:
    early = stage(
        "video",
        Objective("align", {"bounce": 1.0}, {"modality": "video"}),
        starts_from={"encoders.video": "encoders.image"},
    )
    with pytest.raises(ConfigError, match=r"encoders.image, which has no weights in .*; train it"):
        _run(recipe(early), tmp_path, cache).run()


def test_a_run_may_start_from_a_trained_model(tmp_path: Path, cache: Path) -> None:
    everything = fresh_model(small_config(), small_config().parts(), seed=9)
    save_model(everything, tmp_path / "given")
    further = recipe(stage(steps=1), starts_from=str(tmp_path / "given"))
    _run(further, tmp_path / "run", cache).run()
    found = load_model(tmp_path / "run" / "model")
    assert fingerprint(found.encoder("text")) == fingerprint(everything.encoder("text"))
    assert fingerprint(found.codec("image")) != fingerprint(everything.codec("image"))


def test_what_is_fresh_is_learnt_again(tmp_path: Path, cache: Path) -> None:
    given = fresh_model(small_config(), small_config().parts(), seed=9)
    save_model(given, tmp_path / "given")
    globs = ("diffusers.audio.*environment_attention*", "environments.*")
    still = stage(steps=1, train=("codecs.image.*",))
    again = recipe(still, starts_from=str(tmp_path / "given"), fresh=globs, seed=4)
    _run(again, tmp_path / "run", cache).run()
    found = load_model(tmp_path / "run" / "model").state_dict()
    begun = fresh_model(small_config(), small_config().parts(), seed=4).state_dict()
    before = given.state_dict()
    for name in before:
        if not name.startswith("codecs.image"):
            anew = name.startswith("environments") or (
                name.startswith("diffusers.audio") and "environment_attention" in name
            )
            assert torch.equal(found[name], (begun if anew else before)[name]), name
    wrong = dataclasses.replace(again, fresh=("diffusers.smell.*",))
    with pytest.raises(ConfigError, match=r"fresh: no parameter matches 'diffusers\.smell\.\*'"):
        _run(wrong, tmp_path / "wrong", cache).run()
    with pytest.raises(ConfigError, match="without starts_from everything is fresh"):
        recipe(still, fresh=globs).check()


def test_a_model_takes_its_own_tokenizer_along(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine.json"
    train_tokenizer(["a red ball bounces", "a blue cube"] * 3, 300).library.save(str(mine))
    overrides = [f"{part}.{key}={value}" for part in ("codecs.text", "encoders.text")
                 for key, value in (("tokenizer", f'"{mine}"'), ("vocabulary", 300))]  # fmt: skip
    changed = recipe(stage("text", reconstruct("text"), steps=1), overrides=tuple(overrides))
    _run(changed, tmp_path / "first", cache).run()
    further = dataclasses.replace(changed, starts_from=str(tmp_path / "first" / "model"))
    monkeypatch.setattr(Run, "_train", lambda *_: None)
    _run(further, tmp_path / "second", cache).run()
    mine.unlink()
    (tmp_path / "first" / "model").rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    for folder in (tmp_path / "moved", tmp_path / "second" / "model"):
        assert str(tmp_path) not in (folder / "config.toml").read_text()
        codec = load_model(folder, ["codecs.text"]).codec("text")
        assert codec.encode(["a red ball"]).shape == (1, *small_config().modality("text").latent)
        assert (folder / "text" / "codec-tokenizer.json").is_file()


def test_a_stage_that_was_trained_with_other_settings_is_told(tmp_path: Path, cache: Path) -> None:
    said: list[str] = []
    _run(recipe(stage(steps=2)), tmp_path, cache).run()
    _run(recipe(stage(steps=2)), tmp_path, cache, say=said.append).run()
    other = recipe(stage(steps=3, learning_rate=0.5))
    _run(other, tmp_path, cache, say=said.append).run()
    assert said == [
        "codec: done already",
        "codec: done already, with steps = 2 (now 3), learning_rate = 0.001 (now 0.5); remove "
        f"{tmp_path / 'stages/codec'} to train it again",
    ]


def test_a_checkpoint_of_other_settings_is_told(tmp_path: Path, cache: Path) -> None:
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        _run(recipe(), tmp_path, cache, report=_stop_at(2, _raise)).run()
    _run(recipe(stage(batch=1)), tmp_path, cache, say=said.append).run()
    assert said[0] == "codec: goes on from a checkpoint with batch = 2 (now 1)"


@pytest.mark.parametrize("name", ["text", "image"])  # without matrices for Muon, and with
def test_another_optimiser_begins_anew(name: str, tmp_path: Path, cache: Path) -> None:
    def one(optimiser: str) -> Recipe:
        return recipe(stage("codec", reconstruct(name), optimiser=optimiser))

    for optimiser in ("muon", "adamw", "muon"):
        said: list[str] = []
        stop = _stop_at(1, _raise)
        with pytest.raises(KeyboardInterrupt):
            _run(one(optimiser), tmp_path, cache, say=said.append, report=stop).run()
    assert said[1] == "codec: its optimiser begins anew"
    _run(one("muon"), tmp_path, cache, say=said.append).run()
    assert said.count("codec: its optimiser begins anew") == 1


@pytest.mark.parametrize(("length", "told"), [(6, True), (32, False)])
def test_captions_that_are_not_read_to_the_end_are_told(
    length: int, told: bool, tmp_path: Path, cache: Path
) -> None:
    lines: list[str] = []
    short = (f"codecs.text.length={length}",)
    written = recipe(stage("text", reconstruct("text"), steps=1), overrides=short)
    _run(written, tmp_path, cache, say=lines.append).run()
    cut = [line for line in lines if "codecs.text does not read" in line]
    assert bool(cut) == told
    assert all("of what is written about 'bounce' to the end" in line for line in cut)


def test_a_longer_vocabulary_begins_with_the_rows_that_are_there(
    tmp_path: Path, cache: Path
) -> None:
    given = fresh_model(small_config(), small_config().parts(), seed=9)
    save_model(given, tmp_path / "given")
    words = small_config().encoders["text"]["vocabulary"]
    longer = (f"encoders.text.vocabulary={words + 8}",)
    still = stage(steps=1, train=("codecs.image.*",))
    further = recipe(still, starts_from=str(tmp_path / "given"), overrides=longer, seed=4)
    _run(further, tmp_path / "run", cache).run()
    found = load_model(tmp_path / "run" / "model").encoder("text").state_dict()
    name = next(name for name, value in found.items() if len(value) == words + 8)
    for key, value in given.encoder("text").state_dict().items():
        assert torch.equal(found[key][:words] if key == name else found[key], value), key
    assert (found[name][words:].std(dim=1) > 0).all()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("encoders.text.vocabulary=300", r"embedding.weight is \(512, .*only rows can be added"),
        ("encoders.text.width=48", "only rows can be added"),
        ("encoders.text.layers=3", "differ in encoders.text.*give it the model of those weights"),
    ],
)
def test_other_shapes_than_those_of_the_weights_are_refused(
    override: str, message: str, tmp_path: Path, cache: Path
) -> None:
    save_model(fresh_model(small_config(), ["encoders.text"], seed=9), tmp_path / "given")
    further = recipe(stage(steps=1), starts_from=str(tmp_path / "given"), overrides=(override,))
    with pytest.raises(ConfigError, match=message):
        _run(further, tmp_path / "run", cache).run()


def test_a_decoder_trained_alone_leaves_latents_what_they_were(tmp_path: Path, cache: Path) -> None:
    given = fresh_model(small_config(), small_config().parts(), seed=9)
    save_model(given, tmp_path / "given")
    for kept in (False, True):
        objective = Objective(
            "reconstruct", {"bounce": 1.0}, {"modality": "image", "calibrate": not kept}
        )
        alone = stage("decoder", objective, steps=1, train=("codecs.image.decoder.*",))
        folder = tmp_path / f"run-{kept}"
        _run(recipe(alone, starts_from=str(tmp_path / "given")), folder, cache).run()
        codec = load_model(folder / "model").codec("image").state_dict()
        was = given.codec("image").state_dict()
        same = {name for name in was if torch.equal(codec[name], was[name])}
        assert {"scale", "shift"} <= same if kept else not {"scale", "shift"} & same
        assert any(name.startswith("decoder") for name in was.keys() - same)


def test_two_stages_may_run_at_once_in_one_folder(tmp_path: Path, cache: Path) -> None:
    def align(name: str) -> Objective:
        return Objective("align", {"bounce": 1.0}, {"modality": name})

    both = recipe(
        stage("text", align("image"), steps=1, train=("encoders.text.*",)),
        stage("audio", align("audio"), steps=2),  # uses the text encoder, frozen
    )
    _run(both, tmp_path, cache).run(["text"])
    (tmp_path / "stages" / "text" / "done.json").unlink()

    def beside() -> None:
        _run(both, tmp_path, cache).run(["text"])
        found.append(fingerprint(load_model(tmp_path / "model", ["encoders.text"])))

    found: list[str] = []
    _run(both, tmp_path, cache, report=_stop_at(0, beside)).run(["audio"])
    model = load_model(tmp_path / "model", ["encoders.text", "encoders.audio"])
    assert fingerprint(load_model(tmp_path / "model", ["encoders.text"])) == found[0]
    first = fresh_model(small_config(), ["encoders.audio"], seed=0)
    assert fingerprint(model.encoder("audio")) != fingerprint(first.encoder("audio"))


def test_a_stage_is_not_done_twice_at_once(tmp_path: Path, cache: Path) -> None:
    def beside() -> None:
        with pytest.raises(ConfigError, match="codec: another process is at work on it"):
            _run(recipe(), tmp_path, cache).run()

    _run(recipe(), tmp_path, cache, report=_stop_at(2, beside)).run()


def test_a_step_may_be_the_mean_of_several_batches(tmp_path: Path, cache: Path) -> None:
    seen: list[int] = []

    class Counted(Run):
        def _autocast(self) -> torch.autocast:
            seen.append(1)
            return super()._autocast()

    Counted(recipe(stage(steps=2, accumulate=3)), RunSettings(tmp_path, cache)).run()
    assert len(seen) == 2 * (3 + 1)  # the optimiser computes under it too


def test_objectives_take_turns_by_share(tmp_path: Path, cache: Path) -> None:
    seen: list[dict[str, float]] = []
    two = stage(
        "both",
        reconstruct("text", share=0.75, batch=3),
        Objective("align", {"bounce": 1.0}, {"modality": "audio"}, share=0.25),
        steps=40,
        batch=2,
        train=("codecs.text.*", "encoders.audio.*", "log_scale"),
    )
    _run(recipe(two), tmp_path, cache, report=seen.append).run()
    turns = ["loss/contrastive" in values for values in seen]
    assert len(turns) == 40
    assert 4 <= sum(turns) <= 16


def test_bfloat16_trains_in_full_precision(tmp_path: Path, cache: Path) -> None:
    _run(recipe(stage(steps=2)), tmp_path, cache, bfloat16=True).run()
    weights = _weights(tmp_path / "model")
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_latents_are_cached_with_the_trained_codec(tmp_path: Path, cache: Path) -> None:
    codec = reconstruct("audio")
    steps = {"steps": 1, "train": ("codecs.audio.autoencoder.*",)}
    run = _run(
        recipe(stage("codec", codec, **steps), stage("ldm", DENOISE, steps=2)), tmp_path, cache
    )
    run.run()
    mark = fingerprint(load_model(tmp_path / "model", ["codecs.audio"]).codec("audio"))
    store = run.store("bounce")
    assert store is not None
    assert store.latents("audio", mark) is not None


def test_what_is_to_be_cached_has_to_be_trained_before(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ConfigError, match=r"codec.safetensors: no such file; .*'codecs.audio'"):
        _run(recipe(stage("ldm", DENOISE)), tmp_path, cache).run()


def test_numbers_are_logged_by_part(tmp_path: Path, cache: Path) -> None:
    logged: list[tuple[Path, int, set[str]]] = []

    class Logged:
        def __init__(self, folder: Path) -> None:
            self.folder = folder

        def scalars(self, step: int, values: dict[str, float]) -> None:
            logged.append((self.folder, step, set(values)))

        def pictures(self, step: int, pictures: dict[str, Any]) -> None: ...

        def close(self) -> None:
            logged.append((self.folder, -1, set()))

    _run(recipe(stage(steps=3)), tmp_path, cache, log=Logged, log_every=2).run()
    assert [step for _, step, _ in logged] == [0, 2, -1]
    assert {folder for folder, _, _ in logged} == {tmp_path / "logs" / "codec"}
    assert {"rate", "gradient", "gradient/codecs.image", "update/codecs.image", "loss/kl"} <= (
        logged[0][2]
    )


# --- what goes wrong ---


def test_missing_data_are_said_before_a_model_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("codi.training.loop.fresh_model", lambda *_: pytest.fail("a model built"))
    data = {"bounce": {"kind": "shards", "files": ["no-digits.tar"]}}
    with pytest.raises(ConfigError, match=r"no-digits\.tar"):
        _run(recipe(stage("codec", reconstruct("image")), data=data), tmp_path, tmp_path).run()


def test_a_source_that_is_not_there_is_left_out_with_a_note(tmp_path: Path, cache: Path) -> None:
    said: list[str] = []
    mixed = Objective("reconstruct", {"bounce": 0.5, "digits": 0.5}, {"modality": "image"})
    data = {
        "bounce": {"kind": "world", "world": "bounce", "clips": 8},
        "digits": {"kind": "shards", "files": ["no-digits.tar"], "optional": True},
    }
    _run(recipe(stage("codec", mixed, steps=1), data=data), tmp_path, cache, say=said.append).run()
    assert "data source 'digits' is not there; training goes on without it" in said


def test_a_part_that_does_not_move_is_an_error(tmp_path: Path, cache: Path) -> None:
    idle = stage(
        "idle",
        reconstruct("text"),
        Objective("align", {"bounce": 1.0}, {"modality": "audio"}, share=1e-9),
        steps=1,
        train=("codecs.text.*", "encoders.audio.*"),
    )
    with pytest.raises(ConfigError, match=r"nothing moved in update/encoders.audio; .*no gradient"):
        _run(recipe(idle), tmp_path, cache).run()


def test_losses_that_depend_on_nothing_trained_are_an_error(tmp_path: Path, cache: Path) -> None:
    frozen = stage("text", Objective("denoise", {"bounce": 1.0}, {"modality": "text", "captions": ["video"]}), train=("encoders.text.*",))  # fmt: skip # noqa: E501
    with pytest.raises(ConfigError, match=r"denoising do not depend on .* trained, encoders.text"):
        _run(recipe(frozen), tmp_path, cache).run()


def test_a_loss_that_is_not_finite_is_an_error(tmp_path: Path, cache: Path) -> None:
    wild = stage(steps=30, learning_rate=1e30, warmup=0, weight_decay=0.0)
    with pytest.raises(
        ConfigError, match=r"stage 'codec': .* not finite by step .*; lower learning_rate"
    ):
        _run(recipe(wild), tmp_path, cache).run()


# --- stopped and resumed ---


def _both() -> Recipe:
    """Return two objectives that train different parts, six steps."""
    align = Objective("align", {"bounce": 1.0}, {"modality": "audio"}, share=0.5)
    return recipe(stage("both", reconstruct("text", share=0.5), align, steps=6))


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Return the folder of a run that nothing interrupted."""
    out = tmp_path_factory.mktemp("straight")
    _run(_both(), out, cache).run()
    return out


def _stop_at(step: int, how: Callable[[], Any]) -> Callable[[dict[str, float]], None]:
    steps = iter(range(100))

    def report(_values: dict[str, float]) -> None:
        if next(steps) == step:
            how()

    return report


def _raise() -> None:
    raise KeyboardInterrupt


def _press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def _preempt() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("how", [_raise, _press, _preempt])
@pytest.mark.parametrize("step", [0, 3, 5])
def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(
    tmp_path: Path, cache: Path, straight: Path, step: int, how: Callable[[], None]
) -> None:
    said: list[str] = []
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        _run(_both(), tmp_path, cache, report=_stop_at(step, how), say=said.append).run()
    assert said[-1] == f"both: stopped after step {step + 1}; run the same command to go on"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    _run(_both(), tmp_path, cache).run()
    assert _same(tmp_path, straight)  # the model, and the checkpoint with averages and moments


def test_a_step_that_was_cut_through_is_not_saved(
    tmp_path: Path, cache: Path, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates = iter(range(100))
    update = torch.optim.AdamW.step

    def cut(self: torch.optim.AdamW, *details: Any) -> Any:
        result = update(self, *details)
        if next(updates) == 3:
            raise KeyboardInterrupt  # the averages have not moved yet
        return result

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", cut)
        with pytest.raises(KeyboardInterrupt):
            _run(_both(), tmp_path, cache, checkpoint_every=2).run()
    _run(_both(), tmp_path, cache).run()
    assert _same(tmp_path, straight)


def test_what_is_no_longer_finite_replaces_no_checkpoint(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates = iter(range(100))
    update = torch.optim.AdamW.step

    def broken(self: torch.optim.AdamW, *details: Any) -> Any:
        result = update(self, *details)
        if next(updates) == 2:
            with torch.no_grad():
                self.param_groups[0]["params"][0].view(-1)[0] = float("nan")
            signal.raise_signal(signal.SIGINT)
        return result

    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", broken)
        with pytest.raises(KeyboardInterrupt):
            _run(recipe(), tmp_path, cache, checkpoint_every=2, say=said.append).run()
    assert said[-2].startswith("codec: step 3 is not saved: what is trained is no longer finite")
    _run(recipe(), tmp_path, cache, say=said.append).run()
    assert any(line.endswith("from step 2 of 6") for line in said)


def test_a_run_that_is_killed_goes_on_from_its_checkpoint(
    tmp_path: Path, cache: Path, straight: Path
) -> None:
    script = f"""
        import os, signal, sys
        from pathlib import Path
        import torch
        torch.set_num_threads(1)
        sys.path.insert(0, {str(PRESET.parent.parent)!r})
        from tests.training.test_loop import _both, _run, _stop_at

        die = lambda: os.kill(os.getpid(), signal.SIGKILL)
        out, cache = Path({str(tmp_path)!r}), Path({str(cache)!r})
        _run(_both(), out, cache, checkpoint_every=2, report=_stop_at(4, die)).run()
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert killed.returncode == -signal.SIGKILL
    said: list[str] = []
    _run(_both(), tmp_path, cache, say=said.append).run()
    assert any(line.endswith("from step 4 of 6") for line in said)
    assert _same(tmp_path, straight)
