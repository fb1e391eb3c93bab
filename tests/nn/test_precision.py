"""Weights in fewer bits than they are computed in: the numbers are those of wide weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, embedding, linear

from codi.nn.precision import (
    HeldParameter,
    computes_bfloat16,
    cpu_compute_dtype,
    held,
    is_fast_on_cpu,
)

HALF = (torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", HALF)
def test_every_operation_reads_a_wide_copy(dtype: torch.dtype) -> None:
    stored = torch.randn(6, 4).to(dtype)
    weight, wide = held(stored, dtype, torch.float32), stored.float()
    x = torch.randn(3, 4)
    assert isinstance(weight, HeldParameter)
    assert torch.equal(linear(x, weight), linear(x, wide))
    assert torch.equal(x @ weight.T, x @ wide.T)
    assert torch.equal(torch.cat([weight, weight]), torch.cat([wide, wide]))
    assert torch.equal(weight[1:3], wide[1:3])
    assert torch.equal(2 * weight + 1, 2 * wide + 1)
    ids = torch.tensor([[0, 5], [2, 2]])
    assert torch.equal(embedding(ids, weight), embedding(ids, wide))
    kernel = held(stored.view(6, 4, 1, 1), dtype, torch.float32)
    picture = torch.randn(1, 4, 3, 3)
    assert torch.equal(conv2d(picture, kernel), conv2d(picture, wide.view(6, 4, 1, 1)))


def test_a_held_parameter_shares_the_memory_it_is_given() -> None:
    stored = torch.randn(6, 4).bfloat16()
    layer = nn.Linear(4, 6)
    layer.load_state_dict(
        {"weight": held(stored, torch.bfloat16, torch.float32), "bias": torch.zeros(6)}, assign=True
    )
    assert isinstance(layer.weight, HeldParameter)
    assert layer.weight.data_ptr() == stored.data_ptr()
    assert layer.weight.element_size() == 2
    assert layer.weight.dtype == torch.float32  # what it is to those who ask
    assert layer(torch.ones(1, 4)).dtype == torch.float32


def test_what_is_stored_in_as_few_bits_is_not_converted() -> None:
    stored = torch.randn(6, 4).half()
    for compute in (torch.float32, torch.bfloat16):
        weight = held(stored, torch.bfloat16, compute)
        same = weight.data_ptr() == stored.data_ptr()
        assert same == (compute != torch.bfloat16)
        assert torch.equal(weight + 0, stored.to(compute))
    assert held(stored, torch.float16, torch.bfloat16).data_ptr() == stored.data_ptr()


def test_wide_files_are_rounded_to_what_is_asked_for() -> None:
    for stored in (torch.randn(6, 4), torch.randn(6)):
        weight = held(stored, torch.bfloat16, torch.float32)
        assert torch.equal(weight + 0, stored.bfloat16().float())


def test_without_a_compute_type_of_its_own_nothing_is_special() -> None:
    weight = held(torch.randn(6, 4).half(), torch.float32, torch.float32)
    assert type(weight) is torch.Tensor
    assert weight.dtype == torch.float32


def test_a_cpu_never_computes_in_float16() -> None:
    chosen = torch.bfloat16 if is_fast_on_cpu(torch.bfloat16) else torch.float32
    assert is_fast_on_cpu(torch.float32)
    assert [cpu_compute_dtype(dtype) for dtype in HALF] == [chosen, chosen]
    assert cpu_compute_dtype(torch.float32) == torch.float32


def test_training_computes_in_bfloat16_where_there_are_units(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert computes_bfloat16("cuda")
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False, raising=False)
    assert not computes_bfloat16("cpu")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert computes_bfloat16("cpu")
