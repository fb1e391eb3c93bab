"""Foreign layouts that nobody has, for the tests' model: a file with prefixes, and a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from codi.build import Model
from codi.codecs.autoencoder_kl import AutoencoderKLConfig
from codi.codecs.vocoder import VocoderConfig
from codi.convert.rules import POINTWISE, TRANSPOSED, Rule, Table, joined
from codi.convert.sources import ForeignLayout, ForeignModule, KeptFiles, Signs, Skip
from codi.convert.writing import Slot, TensorFile
from codi.encoders.text import TextEncoderConfig
from codi.unets.unet import UNetConfig
from tests.small import PRESET, awake_model

STREAMS = {"*.temporal.*": "the identity", "*.environment_attention.*": "the identity"}


def folder_of_holes(folder: Path, kind: Any, config: Any) -> Path:
    """Write the folder of a model of `transformers` at its true size, with a file of holes."""
    with torch.device("meta"):
        state = kind(config).state_dict()
    slots = {name: Slot(tuple(x.shape), x.dtype) for name, x in state.items()}
    TensorFile(folder / "model.safetensors", slots)._file.close()
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return folder


def network(config: UNetConfig) -> Table:
    names = ("conv_in", "conv_out", "norm_out", "step_embedding", "middle", "up", "upsample")
    rules = tuple(Rule(name, f"net_{name}") for name in names)
    return Table((*rules, Rule("down", "a.b"), Rule("downsample", "a.c")), fresh=STREAMS)


def autoencoder(config: AutoencoderKLConfig) -> Table:
    rules = [Rule("encoder", "enc"), Rule("decoder", "dec")]
    if config.middle_attention:
        at = f"encoder.{2 * len(config.multipliers)}.1.attention"
        rules.append(Rule(f"{at}.to_out.weight", "enc.mid.out.weight", POINTWISE))
        rules += joined([f"{at}.to_{x}.weight" for x in "qkv"], "enc.mid.qkv.weight")
    return Table(
        tuple(rules),
        unused={"loss.*": "only for training"},
        fresh={"shift": "zero", "scale": "one"},
    )


def vocoder(config: VocoderConfig) -> Table:
    return Table((Rule("", "gen"),), unused={"mean": "zero"})


def sentences(config: TextEncoderConfig) -> Table:
    return Table(
        (
            Rule("transformer", "body"),
            Rule("to_embedding.weight", "head.weight", TRANSPOSED),
            Rule("to_embedding.bias", "head.bias"),
        ),
        fresh={"mean": "zero"},
    )


PICTURES = ForeignModule(
    prefix="first.",
    role="codecs",
    of=("image", "video"),
    kind=AutoencoderKLConfig,
    table=autoencoder,
    signs=Signs({"enc.0.weight": (None, 192, 3, 3)}),
    file="toy",
)
VISION = ForeignModule(
    prefix="model.",
    role="diffusers",
    of=("image", "video"),
    kind=UNetConfig,
    table=network,
    signs=Signs({"net_conv_in.weight": (None, 4, None, None)}),
    file="toy",
    begins=("environments",),
)
SENTENCES = ForeignModule(
    prefix="",
    role="encoders",
    of=("text",),
    kind=TextEncoderConfig,
    table=sentences,
    signs=Signs({"body.embedding.weight": None}, absent=("first.enc.0.weight",)),
    file="text/model",
    files=(KeptFiles((("tokenizer.json",),)),),
    describe=lambda config: {"width": config.width},
)
SOUND = tuple(
    ForeignModule(
        prefix="",
        role="codecs",
        of=("audio",),
        kind=kind,
        table=table,
        signs=signs,
        file=f"{inside}/model",
        inside=inside,
        fresh={"shift": "zero", "scale": "one"},
    )
    for inside, kind, table, signs in (
        (
            "autoencoder",
            AutoencoderKLConfig,
            autoencoder,
            Signs({"enc.0.weight": (None, 64, None, None)}),
        ),
        ("vocoder", VocoderConfig, vocoder, Signs({"gen.conv_in.weight": None})),
    )
)
TOY = ForeignLayout(
    "toy",
    "nobody's single file",
    str(PRESET),
    (PICTURES, VISION),
    unused={"model_ema.*": "averages"},
)
FOLDER = ForeignLayout(
    "toy-folder",
    "nobody's folder",
    str(PRESET),
    (SENTENCES, *SOUND),
    skips=(Skip(Signs({"unsafe.weight": None}), "judges pictures"),),
)
LAYOUTS = (TOY, FOLDER)


def trained(*parts: str) -> Model:
    """Return some parts with random weights, the ones that begin at zero too."""
    return awake_model(parts=parts)


def foreign_state(model: Model, module: ForeignModule) -> dict[str, Tensor]:
    """Return a module as its own program would store it, by the table read backwards."""
    [part] = module.parts(model.config)
    role, name = part.split(".", 1)
    state = {
        key: value.clone()
        for key, value in model.role(role)[name].state_dict().items()
        if key.startswith(module.inside)
    }
    table = module.correspondence(model.config, part)
    found = {key: table.foreign(key) for key in state if table.why_fresh(key) is None}
    names = dict.fromkeys(pair[0] for pair in found.values() if pair is not None)
    return {module.prefix + n: table.to_foreign(n, state).contiguous() for n in names}


def write(path: Path, state: dict[str, Tensor], **more: Any) -> Path:
    """Write tensors as the ending of the name says; `more` lies beside them in a torch file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, **more} if more else state, path)
    return path
