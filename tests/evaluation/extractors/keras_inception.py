"""Inception with weights drawn at random, and what Keras computes with the same ones.

`python -m tests.evaluation.extractors.keras_inception` prints `_TABLE` again, where keras
is installed (`pip install keras`); tests need the table alone.
"""

from __future__ import annotations

import importlib
import math
import os
import re
import sys
from typing import Any

import numpy as np
import torch
from torch import nn

from codi.evaluation.extractors.inception import InceptionNetwork


def drawn_network() -> InceptionNetwork:
    """Return the published network's sizes with weights drawn at random, the same anywhere."""
    rng = np.random.default_rng(0)
    network = InceptionNetwork().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            gain = math.sqrt(2.0 / module.weight[0].numel())
            weight = gain * rng.standard_normal(module.weight.shape, dtype=np.float32)
            module.weight = nn.Parameter(torch.from_numpy(weight))
        elif isinstance(module, nn.BatchNorm2d):
            shift, mean = 0.1 * rng.standard_normal((2, module.num_features), dtype=np.float32)
            module.bias = nn.Parameter(torch.from_numpy(shift))
            module.running_mean = torch.from_numpy(mean)
            module.running_var = torch.from_numpy(
                0.5 + rng.random(module.num_features, dtype=np.float32)
            )
    return network


def picture() -> torch.Tensor:
    rng = np.random.default_rng(1)
    return torch.from_numpy(rng.uniform(-1, 1, (1, 3, 299, 299)).astype(np.float32))


def told(x: Any) -> list[float]:
    """Return a few numbers of a map (1, C, H, W): means of six channels and their borders."""
    channels = [i * x.shape[1] // 7 for i in range(6)]
    return [float(part.mean()) for c in channels for part in (x[0, c], x[0, c, 0])]


_TABLE = """
Mixed_5b 2.0232 1.9485 0.0000 0.0000 0.0001 0.0000 0.2006 1.5255 0.0000 0.0000 0.0032 0.0051
Mixed_5c 2.4634 3.2000 3.8895 3.8180 0.1925 0.8879 1.7636 0.0594 8.3604 2.2960 0.0785 0.0000
Mixed_5d 0.0922 0.0380 1.5887 0.0992 0.0000 0.0000 2.4847 0.1544 5.8204 2.0101 0.0609 0.0000
Mixed_6a 3.3173 4.0966 0.0127 0.1845 1.5032 0.0450 0.0005 0.0000 2.3582 3.3328 1.8649 2.3671
Mixed_6b 0.0000 0.0000 0.0001 0.0000 0.0000 0.0000 0.0504 0.0000 7.1536 3.9969 2.6724 0.0002
Mixed_6c 0.0000 0.0000 0.8450 0.0000 3.1037 3.2952 0.6786 1.2416 5.4937 7.7339 3.1494 0.5946
Mixed_6d 0.0000 0.0000 0.4895 1.8931 8.4971 1.6415 1.0518 0.0000 5.4577 3.3068 3.3353 0.0000
Mixed_6e 2.9582 0.5776 0.9346 0.0815 7.1970 5.6583 0.0001 0.0000 0.2541 0.0000 0.8078 0.0000
Mixed_7a 0.0000 0.0000 6.8673 5.9089 0.2691 0.0000 0.0000 0.0000 9.4755 10.9742 3.7605 4.3751
Mixed_7b 3.9683 5.8967 6.1869 4.8218 0.0496 0.0661 1.6690 0.5073 1.9948 4.0640 1.6609 0.1008
Mixed_7c 0.0018 0.0142 6.0996 4.0064 0.7317 0.2098 0.0000 0.0000 0.9801 0.0354 0.2946 1.4290
"""

KERAS = {
    name: [float(number) for number in numbers]
    for name, *numbers in map(str.split, _TABLE.strip().splitlines())
}
"""What `keras.applications.InceptionV3` (3.15, torch) has of the same picture, by block.

Its last block takes the mean where the published network of FID takes the greatest; what is told of
it comes from the branches before.
"""


def by_keras() -> dict[str, list[float]]:
    """Return the table, computed by Keras."""
    os.environ["KERAS_BACKEND"] = "torch"
    keras: Any = importlib.import_module("keras")
    own = drawn_network()
    other = keras.applications.InceptionV3(
        include_top=False, weights=None, input_shape=(299, 299, 3)
    )

    def in_order(kind: str) -> list[Any]:
        found = [layer for layer in other.layers if type(layer).__name__ == kind]
        return sorted(found, key=lambda layer: int((re.findall(r"_(\d+)$", layer.name) or [0])[0]))

    units: list[Any] = [module for module in own.modules() if hasattr(module, "bn")]
    for conv, norm, unit in zip(
        in_order("Conv2D"), in_order("BatchNormalization"), units, strict=True
    ):
        conv.set_weights([unit.conv.weight.detach().numpy().transpose(2, 3, 1, 0)])
        kept = (unit.bn.bias, unit.bn.running_mean, unit.bn.running_var)
        norm.set_weights([tensor.detach().numpy() for tensor in kept])
    blocks = [name for name, _ in own.named_children() if name.startswith("Mixed")]
    outputs = [other.get_layer(f"mixed{i}").output for i in range(len(blocks))]
    with torch.no_grad():
        maps = keras.Model(other.input, outputs)(picture().permute(0, 2, 3, 1), training=False)
    return {name: told(found.permute(0, 3, 1, 2)) for name, found in zip(blocks, maps, strict=True)}


if __name__ == "__main__":
    for block, numbers in by_keras().items():
        told_here = " ".join(f"{number:.4f}" for number in numbers)
        sys.stdout.write(f"{block} {told_here}\n")
