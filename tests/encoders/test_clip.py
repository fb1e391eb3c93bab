"""CLIP as prompt encoder: the library's own numbers, our contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from codi.config import ConfigError
from codi.encoders.clip import ClipText, ClipTextConfig, ClipVision, ClipVisionConfig
from codi.encoders.clip_temporal import ClipTemporalBlock
from codi.encoders.published import load_published_config
from tests.small import SENTENCE, awake

pytest.importorskip("transformers", reason="needs codi[external]")

WORDS = ("red", "ball")


def _symbols() -> list[str]:
    """Return the letters of CLIP's byte-level alphabet that these tests use."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    return letters + [f"{letter}</w>" for letter in letters]


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the files of a tiny tokenizer of CLIP's kind."""
    folder = tmp_path_factory.mktemp("tokenizer")
    merges = ["r e", "re d</w>", "b a", "l l</w>", "ba ll</w>"]
    vocabulary = _symbols() + [merge.replace(" ", "") for merge in merges]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return folder


def _text_config(folder: Path, **changes: Any) -> ClipTextConfig:
    sizes: dict[str, Any] = {"vocabulary": len(_symbols()) + 7, "length": 12, "width": 32}
    sizes |= {"heads": 2, "layers": 2, "context_width": 24, "tokenizer": str(folder)}
    return ClipTextConfig(**(sizes | changes))


def _vision_config(**changes: Any) -> ClipVisionConfig:
    sizes: dict[str, Any] = {"size_px": 32, "patch": 8, "width": 32, "heads": 2, "layers": 2}
    return ClipVisionConfig(**(sizes | {"context_width": 24, "frames": 4} | changes))


@pytest.fixture(scope="module")
def text(tokenizer_folder: Path) -> ClipText:
    torch.manual_seed(0)
    return _text_config(tokenizer_folder).build().eval()


def _published(text: ClipText, vision: ClipVision) -> Any:
    """Return the library's whole CLIP with the weights of two of our encoders."""
    from transformers import CLIPConfig, CLIPModel

    whole = CLIPModel(
        CLIPConfig(
            text_config=text.tower.config.to_dict(),
            vision_config=vision.tower.config.to_dict(),
            projection_dim=24,
        )
    )
    for ours, theirs in (
        (text.tower, whole.text_model),
        (text.to_embedding, whole.text_projection),
        (vision.tower, whole.vision_model),
        (vision.to_embedding, whole.visual_projection),
    ):
        theirs.load_state_dict(ours.state_dict())
    return whole.eval()


@pytest.fixture(scope="module")
def folder(
    text: ClipText, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Write a published CLIP: weights, configuration and tokenizer."""
    folder = tmp_path_factory.mktemp("clip")
    _published(text, _vision_config().build()).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_bytes((tokenizer_folder / name).read_bytes())
    return folder


@torch.no_grad()
def test_sentences_have_the_librarys_features(text: ClipText, tokenizer_folder: Path) -> None:
    from transformers import CLIPTokenizer

    whole = _published(text, _vision_config().build())
    sentences = [SENTENCE, "", "red ball"]
    tokens = CLIPTokenizer.from_pretrained(tokenizer_folder)(
        sentences, padding="max_length", truncation=True, max_length=12, return_tensors="pt"
    )
    expected = whole.get_text_features(**tokens).pooler_output
    torch.testing.assert_close(
        text.embed(sentences), torch.nn.functional.normalize(expected), atol=1e-5, rtol=1e-5
    )


def test_what_is_cut_off_a_sentence_is_told(text: ClipText) -> None:
    assert text.unread(["red ball"]) == []
    [line] = text.unread(["red ball " * 40])
    assert line.startswith(f"the first {text.config.length - 2} of ")


@torch.no_grad()
def test_pictures_have_the_librarys_features(text: ClipText) -> None:
    vision = _vision_config().build().eval()
    x = torch.rand(3, 3, 1, 32, 32) * 2 - 1
    expected = _published(text, vision).get_image_features(vision.pictures(x[:, :, 0]))
    torch.testing.assert_close(
        vision.embed(x),
        torch.nn.functional.normalize(expected.pooler_output),
        atol=1e-5,
        rtol=1e-5,
    )


# --- the states of all tokens ---


@pytest.fixture(scope="module")
def reader(tokenizer_folder: Path) -> ClipText:
    torch.manual_seed(0)
    changes = {"sequence": True, "unit_context": True, "context_width": 32}
    return _text_config(tokenizer_folder, **changes).build().eval()


@torch.no_grad()
def test_a_sequence_is_the_librarys_last_states(reader: ClipText, tokenizer_folder: Path) -> None:
    from transformers import CLIPTokenizer

    sentences = [SENTENCE, "", "red ball"]
    tokens = CLIPTokenizer.from_pretrained(tokenizer_folder)(
        sentences, padding="max_length", truncation=True, max_length=12, return_tensors="pt"
    )
    expected = reader.tower(input_ids=tokens["input_ids"]).last_hidden_state
    torch.testing.assert_close(reader(sentences), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_sequence_is_as_long_for_every_sentence(reader: ClipText) -> None:
    for sentence in ("", "red", SENTENCE * 9):
        assert reader([sentence]).shape == (1, reader.config.context_tokens, 32) == (1, 12, 32)


@torch.no_grad()
def test_no_prompt_is_the_empty_sentence(reader: ClipText) -> None:
    torch.testing.assert_close(reader.unprompted(["red", "ball"]), reader(["", ""]))


@torch.no_grad()
def test_the_embedding_beside_a_sequence_is_the_projected_end(reader: ClipText) -> None:
    states, tokens = reader(["red ball"]), reader.tokens(["red ball"])
    end = int(tokens[0].argmax())
    expected = torch.nn.functional.normalize(reader.to_embedding(states[:, end]))
    torch.testing.assert_close(reader.embed(["red ball"]), expected)


@torch.no_grad()
def test_without_a_projection_there_is_a_context_and_no_embedding(
    reader: ClipText, tokenizer_folder: Path
) -> None:
    changes = {"sequence": True, "unit_context": True, "context_width": 32, "projection": False}
    bare = _text_config(tokenizer_folder, **changes).build().eval()
    assert not any(name.startswith("to_embedding") for name in bare.state_dict())
    bare.tower.load_state_dict(reader.tower.state_dict())
    assert torch.equal(bare(["red ball"]), reader(["red ball"]))
    with pytest.raises(ConfigError, match=r"projection = false.*no embedding to align or compare"):
        bare.embed(["red ball"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"projection": False}, "set sequence = true"),
        ({"sequence": True}, "set unit_context = true"),
        ({"sequence": True, "unit_context": True}, "as wide as the tower, 32, and context_width"),
    ],
)
def test_switches_that_contradict_each_other_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        _text_config(tmp_path, **changes)


def test_pictures_are_prepared_as_the_library_does() -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    vision = _vision_config().build()
    smooth = np.linspace(0, 255, 96 * 96 * 3).reshape(96, 96, 3).astype(np.uint8)
    x = torch.from_numpy(smooth).permute(2, 0, 1)[None].float() / 127.5 - 1.0
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=32)
    expected = processor(Image.fromarray(smooth), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(vision.pictures(x), expected, atol=0.03, rtol=0)


@pytest.mark.parametrize("frames", [1, 3])
@torch.no_grad()
def test_a_context_is_one_token(frames: int) -> None:
    vision = _vision_config(temporal_layers=1).build().eval()
    assert vision(torch.rand(2, 3, frames, 40, 40) * 2 - 1).shape == (2, 1, 24)


@torch.no_grad()
def test_an_untrained_video_encoder_is_the_mean_over_frames() -> None:
    vision = _vision_config(temporal_layers=2).build().eval()
    clip = torch.rand(2, 3, 4, 32, 32) * 2 - 1
    frames = torch.stack([vision.features(clip[:, :, i : i + 1]) for i in range(4)])
    torch.testing.assert_close(vision.features(clip), frames.mean(0), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_trained_video_encoder_hears_of_the_order_of_frames() -> None:
    vision = _vision_config(temporal_layers=1).build().eval()
    awake(vision)
    clip = torch.rand(1, 3, 4, 32, 32) * 2 - 1
    assert not torch.allclose(vision.features(clip), vision.features(clip.flip(2)), atol=1e-3)


@torch.no_grad()
def test_fresh_temporal_blocks_change_no_frame() -> None:
    vision = _vision_config(temporal_blocks=True, keeps_unused=True).build().eval()
    still = (torch.rand(2, 3, 1, 32, 32) * 2 - 1).expand(-1, -1, 4, -1, -1)
    torch.testing.assert_close(
        vision.features(still), vision.features(still[:, :, :1]), atol=1e-5, rtol=1e-4
    )


@torch.no_grad()
def test_temporal_blocks_see_clips_and_leave_pictures_alone() -> None:
    vision = _vision_config(temporal_blocks=True).build().eval()
    clip = torch.rand(1, 3, 4, 32, 32) * 2 - 1
    picture = vision.features(clip[:, :, :1])
    for block in vision.blocks:
        torch.nn.init.normal_(block.get_parameter("to_out.weight"))
    assert torch.equal(vision.features(clip[:, :, :1]), picture)
    assert not torch.allclose(vision.features(clip), vision.features(clip.flip(2)), atol=1e-3)


@torch.no_grad()
def test_a_clip_of_one_frame_is_a_still_one_where_it_is_said_to_be_a_clip() -> None:
    """Nothing changes over time in either, so that attention adds nothing, and the rest does."""
    vision = _vision_config(temporal_blocks=True).build().eval()
    for block in vision.blocks:
        for name in ("to_out.weight", "from_hidden.weight"):
            torch.nn.init.normal_(block.get_parameter(name))
    one = vision.pictures(torch.rand(2, 3, 32, 32) * 2 - 1)
    clip = vision.look(one, 1, clips=True)
    still = vision.look(one.repeat_interleave(4, dim=0), 4)
    torch.testing.assert_close(clip, still, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(clip, vision.look(one, 1), atol=1e-2)


@torch.no_grad()
def test_frames_of_a_clip_are_normalised_over_time() -> None:
    norm = ClipTemporalBlock(6, heads=2).norm
    x = 3.0 * torch.randn(2, 7, 5, 6) + 4.0
    assert torch.allclose(norm(x).mean(-2), torch.zeros(2, 7, 6), atol=1e-5)
    assert torch.allclose(norm(x).var(-2, correction=0), torch.ones(2, 7, 6), atol=1e-4)
    still = torch.randn(2, 7, 1, 6).expand(-1, -1, 5, -1)
    assert torch.allclose(norm(still), torch.zeros_like(still), atol=1e-4)


def test_there_is_one_way_to_see_a_clip() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        _vision_config(temporal_blocks=True, temporal_layers=1)


def test_a_clip_of_too_many_frames_is_an_error() -> None:
    vision = _vision_config(temporal_layers=1).build()
    with pytest.raises(ConfigError, match="5 frames; this encoder looks across 4"):
        vision.features(torch.zeros(1, 3, 5, 32, 32))


@torch.no_grad()
def test_published_weights_are_loaded_from_a_folder(folder: Path, text: ClipText) -> None:
    loaded = _text_config(folder, tokenizer="", pretrained=str(folder)).build().eval()
    torch.testing.assert_close(loaded.embed([SENTENCE]), text.embed([SENTENCE]))
    vision = _vision_config(pretrained=str(folder), temporal_layers=1).build()
    assert vision.tower.config.image_size == 32


def test_on_the_meta_device_nothing_is_loaded() -> None:
    with torch.device("meta"):
        vision = _vision_config(pretrained="no/such/folder").build()
    assert all(p.is_meta for p in vision.parameters())


def test_published_weights_of_other_sizes_are_an_error(folder: Path) -> None:
    with pytest.raises(ConfigError, match="has num_hidden_layers = 2, and this preset 3"):
        _vision_config(pretrained=str(folder), layers=3).build()


def test_missing_weights_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot load CLIPTextModelWithProjection from"):
        ClipTextConfig(pretrained=str(tmp_path / "clip")).build()


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [("", "set `tokenizer` to a folder"), ("nowhere", "put CLIP.s vocab.json and merges.txt")],
)
def test_a_missing_tokenizer_is_one_clear_error(
    tokenizer: str, message: str, tmp_path: Path
) -> None:
    where = str(tmp_path / tokenizer) if tokenizer else ""
    encoder = _text_config(tmp_path, tokenizer=where).build()
    with pytest.raises(ConfigError, match=message):
        encoder([SENTENCE])


@pytest.mark.parametrize("where", ["my/text/encoder-tokenizer", "here/encoder-tokenizer"])
def test_a_relative_folder_is_not_taken_for_a_name_of_the_hub(where: str, tmp_cwd: Path) -> None:
    (tmp_cwd / "here").mkdir()
    encoder = _text_config(tmp_cwd, tokenizer=where).build()
    with pytest.raises(ConfigError, match=f"^{where}: there is no tokenizer; put CLIP's vocab"):
        encoder([SENTENCE])


def test_what_may_be_of_the_hub_is_said_before_it_is_fetched(tmp_cwd: Path) -> None:
    with (
        pytest.warns(UserWarning, match="'weights/clip' is no folder here, so it is taken for a"),
        pytest.raises(ConfigError, match="cannot load CLIPConfig from 'weights/clip'"),
    ):
        load_published_config("CLIPConfig", "weights/clip")
    (tmp_cwd / "weights").mkdir()  # what begins with a folder that is here was meant to be in it
    with pytest.raises(ConfigError, match=r"'weights/clip' \(there is no such folder\); give"):
        load_published_config("CLIPConfig", "weights/clip")


def test_a_tokenizer_of_another_vocabulary_is_an_error(tokenizer_folder: Path) -> None:
    encoder = _text_config(tokenizer_folder, vocabulary=100).build()
    with pytest.raises(ConfigError, match="ends a text with token 58, and a vocabulary of 100"):
        encoder([SENTENCE])


def test_a_missing_library_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'codi\[external\]'"):
        ClipVisionConfig().build()


def test_pictures_are_centred_and_scaled_by_the_configured_numbers() -> None:
    changes: dict[str, Any] = {"pixel_mean": (0.0, 0.5, 1.0), "pixel_deviation": (1.0, 0.5, 0.25)}
    encoder = _vision_config(**changes).build()
    prepared = encoder.pictures(torch.ones(1, 3, 32, 32))[0, :, 0, 0]
    torch.testing.assert_close(prepared, torch.tensor([1.0, 1.0, 0.0]))
    with pytest.raises(ValueError, match="three numbers above 0"):
        _vision_config(pixel_deviation=(1.0, 0.0, 1.0))
