"""Networks with random weights."""

from __future__ import annotations

import torch

from codi.benchmarks.networks import context, fill, latents, model_of_shapes, random_model
from codi.build import load_config
from tests.small import NAMES, small_config


def test_shapes_take_no_memory() -> None:
    model = model_of_shapes(load_config("release"), ["diffusers.audio"])
    assert all(parameter.is_meta for parameter in model.parameters())


def test_a_matrix_has_the_variance_that_keeps_its_product() -> None:
    matrix = torch.empty(300, 200)
    fill(matrix)
    torch.testing.assert_close(matrix.var(), torch.tensor(1 / 200), atol=0, rtol=0.02)
    assert len(matrix.unique(dim=0)) == 300
    vector = torch.empty(3)
    fill(vector)
    assert torch.equal(vector, torch.ones(3))


@torch.no_grad()
def test_random_networks_make_finite_numbers_in_their_precision() -> None:
    config = small_config()
    for dtype in (torch.float32, torch.bfloat16):
        parts = config.parts(("diffusers", "environments"), NAMES)
        model = random_model(config, parts, dtype=dtype)
        z_t = latents(config, NAMES, batch=2, dtype=dtype)
        steps = dict.fromkeys(z_t, torch.tensor([1, 1000]))
        made = model.codi(NAMES)(z_t, steps, context(config, 2, tokens=3, dtype=dtype))
        assert all(x.isfinite().all() and x.dtype == dtype for x in made.values())


def test_what_is_not_run_is_not_filled() -> None:
    config = small_config()
    model = random_model(config, ["diffusers.vision"], skip=("temporal",))
    filled = random_model(config, ["diffusers.vision"])
    for (name, one), other in zip(model.named_parameters(), filled.parameters(), strict=True):
        if "temporal" not in name:
            assert torch.equal(one, other)
