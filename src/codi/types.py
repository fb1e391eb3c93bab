"""Names shared by every layer of `codi`.

Axis letters, the same everywhere: B batch, C channel, F frame, H W space, M mel bin, S waveform
sample, L token, K environment slot, D width, N packed latent, T number of diffusion steps, t one
integer step (0 is clean data, T is noise).
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

Latents = dict[str, Tensor]
"""One latent (B, ...) for each modality name."""

Media = Any
"""What a codec or a prompt encoder takes: a tensor (B, ...), or a list of B strings for text."""

TimeAxis = Literal["frame", "height", "none"]
"""Which axis of a latent is time: frames of a clip, rows of a spectrogram, or none."""
