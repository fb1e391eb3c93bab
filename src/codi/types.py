"""Names shared by every layer of `codi`.

Axis letters, the same everywhere: B batch, C channel, F frame, H W space, M mel bin, S waveform
sample, L token, K environment slot, D width, N packed latent, T number of diffusion steps, t one
integer step (0 is clean data, T is noise).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

Latents = dict[str, Tensor]
"""One latent (B, ...) for each modality name."""

Media = Any
"""What a codec or a prompt encoder takes: a tensor (B, ...), or a list of B strings for text."""

TimeAxis = Literal["frame", "height", "none"]
"""Which axis of a latent is time: frames of a clip, rows of a spectrogram, or none."""

Shares = Mapping[str, tuple[str, ...]]
"""What a part's parameters are counted by beside their sum: globs over their names. "a/b" is some
of "a"; of the others, no two count the same parameter."""
