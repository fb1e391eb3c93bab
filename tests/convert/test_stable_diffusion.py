"""Stable Diffusion 1 wherever it is found, and its relatives by their names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from codi.build import load_config
from codi.config import ConfigError
from codi.convert import layouts
from codi.convert.fresh import shapes_of
from codi.convert.planning import make_plan, recognised
from codi.convert.reading import Checkpoint, Stored
from codi.convert.sources import ForeignLayout, ForeignModule

LDM = "model.diffusion_model."
KEYS = "transformer_blocks.0.attn2.to_k.weight"
Shapes = dict[str, tuple[int, ...]]
RELATIVES: dict[str, tuple[Shapes, Shapes]] = {
    "is of Stable Diffusion for inpainting": (
        {f"{LDM}input_blocks.0.0.weight": (320, 9, 3, 3)},
        {"conv_in.weight": (320, 9, 3, 3)},
    ),
    "is of InstructPix2Pix": (
        {f"{LDM}input_blocks.0.0.weight": (320, 8, 3, 3)},
        {"conv_in.weight": (320, 8, 3, 3)},
    ),
    "is of Stable Diffusion 2": (
        {f"{LDM}input_blocks.1.1.{KEYS}": (320, 1024)},
        {f"down_blocks.0.attentions.0.{KEYS}": (320, 1024)},
    ),
    "is of Stable Diffusion XL": (
        {f"{LDM}label_emb.0.0.weight": (1280, 2816)},
        {"add_embedding.linear_1.weight": (1280, 2816)},
    ),
    "is a ControlNet": (
        {"control_model.input_hint_block.0.weight": (16, 3, 3, 3)},
        {"controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3)},
    ),
}


def _unread() -> torch.Tensor:
    raise AssertionError("what a file is, names and shapes say")


def _checkpoint(shapes: dict[str, tuple[int, ...]]) -> Checkpoint:
    stored = {name: Stored(shape, torch.float16, _unread) for name, shape in shapes.items()}
    return Checkpoint(Path("x.safetensors"), stored)


def _shapes(module: ForeignModule) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a module as its own program stores it, at its true size."""
    model = load_config("stable-diffusion")
    [part] = module.parts(model)
    table = module.correspondence(model, part)
    found = {}
    for name, tensor in shapes_of(model.part(*part.split(".", 1)).build).items():
        foreign = table.foreign(name)
        if table.why_fresh(name) is None and foreign is not None:
            found[module.prefix + foreign[0]] = tuple(foreign[1].to_foreign(tensor).shape)
    return found


@pytest.mark.parametrize("form", [0, 1], ids=["one file", "folder"])
@pytest.mark.parametrize("message", RELATIVES)
def test_relatives_are_refused_by_their_names(message: str, form: int) -> None:
    layout: ForeignLayout = (layouts.SD_LDM, layouts.SD_DIFFUSERS)[form]
    plain = _shapes(layout.modules[0])
    [source] = recognised([_checkpoint(plain)], layouts.LAYOUTS, layouts.RELATIVES)
    assert source.layout is layout
    with pytest.raises(ConfigError, match=rf"^x\.safetensors: {message}.*; give weights of Stable"):
        recognised(
            [_checkpoint(plain | RELATIVES[message][form])], layouts.LAYOUTS, layouts.RELATIVES
        )


def test_audioldms_diffuser_is_no_relative() -> None:
    shapes = _shapes(layouts.SD_DIFFUSERS.modules[0]) | {"conv_in.weight": (128, 8, 3, 3)}
    [source] = recognised([_checkpoint(shapes)], layouts.LAYOUTS, layouts.RELATIVES)
    assert source.layout is layouts.AUDIOLDM_DIFFUSERS


def test_an_autoencoder_alone_is_known_with_what_training_left() -> None:
    [module] = layouts.SD_LDM_AUTOENCODER.modules
    left: dict[str, tuple[int, ...]] = {"loss.logvar": ()}
    left |= {"loss.discriminator.main.0.weight": (64, 3, 4, 4)}
    left |= {"model_ema.decay": (), "model_ema.encoderconv_inweight": (128, 3, 3, 3)}
    [source] = recognised([_checkpoint(_shapes(module) | left)], layouts.LAYOUTS)
    plan = make_plan([source], load_config("stable-diffusion"))
    assert list(plan.parts) == ["codecs.image"]
    assert source.unused.keys() == left.keys()
    assert all(source.unused.values())
    assert "0.13025" in source.notes[0]  # which the file cannot tell
