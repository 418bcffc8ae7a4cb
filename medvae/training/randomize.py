"""Random augmentation of prepared scans, as MONAI transforms: drawing is apart from acting, every draw has its seed.

Images are `(1, X, Y, Z)` in prepared intensities. Values are shifted by the scan's air level (`floor`) around what
multiplies them: a bias field or a gamma acts on what the scanner measured, not on z-scores around 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.transforms import (
    RandAdjustContrast,
    RandBiasField,
    RandGaussianNoise,
    RandGaussianSmooth,
    Randomizable,
    RandomizableTransform,
)
from torch import Tensor
from torch.nn import functional as F

from medvae.detector.corruption import corrupt
from medvae.detector.noise import coarse_noise

if TYPE_CHECKING:
    from medvae.scan import Shape
    from medvae.settings import RandomizeSettings

_BLUR_REACH = 4  # voxels: 4 σ of the widest blur
_ANOMALIES = ("elsewhere", "shift", "tissue", "cluster")  # those of the detector that change grey values of one scan
_MOST_ANOMALIES = 3


@dataclass(frozen=True, eq=False)
class Example:
    """One training example.

    Attributes:
        input: what the encoder sees, float32 `(1, X, Y, Z)`.
        image: what is to be reconstructed; the same except for corruption.
        mask: bool, foreground.
        label_map: int16 or None.
        record: what was drawn, enough to describe it.
    """

    input: Tensor
    image: Tensor
    mask: Tensor
    label_map: Tensor | None = None
    record: dict[str, Any] = field(default_factory=dict)


class FusedWarp(RandomizableTransform):  # type: ignore[misc]
    """A small affine and a smooth elastic warp in one resampling (MONAI transform).

    The output at y is the input at A⁻¹(y − u(y) − t), about the centre of the grid: the displacement u is taken in
    output space, then the affine. u comes from a coarse control grid whose rim stays still, and is clipped to 0.4 of
    the control spacing, so that the map does not fold. Lengths are mm. What would come from beyond the grid is the
    nearest voxel of its edge: background where there is background, and tissue where a scan is cut off there.
    """

    def __init__(self, settings: RandomizeSettings, spacing: tuple[float, float, float]) -> None:
        super().__init__(prob=settings.spatial)
        self.settings, self.spacing = settings, torch.tensor(spacing)
        self.inverse = torch.eye(3)
        self.shift = torch.zeros(3)
        self.control = torch.zeros(3, settings.control, settings.control, settings.control)
        self.mirror = False

    def randomize(self, data: Any = None) -> None:
        """Draw the parameters from `self.R`."""
        super().randomize(None)
        s = self.settings
        angles = np.radians(self.R.uniform(-s.rotate, s.rotate, 3))
        scales = np.exp(self.R.uniform(-np.log1p(s.scale), np.log1p(s.scale), 3))
        forward = _rotation(angles) @ np.diag(scales)
        self.inverse = torch.from_numpy(np.linalg.inv(forward)).float()
        self.shift = torch.from_numpy(self.R.uniform(-s.shift, s.shift, 3)).float()
        control = np.zeros((3, s.control, s.control, s.control), np.float32)
        control[:, 1:-1, 1:-1, 1:-1] = self.R.normal(0, s.elastic, (3, *(s.control - 2,) * 3))
        self.control = torch.from_numpy(control)
        self.mirror = bool(self.R.uniform() < s.mirror)

    def __call__(self, image: Tensor, mask: Tensor, label_map: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Warp image (linear), mask and label map (nearest) by the same map; all `(1, X, Y, Z)`."""
        self.randomize()
        if not (self._do_transform or self.mirror):
            return image, mask, label_map
        grid = self.sampling_grid(tuple(image.shape[1:]))  # type: ignore[arg-type]
        moved_mask = _nearest(mask, grid)
        inside = moved_mask.flatten().nonzero().flatten()  # what lies outside is background: no need to sample it
        points = grid.view(-1, 3).index_select(0, inside)[None, None, None]
        values = F.grid_sample(image[None], points, padding_mode="border", align_corners=True).flatten()
        moved = _background(image, mask).expand(image.numel()).index_put((inside,), values).view_as(image)
        return moved, moved_mask, None if label_map is None else _nearest(label_map, grid)

    def sampling_grid(self, shape: Shape) -> Tensor:
        """Where to sample, `(1, X, Y, Z, 3)`, in the order and scale of `grid_sample` (last axis first, −1..1).

        All steps are linear in y between control points, so they are made there and the result is interpolated once.
        """
        count = self.settings.control
        half = (torch.tensor(shape, dtype=torch.float64) - 1).clamp(min=1e-6) / 2 * self.spacing
        axes = [torch.linspace(-float(h), float(h), count, dtype=torch.float64) for h in half]
        at = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        if self._do_transform:
            limit = 0.4 * (2 * half / (count - 1))
            at = at - self.control.double().movedim(0, -1).clamp(-limit, limit) - self.shift
            at = at @ self.inverse.double().T
        if self.mirror:
            at = at * torch.tensor([-1.0, 1.0, 1.0])
        at = (at / half).flip(-1).float()
        x, y, z = (_interpolation(n, count) for n in shape)
        fine = torch.einsum("zk,abkc->abzc", z, at)
        fine = torch.einsum("yb,abzc->ayzc", y, fine)
        return (x @ fine.flatten(1)).view(1, *shape, 3)


class EdgeBlur(RandGaussianSmooth):  # type: ignore[misc]
    """Gaussian blur that goes on beyond the edge with the values of the edge; with 0 a crop would get a dark frame."""

    def __call__(self, img: Tensor, randomize: bool = True) -> Tensor:
        """Blur an image `(1, X, Y, Z)`."""
        if randomize:
            self.randomize()
        if not self._do_transform:
            return img
        padded = F.pad(img[None], [_BLUR_REACH] * 6, mode="replicate")[0]
        inside = slice(_BLUR_REACH, -_BLUR_REACH)
        blurred: Tensor = super().__call__(padded, randomize=False)[:, inside, inside, inside]
        return blurred


class Randomize(Randomizable):  # type: ignore[misc]
    """The whole chain on one prepared scan; `set_random_state(seed)` before each call makes it repeatable."""

    def __init__(self, settings: RandomizeSettings, spacing: tuple[float, float, float]) -> None:
        self.settings = settings
        self.warp = FusedWarp(settings, spacing)
        self.gamma = RandAdjustContrast(prob=settings.gamma, gamma=(0.8, 1.25))
        self.bias = RandBiasField(prob=settings.bias, degree=3, coeff_range=(-0.1, 0.1))
        self.blur = EdgeBlur(prob=settings.blur, sigma_x=(0.25, 1.0), sigma_y=(0.25, 1.0), sigma_z=(0.25, 1.0))
        self.noise = RandGaussianNoise(prob=settings.noise, std=0.1)
        self.spacing = spacing
        self.coarse, self.boxes, self.anomalies = (np.random.default_rng() for _ in range(3))

    def set_random_state(self, seed: int | None = None, state: Any = None) -> Randomize:
        """Seed every step with a stream of its own, so that one step's draws never move another's."""
        super().set_random_state(seed, state)
        for step in (self.warp, self.gamma, self.bias, self.blur, self.noise):
            step.set_random_state(int(self.R.randint(2**31 - 1)))
        streams = [np.random.default_rng(int(self.R.randint(2**31 - 1))) for _ in range(3)]
        self.coarse, self.boxes, self.anomalies = streams
        return self

    def __call__(self, image: Tensor, mask: Tensor, *, label_map: Tensor | None = None, floor: float = 0.0) -> Example:
        """Augment one scan.

        Args:
            image: prepared, `(1, X, Y, Z)`.
            mask: bool, the same shape.
            label_map: goes along by nearest neighbour.
            floor: what has to be added so that 0 is "no signal": offset / scale of the intensity map.
        """
        background = _background(image, mask)
        warped, mask, label_map = self.warp(image, mask, label_map)
        measured = warped + floor
        for step in (self.gamma, self.bias, self.blur, self.noise):
            if step.prob:
                measured = step(measured)
        measured = torch.as_tensor(measured, dtype=torch.float32).as_subclass(Tensor)
        clean = torch.where(mask, measured - floor, background)
        corrupted, erased = self._corrupted(clean, mask, background)
        return Example(corrupted, clean, mask, label_map, {**self._record(), **erased})

    def _corrupted(self, image: Tensor, mask: Tensor, background: Tensor) -> tuple[Tensor, dict[str, Any]]:
        """The encoder's input, with coarse noise, simulated anomalies and erased boxes."""
        noisy = self.coarse.random() < self.settings.corrupt_noise
        if noisy and mask.any():
            noise = coarse_noise(image[0].numpy(), mask[0].numpy(), spacing=self.spacing, rng=self.coarse)
            image = torch.where(mask, image + torch.from_numpy(noise), image)
        count = 0
        if self.anomalies.random() < self.settings.corrupt_anomalies and mask.any():
            count = int(self.anomalies.integers(1, _MOST_ANOMALIES + 1))
            whole, inside = image[0].numpy(), mask[0].numpy()
            made = corrupt(
                whole, inside, donor=whole, tasks=_ANOMALIES, count=count, spacing=self.spacing, rng=self.anomalies
            )
            image = torch.from_numpy(made.image)[None]
        boxes = []
        if self.boxes.random() < self.settings.corrupt_boxes:
            image = image.clone()
            for _ in range(int(self.boxes.integers(1, 4))):
                size = [int(self.boxes.integers(max(2, n // 12), max(3, n // 4))) for n in image.shape[1:]]
                start = [int(self.boxes.integers(0, n - s + 1)) for n, s in zip(image.shape[1:], size, strict=True)]
                x, y, z = (slice(a, a + s) for a, s in zip(start, size, strict=True))
                image[:, x, y, z] = background
                boxes.append([start, size])
        return image, {"corrupt_noise": bool(noisy), "corrupt_anomalies": count, "corrupt_boxes": boxes}

    def _record(self) -> dict[str, Any]:
        """What each step drew; None where it did nothing."""
        warp, gamma, bias, blur, noise = (
            step if step.prob and step._do_transform else None
            for step in (self.warp, self.gamma, self.bias, self.blur, self.noise)
        )
        return {
            "inverse": warp and warp.inverse.tolist(),
            "shift_mm": warp and warp.shift.tolist(),
            "elastic_mm": warp and float(warp.control.square().mean().sqrt()),
            "mirrored": self.warp.mirror,
            "gamma": gamma and float(gamma.gamma_value),
            "bias": bias and [float(c) for c in bias._coeff],
            "blur_voxels": blur and [float(blur.x), float(blur.y), float(blur.z)],
            "noise": noise and float(np.std(noise.noise)),
        }


def _background(image: Tensor, mask: Tensor) -> Tensor:
    """The value that preparation gave to what is outside the foreground; 0 where everything is foreground."""
    first = int(mask.flatten().to(torch.uint8).argmin())
    return image.new_zeros(()) if mask.flatten()[first] else image.flatten()[first]


def _interpolation(length: int, count: int) -> Tensor:
    """Linear interpolation of `count` values to `length` ones, ends on ends, as a matrix `(length, count)`."""
    return F.interpolate(torch.eye(count)[None], size=length, mode="linear", align_corners=True)[0].T.contiguous()


def _nearest(labels: Tensor, grid: Tensor) -> Tensor:
    moved = F.grid_sample(labels[None].float(), grid, mode="nearest", padding_mode="border", align_corners=True)
    return moved[0].to(labels.dtype)


def _rotation(angles: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix
