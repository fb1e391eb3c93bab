"""Environment encoders V_m: what a stream is doing at z_t, for the streams beside it (CoDi, 3.4).

All V_m share the number of slots K, the width E and one clock: slot k describes the k-th interval
of the clip. A stream without time says the same in every slot. They know no prompt. The released
CoDi's has one slot and shares its diffuser's step embedding: `PooledEnvironmentEncoder`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool1d, normalize, silu

from codi.nn.conv import Dense, Downsample, ResBlock, conv, group_norm
from codi.nn.embedding import StepEmbedding
from codi.nn.residual import ResidualConfig, ResidualInTime
from codi.nn.temporal import TemporalConfig
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
        step = self.step_embedding(t)
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

    def project_slots(self, environment: Tensor) -> Tensor:
        """Return a unit vector (B, K, P) of every slot, to contrast streams instant by instant."""
        return normalize(self.projection(environment).float(), dim=-1)

    def tells_time(self, z_t: Tensor) -> bool:
        """Say whether the slots of this latent differ: a clip's do, a single picture's do not."""
        instants = {"frame": 2, "height": 3}.get(self.config.time_axis)
        return self.config.slots > 1 and instants is not None and z_t.shape[instants] > 1

    def _along_time(self, x: Tensor, frames: int) -> Tensor:
        """Return a sequence (B, n, features): n instants, or one where there is no time."""
        c = self.config
        if c.time_axis == "height":
            pooled = nn.functional.adaptive_avg_pool2d(x, (x.shape[2], c.grid))
            return pooled.permute(0, 2, 1, 3).flatten(2)
        if not c.vector:
            x = nn.functional.adaptive_avg_pool2d(x, c.grid)
        return x.flatten(1).unflatten(0, (-1, frames))


@dataclass(frozen=True)
class PooledEnvironmentConfig:
    """Shape of the released CoDi's V_m (`connecters_out`): the way down of a small UNet, pooled.

    Attributes:
        latent_channels: C of the latent; with `positions` it is a vector (B, C), laid out on them.
        environment_width: E; there is one slot.
        channels: of the diffuser's first level, whose step embedding is 4 times as wide; the
            encoder begins with half of them.
        multipliers, depth: levels and residual blocks per level, as of a UNet.
        groups, group_channels, positions, temporal, duration_s: as of a UNet.
    """

    latent_channels: int
    environment_width: int
    channels: int
    multipliers: tuple[int, ...] = (1, 2, 4)
    depth: int | tuple[int, ...] = 1
    groups: int = 32
    group_channels: int = 2
    positions: int | None = None
    temporal: TemporalConfig | None = None
    duration_s: float = 2.0

    def __post_init__(self) -> None:
        """Check that every level has its blocks.

        Raises:
            ValueError: for a depth that names other levels than the multipliers.
        """
        if len(self.depths) != len(self.multipliers):
            raise ValueError(
                f"depth names {len(self.depths)} levels and multipliers {len(self.multipliers)}; "
                "give one entry for each level"
            )

    @property
    def slots(self) -> int:
        """Return K."""
        return 1

    @property
    def shares_step(self) -> bool:
        """Return that the diffuser's step embedding is needed: it is stored there, not here."""
        return True

    @property
    def depths(self) -> tuple[int, ...]:
        """Return the residual blocks of each level."""
        return (self.depth,) * len(self.multipliers) if isinstance(self.depth, int) else self.depth

    def build(self) -> PooledEnvironmentEncoder:
        """Return the encoder with fresh weights."""
        return PooledEnvironmentEncoder(self)


class PooledEnvironmentEncoder(nn.Module):
    """Project z_t and its diffuser's step embedding to a unit vector, (B, 1, E)."""

    def __init__(self, config: PooledEnvironmentConfig) -> None:
        super().__init__()
        c = self.config = config
        self.shares_step = c.shares_step
        shared = ResidualConfig(
            step_width=4 * c.channels,
            heads=None,
            head_channels=None,
            duration_s=c.duration_s,
            kernel=(3, 3),
            groups=c.groups,
            group_channels=c.group_channels,
            positions=c.positions,
            temporal=c.temporal,
        )
        now = c.channels // 2
        self.conv_in = self._layer(c.latent_channels, now, 1)
        self.blocks = nn.ModuleList()
        self.downsample = nn.ModuleList()
        for level, (multiplier, depth) in enumerate(zip(c.multipliers, c.depths, strict=True)):
            blocks = nn.ModuleList()
            for _ in range(depth):
                blocks.append(ResidualInTime(now, multiplier * c.channels, shared))
                now = multiplier * c.channels
            self.blocks.append(blocks)
            if level < len(c.multipliers) - 1:
                down = self._layer(now, now, c.positions) if c.positions else Downsample(now)
                self.downsample.append(down)
        self.norm_out = group_norm(now, c.groups, group_channels=c.group_channels)
        self.conv_out = self._layer(now, c.environment_width, c.positions, into=1)

    def _layer(
        self, source: int, target: int, positions: int | None, into: int | None = None
    ) -> nn.Module:
        """Return a convolution, or a linear layer from `positions` to `into` (all) positions."""
        own = self.config.positions
        return Dense(source, target, positions or 1, into or own) if own else conv(source, target)

    def forward(self, z_t: Tensor, t: Tensor, step: Tensor) -> Tensor:  # noqa: ARG002 - as V_m
        """Return the environment (B, 1, E).

        Args:
            z_t: noisy latents (B, C, F, H, W), or (B, C).
            t: integer steps (B,), which `step` already says.
            step: the diffuser's embedding (B, D) of the steps.
        """
        clip = z_t[:, :, None, None, None] if self.config.positions else z_t
        frames = clip.shape[2]
        x = self.conv_in(clip.transpose(1, 2).flatten(0, 1))  # (B * F, C, H, W)
        for level, blocks in enumerate(self.blocks):
            for block in blocks:  # type: ignore[attr-defined]
                x = block.over_frames(x, step, frames)
            if level < len(self.downsample):
                x = self.downsample[level](x)
        x = self.conv_out(silu(self.norm_out(x))).unflatten(0, (-1, frames))
        return normalize(x.mean((1, 3, 4)), dim=-1)[:, None]

    def project(self, environment: Tensor) -> Tensor:
        """Return the unit vectors (B, E) of environments (B, 1, E), for the contrastive term."""
        return normalize(environment.mean(1).float(), dim=-1)

    def tells_time(self, z_t: Tensor) -> bool:
        """Say that one slot tells no time."""
        del z_t
        return False
