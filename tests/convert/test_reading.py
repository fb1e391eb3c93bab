"""Files of weights: all forms read the same, and whatever is wrong is one line with the mend."""

from __future__ import annotations

import contextlib
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from codi.config import ConfigError
from codi.convert import reading
from codi.convert.reading import open_checkpoint

STATE = {
    "a.weight": torch.arange(6.0).reshape(2, 3),
    "a.bias": torch.tensor([1.0, 2.0], dtype=torch.float16),
    "steps": torch.tensor(7),
}


def _same(path: Path, state: dict[str, Tensor] = STATE) -> bool:
    stored = open_checkpoint(path).stored
    return stored.keys() == state.keys() and all(
        torch.equal(stored[name].read(), value)
        and stored[name].shape == tuple(value.shape)
        and stored[name].dtype == value.dtype
        for name, value in state.items()
    )


WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda s: s,
    "lightning": lambda s: {"epoch": 3, "global_step": 10, "state_dict": s, "optimizer": [1]},
    "model": lambda s: {"model": s},
    "nested": lambda s: {"model": {"state_dict": s}},
    "vocoder": lambda s: {"generator": s},
    "parallel": lambda s: {f"module.{name}": value for name, value in s.items()},
    "averaged": lambda s: {"state_dict": {n: v * 0 for n, v in s.items()}, "ema": s},
    "averaged alone": lambda s: {"params_ema": s},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_a_torch_file_is_read_however_it_is_wrapped(wrapping: str, tmp_path: Path) -> None:
    torch.save(WRAPPINGS[wrapping](STATE), tmp_path / "x.pth")
    assert _same(tmp_path / "x.pth")
    notes = open_checkpoint(tmp_path / "x.pth").notes
    assert len(notes) == wrapping.startswith("averaged")


def test_the_name_of_a_file_says_nothing(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "x.ckpt")
    torch.save(STATE, tmp_path / "y.weights")
    torch.save(STATE, tmp_path / "z.safetensors", _use_new_zipfile_serialization=False)
    assert all(_same(path) for path in tmp_path.iterdir())
    torch.save(STATE, tmp_path / "w.safetensors")
    _refused(tmp_path / "w.safetensors", "rename it to .pth")


def test_a_header_whose_length_begins_as_a_pickle_does_is_one(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for length in range(200):  # the header's length is a multiple of 8: find one of 0x80
        save_file({"w": torch.ones(2)}, path, {"note": "x" * length})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    assert list(open_checkpoint(path).stored) == ["w"]


@pytest.mark.parametrize("kept", [1, 8, 9, 40, 100])
def test_a_header_that_begins_as_a_pickle_does_and_was_cut_is_truncated(
    kept: int, tmp_path: Path
) -> None:
    path, other = tmp_path / "x.safetensors", tmp_path / "x.ckpt"
    for length in range(200):
        save_file({"w": torch.ones(2)}, path, {"note": "x" * length})
        if path.read_bytes()[0] == 0x80:
            break
    path.write_bytes(path.read_bytes()[:kept])
    assert path.read_bytes()[0] == 0x80
    _refused(path, "damaged or cut short .truncated in its header")
    path.rename(other)
    if kept > 8:  # its structure says it, whatever its name
        _refused(other, "truncated in its header")


def test_pieces_are_one_checkpoint_with_what_lies_beside_them(tmp_path: Path) -> None:
    names = list(STATE)
    for i, name in enumerate(names):
        save_file({name: STATE[name]}, tmp_path / f"model-{i:05d}-of-00003.safetensors")
    table = {name: f"model-{i:05d}-of-00003.safetensors" for i, name in enumerate(names)}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": table}))
    (tmp_path / "config.json").write_text('{"width": 3}')
    assert _same(index)
    assert open_checkpoint(index).about == {"width": 3}
    (tmp_path / table["steps"]).unlink()
    with pytest.raises(ConfigError, match=r"names 'model-00002-of-00003.safetensors', which"):
        open_checkpoint(index)


def test_an_index_leads_nowhere_else(tmp_path: Path) -> None:
    index = tmp_path / "x.bin.index.json"
    index.write_text('{"weight_map": {"a": "../elsewhere.bin"}}')
    with pytest.raises(ConfigError, match="not in its folder"):
        open_checkpoint(index)


class _Malicious:
    """What runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.path)!r}, 'w').close()",))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_file_runs_nothing(zipped: bool, tmp_path: Path) -> None:
    ran, file = tmp_path / "ran", tmp_path / "x.pth"
    content = {"state_dict": STATE, "more": _Malicious(ran)}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ConfigError, match="refused") as caught:
        open_checkpoint(file)
    assert not ran.exists()
    assert str(caught.value).startswith(str(file))
    assert "exec" in str(caught.value)
    assert "\n" not in str(caught.value)
    torch.load(file, weights_only=False)  # it would have run, so the law above says something
    assert ran.exists()


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    """torch would map the compressed bytes as numbers."""
    plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
    torch.save({"weight": torch.zeros(64, 64)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ConfigError, match="in it is compressed"):
        open_checkpoint(packed)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_that_is_no_checkpoint_is_refused_in_one_line(
    protocol: int, tmp_path: Path
) -> None:
    ran, file = tmp_path / "ran", tmp_path / "x.pth"
    file.write_bytes(pickle.dumps(_Malicious(ran), protocol))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(ConfigError, match="refused"):
            open_checkpoint(file)
    assert not warned  # torch speaks of protocols other than 2
    assert not ran.exists()


def test_objects_of_training_libraries_are_read_as_nothing(tmp_path: Path) -> None:
    module = type(pickle)("pytorch_lightning")
    module.Callback = type("Callback", (), {"__module__": "pytorch_lightning"})  # type: ignore[attr-defined]
    module.Callback.__qualname__ = "Callback"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "pytorch_lightning", module)
        callback = module.Callback()
        callback.__dict__["best"] = np.float64(0.5)  # as Stable Diffusion's checkpoints keep it
        torch.save({"state_dict": STATE, "callbacks": {"a": callback}}, tmp_path / "x.ckpt")
    assert _same(tmp_path / "x.ckpt")


WRONG = {
    "empty": (b"", "is empty"),
    "page": (b"\n<!DOCTYPE html><html>not found</html>", "web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "error": (b'{"error": "Repository not found"}', "is JSON"),
    "gguf": (b"GGUF\x03\0\0\0", "GGUF"),
    "noise": (b"\x13\x37" * 500, "neither safetensors nor a torch checkpoint"),
    "pickle": (b"\x80\x02garbage", "damaged or cut short|refused"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_file_of_weights_is_said_in_one_line(kind: str, tmp_path: Path) -> None:
    data, message = WRONG[kind]
    (tmp_path / "x.safetensors").write_bytes(data)
    _refused(tmp_path / "x.safetensors", message)


@pytest.mark.parametrize("ending", ["safetensors", "pth"])
@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_a_file_that_was_cut_is_said_so(ending: str, kept: float, tmp_path: Path) -> None:
    path = tmp_path / f"x.{ending}"
    state = {"a": torch.zeros(3000)}
    save_file(state, path) if ending == "safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    _refused(path, "damaged or cut short")


def test_other_things_in_torch_files_are_said(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    _refused(tmp_path / "list.pth", "holds a list")
    torch.save({"epoch": 1}, tmp_path / "none.pth")
    _refused(tmp_path / "none.pth", "holds no tensors by name, only: epoch")
    with zipfile.ZipFile(tmp_path / "docs.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    _refused(tmp_path / "docs.zip", "zip archive of other things")
    _refused(tmp_path / "nowhere.pth", "cannot be read")
    _refused(tmp_path, "is a folder")


def test_an_old_file_that_is_large_is_not_loaded_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(STATE, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    size = (tmp_path / "x.pth").stat().st_size
    monkeypatch.setattr(reading, "LEGACY_BYTES", size)
    assert _same(tmp_path / "x.pth")
    monkeypatch.setattr(reading, "LEGACY_BYTES", size - 1)
    _refused(tmp_path / "x.pth", r"0\.0 GiB, above 0\.00; save it anew")


def _refused(path: Path, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_checkpoint(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["older", "newer"])
def test_weight_norm_is_undone(form: str, tmp_path: Path) -> None:
    layer = nn.ConvTranspose1d(4, 2, 3)
    if form == "older":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nn.utils.weight_norm(layer)
    else:
        nn.utils.parametrizations.weight_norm(layer)
    state = {f"ups.0.{name}": value for name, value in layer.state_dict().items()}
    with torch.no_grad():
        next(value for name, value in state.items() if "bias" not in name).mul_(3.0)
    torch.save(state, tmp_path / "x.pth")
    stored = open_checkpoint(tmp_path / "x.pth").stored
    assert stored.keys() == {"ups.0.weight", "ups.0.bias"}
    layer(torch.zeros(1, 4, 5))  # the older form makes its weight anew when it is used
    assert torch.allclose(stored["ups.0.weight"].read(), layer.weight, atol=1e-6)


def _itself() -> dict[str, Any]:
    content: dict[str, Any] = {"a": torch.ones(2)}
    content["model"] = {"state_dict": content}
    return content


def test_a_dictionary_may_contain_itself(tmp_path: Path) -> None:
    torch.save(_itself(), tmp_path / "x.pth")
    assert list(open_checkpoint(tmp_path / "x.pth").stored) == ["a"]
    content = _itself()
    del content["a"]
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ConfigError, match="holds no tensors by name, only: model"):
        open_checkpoint(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.ones(1), 7: torch.ones(1)}, "a tensor under the key 7, which is no name"),
        ({"a": torch.eye(3).to_sparse()}, r"a is a sparse tensor; save what its .to_dense\(\)"),
        ({"a": torch.ones(3, device="meta")}, "a has a shape and no numbers"),
    ],
)
def test_tensors_without_a_name_or_numbers_are_said(
    content: dict[Any, Tensor], message: str, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ConfigError, match=message) as caught:
        open_checkpoint(tmp_path / "x.pth")
    assert str(caught.value).startswith(f"{tmp_path / 'x.pth'}: ")


def test_an_archive_with_flipped_bits_is_damaged_and_not_dangerous(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(STATE, path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        pickled = next(archive.read(n) for n in archive.namelist() if n.endswith("/data.pkl"))
    start = whole.index(pickled)
    messages = []
    for at in range(start, start + len(pickled)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x5A]) + whole[at + 1 :])
        with contextlib.suppress(ConfigError):  # what is read the same is not noticed
            open_checkpoint(path)
            continue
        messages.append(_message(path))
    assert len(messages) > len(pickled) / 2
    assert not [message for message in messages if "more than weights" in message]


def _message(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        open_checkpoint(path)
    return str(caught.value)
