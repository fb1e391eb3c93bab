"""Environment encoders V_m: what a stream is doing at z_t, for the streams beside it (CoDi, 3.4).

All V_m share the number of slots K, the width E and one clock: slot k describes the k-th interval
of the clip. A stream without time says the same in every slot. They know no prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, normalize, silu

from codi.nn.conv import ResBlock, conv, group_norm
from codi.nn.embedding import StepEmbedding
from codi.types import TimeAxis


@dataclass(frozen=True)
class EnvironmentEncoderConfig:
    """Shape of V_m.

    Attributes:
        latent_channels: C of the latent; `vector` latents (B, D) are D channels of one position.
        widths: channels of the convolutional stages; each after the first halves the picture.
        slots, environment_width: K and E. K = 1 is the pooled vector of the paper.
        grid: height and width to which space is pooled (for a spectrogram, only its mel axis).
        time_axis: which axis is time, as for the UNet.
        projection: width of the space in which environments are contrasted in training.
    """

    latent_channels: int
    slots: int
    environment_width: int
    widths: tuple[int, ...] = (32, 64)
    grid: int = 4
    time_axis: TimeAxis = "none"
    vector: bool = False
    time_kernel: int = 3
    groups: int = 8
    projection: int = 64

    def build(self) -> EnvironmentEncoder:
        """Return the encoder with fresh weights."""
        return EnvironmentEncoder(self)


class EnvironmentEncoder(nn.Module):
    """Project z_t (B, C, F, H, W), or (B, D), and t (B,) to an environment (B, K, E)."""

    def __init__(self, config: EnvironmentEncoderConfig) -> None:
        super().__init__()
        c = self.config = config
        step_width = 2 * c.widths[0]
        self.step_embedding = StepEmbedding(c.widths[0], step_width)
        kernel = (1, 1) if c.vector else (3, 3)
        self.conv_in = conv(c.latent_channels, c.widths[0], kernel)
        self.blocks = nn.ModuleList()
        self.downsample = nn.ModuleList()
        now = c.widths[0]
        for width in c.widths:
            self.blocks.append(ResBlock(now, width, step_width, kernel, c.groups))
            now = width
        for width in c.widths[:-1]:
            stride = 1 if c.vector else 2
            self.downsample.append(conv(width, width, kernel, stride=stride))
        positions = 1 if c.vector else c.grid if c.time_axis == "height" else c.grid**2
        self.to_width = nn.Linear(now * positions, c.environment_width)
        self.over_time = nn.ModuleList(
            nn.Conv1d(c.environment_width, c.environment_width, c.time_kernel, padding="same")
            for _ in range(2)
        )
        self.norm_time = nn.ModuleList(group_norm(c.environment_width, c.groups) for _ in range(2))
        self.norm = nn.LayerNorm(c.environment_width)
        self.projection = nn.Linear(c.environment_width, c.projection)

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the environment (B, K, E)."""
        c = self.config
        clip = z_t[:, :, None, None, None] if c.vector else z_t
        frames = clip.shape[2]
        step = self.step_embedding(t).repeat_interleave(frames, dim=0)
        x = self.conv_in(clip.transpose(1, 2).flatten(0, 1))  # (B * F, C, H, W)
        for level, block in enumerate(self.blocks):
            x = block(x, step)
            if level < len(self.downsample):
                x = self.downsample[level](x)
        x = self.to_width(self._along_time(x, frames)).transpose(1, 2)  # (B, E, n)
        for conv_time, norm in zip(self.over_time, self.norm_time, strict=True):
            x = x + conv_time(silu(norm(x)))
        if x.shape[2] == 1:
            x = x.expand(-1, -1, c.slots)
        elif x.shape[2] != c.slots:
            x = adaptive_avg_pool1d(x, c.slots)
        return self.norm(x.transpose(1, 2))

    def project(self, environment: Tensor) -> Tensor:
        """Return unit vectors (B, P) of environments (B, K, E), for the contrastive term alone.

        Slots are averaged first: contrasting the attended slots themselves with those of a stream
        without time would teach them to forget time.
        """
        return normalize(self.projection(environment.mean(1)).float(), dim=-1)

    def _along_time(self, x: Tensor, frames: int) -> Tensor:
        """Return a sequence (B, n, features): n instants, or one where there is no time."""
        c = self.config
        if c.time_axis == "height":
            pooled = nn.functional.adaptive_avg_pool2d(x, (x.shape[2], c.grid))
            return pooled.permute(0, 2, 1, 3).flatten(2)
        if not c.vector:
            x = nn.functional.adaptive_avg_pool2d(x, c.grid)
        return x.flatten(1).unflatten(0, (-1, frames))
