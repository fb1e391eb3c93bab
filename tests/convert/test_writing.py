from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from codi.config import ConfigError
from codi.convert.reading import DTYPES
from codi.convert.writing import Slot, TensorFile, is_written_here, total_bytes

SHAPES = st.lists(st.integers(0, 3), max_size=3)
KINDS = st.sampled_from([dtype for dtype in DTYPES.values() if dtype.itemsize > 1])
TENSORS = st.tuples(SHAPES, KINDS).map(lambda pair: torch.full(pair[0], 1.5).to(pair[1]))


@given(
    state=st.dictionaries(st.text('abc.é"', min_size=1, max_size=6), TENSORS, max_size=5),
    seed=st.integers(0, 99),
)
def test_what_is_written_in_any_order_is_read_by_others(
    tmp_path_factory: pytest.TempPathFactory, state: dict[str, Tensor], seed: int
) -> None:
    path = tmp_path_factory.mktemp("x") / "x.safetensors"
    slots = {name: Slot(tuple(t.shape), t.dtype) for name, t in state.items()}
    with TensorFile(path, slots) as file:
        for name in random.Random(seed).sample(list(state), len(state)):
            file.write(name, state[name])
    read = load_file(path)
    assert read.keys() == state.keys()
    assert all(torch.equal(read[n], t) and read[n].dtype == t.dtype for n, t in state.items())
    assert total_bytes(slots.values()) == sum(t.nbytes for t in state.values())


def test_a_place_left_empty_and_a_tensor_of_another_shape_are_errors(tmp_path: Path) -> None:
    slots = {"a": Slot((2,), torch.float32)}
    file = TensorFile(tmp_path / "x", slots)
    with pytest.raises(ConfigError, match=r"\(3,\), and its place"):
        file.write("a", torch.zeros(3))
    with pytest.raises(ConfigError, match="float16"):
        file.write("a", torch.zeros(2, dtype=torch.float16))
    with pytest.raises(ConfigError, match="a was not written"), file:
        pass


def test_a_file_that_cannot_be_opened_may_hold_what_was_trained(tmp_path: Path) -> None:
    with TensorFile(tmp_path / "ours", {"a": Slot((1,), torch.float32)}) as file:
        file.write("a", torch.zeros(1))
    save_file({"a": torch.zeros(1)}, tmp_path / "trained")
    (tmp_path / "cut").write_bytes((tmp_path / "ours").read_bytes()[:20])
    assert is_written_here(tmp_path / "ours")
    assert is_written_here(tmp_path / "cut")  # nobody can use it
    assert not is_written_here(tmp_path / "trained")
    (tmp_path / "folder").mkdir()
    assert not is_written_here(tmp_path / "folder")
