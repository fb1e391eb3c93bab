"""Any to any: prompts and joint sampling."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import codi
from codi import media
from codi.build import Model
from codi.config import ConfigError
from codi.diffusion import GuidanceRule
from codi.pipeline import Condition, Generation, Pipeline, SamplingSettings, load
from codi.types import Latents
from tests.small import (
    NAMES,
    SENTENCE,
    awake_model,
    objects,
    small_config,
    small_model,
    speaking,
)

SUBSETS = [subset for size in range(1, 5) for subset in itertools.combinations(NAMES, size)]
"""The fifteen sets of modalities that can go in, and that can come out."""

SHORT = (
    "modalities.video.latent=[4, 2, 4, 4]",
    "modalities.video.media.frames=2",
    "modalities.audio.latent=[4, 1, 4, 4]",
    "modalities.audio.media.duration_s=0.5",
)
"""Clips of a quarter of a second and sounds of half a second."""

OBJECTS = {"text": str, "image": Image.Image, "video": media.Video, "audio": media.Audio}


@pytest.fixture(scope="module")
def short_pipeline() -> Pipeline:
    model = awake_model(*SHORT)
    return Pipeline(model.config, model=model)


# --- the walking skeleton ---


@pytest.mark.parametrize("inputs", SUBSETS, ids="+".join)
def test_any_modalities_come_from_any_modalities(
    short_pipeline: Pipeline, inputs: tuple[str, ...]
) -> None:
    given = objects()
    for outputs in SUBSETS:
        made = short_pipeline.generate([(name, given[name]) for name in inputs], outputs, steps=2)
        assert list(made) == list(outputs)
        for name in outputs:
            [item] = made[name]
            assert isinstance(item, OBJECTS[name])


def test_nothing_at_all_is_a_prompt_too(short_pipeline: Pipeline) -> None:
    assert len(short_pipeline.generate(to=["audio"])["audio"]) == 1


def test_one_output_may_be_named_without_a_list(short_pipeline: Pipeline) -> None:
    assert list(short_pipeline.generate(to="text", steps=1)) == ["text"]


# --- contexts ---


def _context(pipeline: Pipeline, *conditions: tuple[Any, ...]) -> torch.Tensor:
    return pipeline.context([Condition(*c) for c in conditions])


def test_a_mixture_is_the_interpolation(pipeline: Pipeline) -> None:
    star, ball = (_context(pipeline, ("text", text)) for text in ("a star", "a ball"))
    mixed = _context(pipeline, ("text", "a star", 3.0), ("text", "a ball", 1.0))
    torch.testing.assert_close(mixed, 0.75 * star + 0.25 * ball)


def test_only_the_ratio_of_weights_matters(pipeline: Pipeline) -> None:
    image = objects()["image"]
    one, other = (
        _context(pipeline, ("text", SENTENCE, 0.2 * scale), ("image", image, 0.6 * scale))
        for scale in (1.0, 50.0)
    )
    torch.testing.assert_close(one, other)


def test_weights_may_be_larger_together_than_any_number(pipeline: Pipeline) -> None:
    star, ball = (("text", text) for text in ("a star", "a ball"))
    one, other = (_context(pipeline, (*star, w), (*ball, w)) for w in (1.0, 1e308))
    assert torch.equal(one, other)


def test_the_order_of_prompts_does_not_matter(pipeline: Pipeline) -> None:
    prompts = [(name, item, weight) for weight, (name, item) in enumerate(objects().items(), 1)]
    expected = _context(pipeline, *prompts)
    for order in itertools.permutations(prompts):
        torch.testing.assert_close(_context(pipeline, *order), expected)


def test_a_weight_of_zero_is_as_if_it_were_not_there(pipeline: Pipeline) -> None:
    with_it = _context(pipeline, ("text", "a star", 0.0), ("text", "a ball"))
    assert torch.equal(with_it, _context(pipeline, ("text", "a ball")))


@pytest.mark.parametrize("weights", [(0.0, 0.0), (1.0, -0.1), (float("nan"), 1.0)])
def test_impossible_weights_are_refused(pipeline: Pipeline, weights: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="must be finite, not negative, and not all 0"):
        _context(pipeline, *(("text", SENTENCE, weight) for weight in weights))


def test_the_empty_context_is_zero(pipeline: Pipeline) -> None:
    assert torch.equal(pipeline.context([]), torch.zeros(1, 1, 32))


# --- seeds ---


def _sample(
    pipeline: Pipeline, to: Sequence[str], seeds: Sequence[int], **settings: Any
) -> Latents:
    context = pipeline.context([Condition("text", SENTENCE)]).expand(len(seeds), -1, -1)
    return pipeline.sample(context, to, seeds, settings=SamplingSettings(steps=3, **settings))


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpmpp_2m"])
def test_a_sample_does_not_depend_on_its_batch(pipeline: Pipeline, sampler: str) -> None:
    together = _sample(pipeline, ["image", "audio"], [3, 4, 5], sampler=sampler)
    alone = _sample(pipeline, ["image", "audio"], [4], sampler=sampler)
    for name, z in alone.items():
        torch.testing.assert_close(together[name][1:2], z, atol=1e-3, rtol=1e-3)


def test_the_same_seed_gives_the_same_output(pipeline: Pipeline) -> None:
    first, second = (
        pipeline.generate([("text", SENTENCE)], ["text", "image"], seeds=[7], steps=2)
        for _ in range(2)
    )
    assert first["text"] == second["text"]
    assert np.array_equal(np.asarray(first["image"][0]), np.asarray(second["image"][0]))
    third = pipeline.generate([("text", SENTENCE)], ["image"], seeds=[8], steps=2)
    assert not np.array_equal(np.asarray(first["image"][0]), np.asarray(third["image"][0]))


def test_one_more_output_leaves_the_noise_of_the_others() -> None:
    model = speaking(small_model())  # fresh streams do not hear each other yet
    pipeline = Pipeline(model.config, model=model)
    alone = _sample(pipeline, ["audio"], [1])
    beside = _sample(pipeline, ["video", "audio", "text"], [1])
    assert torch.equal(alone["audio"], beside["audio"])


def test_outputs_that_hear_each_other_differ(pipeline: Pipeline) -> None:
    alone, beside = _sample(pipeline, ["audio"], [1]), _sample(pipeline, ["video", "audio"], [1])
    assert not torch.allclose(alone["audio"], beside["audio"], atol=1e-4)


def test_long_lists_of_seeds_are_cut_into_batches(pipeline: Pipeline) -> None:
    whole = pipeline.generate([("text", "a")], ["image"], seeds=range(5), steps=1)
    parts = pipeline.generate([("text", "a")], ["image"], seeds=range(5), steps=1, batch=2)
    for one, other in zip(whole["image"], parts["image"], strict=True):
        assert np.abs(np.asarray(one).astype(int) - np.asarray(other)).max() <= 1


def test_what_is_encoded_once_is_sampled_in_as_many_calls_as_one_likes(pipeline: Pipeline) -> None:
    given = [("text", "a  ball"), ("image", objects()["image"])]
    settings, kept = SamplingSettings(steps=2), {"audio": objects()["audio"]}
    whole = pipeline.generate(given, ["image"], keep=kept, seeds=[3, 4], steps=2)
    encoded = pipeline.encoded(given, ["image"], keep=kept, settings=settings)
    parts = [pipeline.generated(encoded, [seed]) for seed in (3, 4)]
    for i, part in enumerate(parts):
        assert (part.notes, part.settings) == (whole.notes, whole.settings)
        assert list(part) == ["image", "audio"]
        one, other = (np.asarray(made) for made in (*part["image"], whole["image"][i]))
        assert np.abs(one.astype(int) - other).max() <= 1


# --- guidance ---


def test_guidance_of_one_is_the_conditional_prediction(pipeline: Pipeline) -> None:
    context = pipeline.context([Condition("text", SENTENCE)])
    against = pipeline.context([Condition("text", "a star")])
    settings = SamplingSettings(steps=2, guidance=1.0)
    plain = pipeline.sample(context, ["audio"], [1], settings=settings)
    guided = pipeline.sample(context, ["audio"], [1], settings=settings, against=against)
    assert torch.equal(plain["audio"], guided["audio"])


def test_guidance_away_from_the_prompt_itself_changes_nothing(pipeline: Pipeline) -> None:
    context = pipeline.context([Condition("text", SENTENCE)])
    away, plain = (
        pipeline.sample(
            context, ["audio"], [1], settings=SamplingSettings(steps=2, guidance=scale), against=to
        )
        for scale, to in ((7.0, context), (1.0, None))
    )
    torch.testing.assert_close(away["audio"], plain["audio"], atol=1e-3, rtol=1e-3)


def test_a_negative_prompt_is_heard(pipeline: Pipeline) -> None:
    one, other = (
        pipeline.generate([("text", SENTENCE)], ["audio"], negative=negative, steps=2)
        for negative in ([], [("text", "a star", 1.0), ("image", objects()["image"], 2.0)])
    )
    assert not np.array_equal(one["audio"][0].samples, other["audio"][0].samples)


def test_steps_outside_the_interval_are_not_guided(pipeline: Pipeline) -> None:
    context = pipeline.context([Condition("text", SENTENCE)])

    def made(**settings: Any) -> torch.Tensor:
        chosen = SamplingSettings(steps=3, **settings)
        return pipeline.sample(context, ["audio"], [1], settings=chosen)["audio"]

    guided, plain = made(guidance=5.0), made(guidance=1.0)
    assert torch.equal(made(guidance=5.0, guidance_interval=(0, 1000)), guided)
    assert not torch.equal(made(guidance=5.0, guidance_interval=(500, 1000)), guided)
    never = made(guidance=5.0, guidance_interval=(1, 2))
    torch.testing.assert_close(never, plain)


@pytest.mark.parametrize("interval", [None, (400, 1000), (1, 2)])
def test_a_step_without_guidance_is_one_evaluation(
    model: Model, pipeline: Pipeline, interval: tuple[int, int] | None
) -> None:
    seen: list[int] = []
    hook = model.part("diffusers", "audio").register_forward_pre_hook(
        lambda _module, args: seen.append(len(args[0]))
    )
    try:
        _sample(pipeline, ["audio"], [0, 1], guidance=3.0, guidance_interval=interval)
    finally:
        hook.remove()
    steps = model.schedule.timesteps(3)[:-1]
    guided = [interval is None or interval[0] <= t <= interval[1] for t in steps]
    assert seen == [4 if g else 2 for g in guided]


def test_reused_features_are_exact_for_one_and_counted_for_more(
    model: Model, pipeline: Pipeline
) -> None:
    to = ["text", "audio"]
    seen: list[int] = []
    inside = model.part("diffusers", "audio").get_submodule("middle.0")
    hook = inside.register_forward_pre_hook(lambda *_: seen.append(1))
    try:
        exact, same, near = (_sample(pipeline, to, [0], reuse=n) for n in (None, 1, 2))
    finally:
        hook.remove()
    assert len(seen) == 3 + 3 + 2
    for name in to:
        assert torch.equal(same[name], exact[name])
        assert not torch.equal(near[name], exact[name])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reuse": 0}, "reuse = 0; give 1"),
        ({"spacing": "trailling"}, "unknown spacing 'trailling'; did you mean 'trailing'"),
    ],
)
def test_impossible_settings_of_sampling_are_refused(
    pipeline: Pipeline, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pipeline.describe(SamplingSettings(**settings), ["audio"])


@pytest.mark.parametrize("scale", [float("nan"), float("-inf")])
def test_a_rule_of_guidance_is_finite(scale: float) -> None:
    with pytest.raises(ValueError, match=f"guidance scale is {scale}; choose a finite number"):
        GuidanceRule(scale)


def test_an_empty_interval_of_guidance_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(ConfigError, match=r"guidance_interval = \[800, 200\]"):
        pipeline.describe(SamplingSettings(guidance_interval=(800, 200)), ["audio"])


def test_guidance_is_a_number_for_each_modality(pipeline: Pipeline) -> None:
    settings = SamplingSettings(guidance={"audio": 5.0})
    assert pipeline.describe(settings, ["image", "audio"])["guidance"] == {
        "image": small_config().modality("image").guidance,
        "audio": 5.0,
    }
    with pytest.raises(ConfigError, match=r"unknown modality to guide: 'aduio'; .* 'audio'"):
        pipeline.describe(SamplingSettings(guidance={"aduio": 5.0}), ["image", "audio"])


# --- what is refused ---


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"to": []}, "nothing to generate"),
        ({"to": ["vidoe"]}, "'vidoe'; did you mean 'video'"),
        ({"to": ["image", "image"]}, "image: asked for twice"),
        ({"to": ["image"], "keep": {"image": objects()["image"]}}, "image: asked for twice"),
        ({"to": ["image"], "sampler": "dimm"}, "unknown sampler 'dimm'; did you mean 'ddim'"),
        ({"to": ["image"], "steps": 0}, "steps = 0; give a number from 1 to 1000"),
        ({"to": ["image"], "steps": 1001}, "steps = 1001; give a number from 1 to 1000"),
        ({"to": ["image"], "conditions": [("sound", "x.wav")]}, "unknown modality"),
        ({"to": ["image"], "conditions": [("image", 5)]}, "expected a file name or a PIL image"),
        ({"to": ["image"], "guidance": float("nan")}, "guidance of image is nan; give a finite"),
        ({"to": ["image"], "guidance": {"image": float("inf")}}, "guidance of image is inf; give"),
    ],
)
def test_a_contradictory_request_is_an_error(
    pipeline: Pipeline, request_: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pipeline.generate(**request_)


PAIRS = 'expected pairs such as [("text", "a red ball")], with a weight or without, got '
WHOLE = "expected a whole number such as "


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"conditions": "ball"}, PAIRS + "'ball'"),
        ({"conditions": ("text", "ball")}, PAIRS + "('text', 'ball')"),
        ({"conditions": {"text": "ball"}}, PAIRS + "{'text': 'ball'}"),
        ({"conditions": [("text",)]}, PAIRS + "[('text',)]"),
        ({"conditions": [(5, "ball")]}, PAIRS + "[(5, 'ball')]"),
        ({"conditions": [("text", "ball", "1")]}, PAIRS + "[('text', 'ball', '1')]"),
        ({"conditions": None}, PAIRS + "None"),
        ({"negative": "ball"}, PAIRS + "'ball'"),
        ({"to": 5}, 'expected names of modalities such as ["image", "audio"], got 5'),
        ({"to": ["image", 5]}, "expected names of modalities such as "),
        ({"seeds": 3}, "expected whole numbers from 0 up such as [0, 1, 2], got 3"),
        ({"seeds": [1.5]}, "expected whole numbers from 0 up such as [0, 1, 2], got [1.5]"),
        ({"seeds": [-1]}, "expected whole numbers from 0 up such as [0, 1, 2], got [-1]"),
        ({"seeds": "12"}, "expected whole numbers from 0 up such as [0, 1, 2], got '12'"),
        ({"keep": "silent.mp4"}, 'expected streams by modality such as {"video": "silent.mp4"}, '),
        ({"steps": "2"}, WHOLE + "20, got '2'"),
        ({"steps": 2.5}, WHOLE + "20, got 2.5"),
        ({"steps": True}, WHOLE + "20, got True"),
        ({"reuse": 1.5}, WHOLE + "2, got 1.5"),
        ({"batch": 0}, "expected a whole number from 1 up, got 0"),
        ({"batch": None}, "expected a whole number from 1 up, got None"),
        ({"guidance": "3"}, "expected a number, or numbers by modality such as "),
        ({"guidance": {"image": None}}, "expected a number, or numbers by modality such as "),
        ({"guidance": torch.ones(2)}, "expected a number, or numbers by modality such as "),
        ({"guidance": 10**400}, "expected a number, or numbers by modality such as "),
        ({"eta": 1.5}, "expected a number from 0 to 1, got 1.5"),
        ({"sampler": 5}, 'expected a name such as "ddim", got 5'),
        ({"spacing": ["ldm"]}, "expected a name such as \"trailing\", got ['ldm']"),
        ({"guidance_interval": 5}, "expected the lowest and the highest step t such as "),
        ({"guidance_interval": (1, 2, 3)}, "expected the lowest and the highest step t such as "),
        ({"callback": 5}, "expected a function of a step and the number of steps, got 5"),
    ],
    ids=lambda case: next(iter(case)) if isinstance(case, dict) else "",
)
def test_an_argument_of_another_type_is_one_line_that_says_what_is_expected(
    pipeline: Pipeline, argument: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        pipeline.generate(**argument)
    assert str(caught.value).startswith(f"{next(iter(argument))}: {message}")
    assert "\n" not in str(caught.value)


def test_numbers_of_other_libraries_are_numbers(pipeline: Pipeline) -> None:
    ours: dict[str, Any] = {"seeds": [0, 1], "steps": 2, "guidance": 3.0}
    others = {"seeds": np.arange(2), "steps": np.int64(2), "guidance": torch.tensor(3.0)}
    plain = pipeline.generate([("text", SENTENCE, 1.0)], "text", **ours)
    other = pipeline.generate([("text", SENTENCE, np.float32(1))], "text", **(ours | others))
    assert plain == other
    assert plain.settings == other.settings
    assert type(other.settings["steps"]) is int


@pytest.mark.parametrize("settings", [{"steps": "2"}, {"sampler": "dimm"}, {"guidance": np.nan}])
def test_settings_are_refused_before_anything_is_sampled(
    pipeline: Pipeline, settings: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        pipeline.describe(SamplingSettings(**settings), ["audio"])


@pytest.mark.parametrize("guidance", [1, {"text": 1.0, "image": 1.0}])
def test_a_negative_prompt_that_steers_nothing_is_refused(
    pipeline: Pipeline, guidance: float | dict[str, float]
) -> None:
    to, negative = ["text", "image"], [("text", "a star")]
    with pytest.raises(ConfigError, match="change nothing at guidance 1; give a higher guidance"):
        pipeline.generate(to=to, negative=negative, guidance=guidance, steps=1)
    pipeline.generate(to=to, negative=negative, guidance={"text": 1.0, "image": 2.0}, steps=1)


def test_a_modality_may_be_input_only() -> None:
    model = small_model(parts=[])
    without = small_config()
    audio = without.modalities["audio"]
    object.__setattr__(audio, "diffuser", None)
    with pytest.raises(ConfigError, match="takes audio only as a condition; it generates text"):
        Pipeline(without, model=model).generate(to=["audio"])


def test_numbers_that_are_not_finite_are_an_error() -> None:
    model = awake_model()
    with torch.no_grad():
        next(model.part("diffusers", "audio").parameters()).fill_(float("nan"))
    said = r"made numbers that are not finite in torch.float32; try a lower guidance than audio 2 "
    with pytest.raises(ConfigError, match=said):
        Pipeline(model.config, model=model).generate(to=["audio"], steps=1, guidance=2)
    model.to(torch.bfloat16)
    narrow = Pipeline(model.config, model=model, dtype=torch.bfloat16)
    with pytest.raises(ConfigError, match=r"torch.bfloat16; try --dtype float32, a lower guidance"):
        narrow.generate(to=["audio"], steps=1)


def test_a_model_in_memory_without_a_part_says_so() -> None:
    model = small_model(parts=[])
    with pytest.raises(ConfigError, match=r"diffusers.audio is not part of this model"):
        Pipeline(model.config, model=model).generate(to=["audio"])


def test_unit_contexts_are_guided_away_from_media_that_show_nothing() -> None:
    model = awake_model()
    encoder = model.encoder("image")
    encoder.unit_context = True
    pipeline = Pipeline(model.config, model=model)
    conditions = [Condition("text", SENTENCE, 1.0), Condition("image", objects()["image"], 3.0)]
    _, unprompted = pipeline._contexts(conditions, None)
    grey = encoder(torch.zeros(1, 3, 1, 64, 64))
    torch.testing.assert_close(unprompted, 0.75 * grey)


# --- types of numbers ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_type_of_torch_is_as_good_as_its_name(folder: Path, dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    for given in (dtype, name):
        pipeline = load(folder, device="cpu", dtype=given, compute_dtype=given)
        assert (pipeline.dtype, pipeline.compute_dtype) == (dtype, dtype)


@pytest.mark.parametrize("which", ["dtype", "compute_dtype"])
@pytest.mark.parametrize("given", [torch.float64, "float65", 5])
def test_other_types_of_numbers_are_refused(folder: Path, which: str, given: Any) -> None:
    with pytest.raises(ConfigError, match=f"unknown {which} '{given}'; .*known: float32, "):
        load(folder, device="cpu", **{which: given})


# --- what is told ---


def test_every_step_is_reported(pipeline: Pipeline) -> None:
    seen: list[tuple[int, int]] = []
    pipeline.generate(to=["text"], steps=3, callback=lambda step, steps: seen.append((step, steps)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_steps_of_every_batch_are_counted_anew(pipeline: Pipeline) -> None:
    seen: list[tuple[int, int]] = []
    pipeline.generate(
        to=["text"], seeds=[0, 1], batch=1, steps=2, callback=lambda *at: seen.append(at)
    )
    assert seen == [(1, 2), (2, 2)] * 2


def test_the_settings_say_how_to_make_it_again(pipeline: Pipeline) -> None:
    settings = pipeline.generate(to=["text"], sampler="ddim", eta=0.5).settings
    assert settings["sampler"] == "ddim"
    assert settings["steps"] == 2
    assert settings["eta"] == 0.5
    assert settings["model"] == "small"
    assert settings["versions"]["codi"] == codi.__version__


def test_fresh_noise_is_for_samplers_that_take_it(pipeline: Pipeline) -> None:
    plain, stirred = (
        pipeline.generate(to=["image"], sampler="dpmpp_2m", steps=3, eta=eta) for eta in (None, 1.0)
    )
    assert plain["image"][0] != stirred["image"][0]
    assert pipeline.generate(to=["image"], sampler="dpmpp_2m", steps=3, eta=1.0) == stirred
    with pytest.raises(ConfigError, match="eta: euler takes none; leave it out"):
        pipeline.generate(to=["image"], sampler="euler", eta=0.5)


def test_a_notebook_shows_every_sample(pipeline: Pipeline) -> None:
    made = Generation({"text": ["a <b> ball"], **{n: [objects()[n]] for n in NAMES[1:]}})
    html = made._repr_html_()
    assert "a &lt;b&gt; ball" in html
    assert len(made) == 4
    for tag in ("<img", "<video", "<audio"):
        assert tag in html
    assert html.count('style="width: 256px; image-rendering: pixelated"') == 2  # as large as clips
    assert len(repr(made["video"] + made["audio"])) < 200  # no arrays


def test_public_names_are_found_when_they_are_used() -> None:
    assert codi.Pipeline is Pipeline
    assert "load" in dir(codi)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = codi.lod
