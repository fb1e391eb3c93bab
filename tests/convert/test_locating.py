from __future__ import annotations

import json
import sys
import types
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from codi.config import ConfigError
from codi.convert.locating import open_source, weights_among

DIFFUSERS = """
    model_index.json v1-5-pruned.ckpt v1-5-pruned.safetensors
    unet/config.json unet/diffusion_pytorch_model.bin unet/diffusion_pytorch_model.safetensors
    unet/diffusion_pytorch_model.fp16.safetensors unet/diffusion_pytorch_model.non_ema.safetensors
    vae/diffusion_pytorch_model.bin vae/config.json
    text_encoder/model.fp16.safetensors text_encoder/pytorch_model.fp16.bin
    scheduler/scheduler_config.json flax/deep/model.safetensors
"""


def _chosen(text: str, folders: list[str] | None = None) -> list[str]:
    return [str(path) for path in weights_among(map(PurePosixPath, text.split()), folders)]


def test_of_variants_one_is_read_and_safetensors_first() -> None:
    assert _chosen(DIFFUSERS, ["unet", "vae", "text_encoder", "scheduler"]) == [
        "text_encoder/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.bin",
    ]


def test_released_files_beside_each_other_are_all_read() -> None:
    files = "CoDi_encoders.pth CoDi_text_diffuser.pth readme.md CoDi_text_diffuser.safetensors"
    assert _chosen(files) == ["CoDi_encoders.pth", "CoDi_text_diffuser.safetensors"]


def test_pieces_are_read_through_their_index() -> None:
    files = "model-00001-of-00002.safetensors model-00002-of-00002.safetensors"
    assert _chosen(f"{files} model.safetensors.index.json config.json") == [
        "model.safetensors.index.json"
    ]


@pytest.mark.parametrize(
    ("piece", "index"),
    [
        ("model.fp16-{}-of-00002.safetensors", "model.safetensors.index.fp16.json"),
        ("model-{}-of-00002.fp16.safetensors", "model.safetensors.index.fp16.json"),
    ],
)
def test_pieces_of_a_variant_have_an_index_of_its_name(
    piece: str, index: str, tmp_path: Path
) -> None:
    table = {}
    for i, name in enumerate(("a", "b")):
        table[name] = piece.format(f"{i + 1:05d}")
        save_file({name: torch.zeros(1)}, tmp_path / table[name])
    with pytest.raises(ConfigError, match=r"model.*-00001-of-00002.*: is a piece of weights, and"):
        open_source(str(tmp_path))
    (tmp_path / index).write_text(json.dumps({"weight_map": table}))
    [checkpoint] = open_source(str(tmp_path))
    assert set(checkpoint.stored) == {"a", "b"}
    save_file({"c": torch.zeros(1)}, tmp_path / "model.safetensors")  # not a variant
    [checkpoint] = open_source(str(tmp_path))
    assert set(checkpoint.stored) == {"c"}


def test_a_pipelines_index_says_which_folders_count(tmp_path: Path) -> None:
    for folder in ("unet", "other"):
        (tmp_path / folder).mkdir()
        save_file({folder: torch.zeros(1)}, tmp_path / folder / "model.safetensors")
    assert len(open_source(str(tmp_path))) == 2
    (tmp_path / "model_index.json").write_text(
        '{"_class_name": "X", "unet": ["diffusers", "U"], "other": [null, null]}'
    )
    [checkpoint] = open_source(str(tmp_path))
    assert list(checkpoint.stored) == ["unet"]


@pytest.mark.parametrize(
    "source",
    ["weights/x.ckpt", "nowhere", "a/b/c", "./a/b", "/a", "here/pipe", "no/pipe/", "~/a/b"],
)
def test_what_is_not_there_is_said_without_asking_the_hub(
    source: str, tmp_cwd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_cwd / "here").mkdir()
    monkeypatch.setattr("codi.convert.locating.fetch", pytest.fail)
    with pytest.raises(ConfigError, match="no such file or folder"):
        open_source(source)


def test_a_folder_without_weights_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no weights"):
        open_source(str(tmp_path))


class _Hub(types.ModuleType):
    """A hub of one folder; `online` says whether there is a network."""

    def __init__(self, folder: Path, online: bool = True, cached: bool = True) -> None:
        super().__init__("huggingface_hub")
        self.folder, self.online, self.cached = folder, online, cached
        self.asked: list[str] = []

    def model_info(self, name: str, timeout: float) -> types.SimpleNamespace:
        """Return what is in the folder; the real one asks once, and within a time."""
        if not self.online:
            raise ConnectionError("no route\nto host")
        files = sorted(path.relative_to(self.folder) for path in self.folder.rglob("*"))
        siblings = [types.SimpleNamespace(rfilename=path.as_posix()) for path in files]
        return types.SimpleNamespace(siblings=siblings)

    def snapshot_download(
        self, name: str, *, local_files_only: bool = False, allow_patterns: Any = ()
    ) -> str:
        if local_files_only and not self.cached:
            raise FileNotFoundError("not cached")
        self.asked = list(allow_patterns)
        return str(self.folder)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    return tmp_path


def test_a_hub_name_fetches_what_is_read_and_no_more(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = _Hub(repository)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    [checkpoint] = open_source("owner/name")
    assert checkpoint.path == repository / "model.safetensors"
    assert "model.safetensors" in hub.asked
    assert "pytorch_model.bin" not in hub.asked


def test_without_a_network_the_cache_is_used_or_the_error_says_what_to_give(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", _Hub(repository, online=False))
    assert len(open_source("owner/name")) == 1
    monkeypatch.setitem(sys.modules, "huggingface_hub", _Hub(repository, False, False))
    with pytest.raises(ConfigError, match=r"'owner/name' \(no route\); give a folder") as caught:
        open_source("owner/name")
    assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"pip install 'codi\[external\]'"):
        open_source("owner/name")
