"""Two tasks that synthetic scans may be useful for: segmentation by a small 3D U-Net, classification by a small CNN.

A task gives targets and a network, a loss, and what the network scores on each test scan. Scores are one number per
scan and are averaged over the scans of each of some `strata`, then over the strata: the classes, for balanced accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from monai.losses import DiceCELoss
from monai.metrics import compute_average_surface_distance, compute_dice
from monai.networks.blocks import Convolution
from monai.networks.nets import UNet
from torch import Tensor, nn

from medvae.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from medvae.evaluation.image_set import ImageSet

_CHANNELS = (16, 32, 64)
MULTIPLE = 4  # the strides of both networks together: grids are padded to multiples of it


@dataclass(frozen=True, eq=False)
class Measure:
    """What a network scores on the test scans.

    Attributes:
        values: float64 `(S,)`, one per test scan; NaN where it is not defined.
        strata: `(S,)`, the scans that are averaged first; 0 everywhere for a plain mean.
    """

    values: NDArray[np.float64] = field(repr=False)
    strata: NDArray[np.intp] = field(repr=False)


class Task(Protocol):
    """What a utility experiment needs of a task.

    - `name` in words, and whether a target is a label map (`pictures`), which moves with its image.
    - `targets(scans)` are what the network learns, one tensor per scan.
    - `network()` is untrained; torch's global random state decides the weights.
    - `loss(output, target)` is a scalar of a batch.
    - `weights(scans)` are the probabilities that a scan is drawn with.
    - `measures(network, images, scans)` are the scores on test scans, the most important one first.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def pictures(self) -> bool: ...  # noqa: D102
    def targets(self, scans: ImageSet) -> list[Tensor]: ...  # noqa: D102
    def network(self) -> nn.Module: ...  # noqa: D102
    def loss(self, output: Tensor, target: Tensor) -> Tensor: ...  # noqa: D102
    def weights(self, scans: ImageSet) -> NDArray[np.float64]: ...  # noqa: D102
    def measures(self, network: nn.Module, images: Sequence[Tensor], scans: ImageSet) -> dict[str, Measure]: ...  # noqa: D102


@dataclass(frozen=True)
class Segmentation:
    """Label maps by a 3D U-Net (Ronneberger et al., MICCAI 2015) with residual units, loss Dice + cross-entropy.

    Attributes:
        values: of the label maps, 0 first.
        spacing: voxel size, mm.
        diagonal: of the grid, mm: scans may be cut to the part of it that is trained on.
    """

    values: tuple[int, ...]
    spacing: tuple[float, float, float]
    diagonal: float
    name: str = "segmentation"
    pictures: bool = True

    @classmethod
    def of(cls, real: ImageSet, others: Sequence[ImageSet], *, spacing: tuple[float, float, float]) -> Segmentation:
        """The task of a real set.

        Raises:
            InputError: a set has no label maps, or values that the real one does not have.
        """
        if any(one.label_maps is None for one in (real, *others)):
            hint = "name a list with a column `label_map`; use a sampler that gives label maps (e.g. classical)"
            raise InputError("not all scans have a label map", code="no_labels", hint=hint)
        unknown = sorted({value for one in others for value in one.label_values} - set(real.label_values))
        if unknown:
            message = f"label values {unknown} that the real training scans do not have: {real.label_values}"
            raise InputError(message, code="no_labels", hint="use label maps with the same values")
        return cls(real.label_values, spacing, float(np.linalg.norm(np.array(real.images.shape[2:]) * spacing)))

    def targets(self, scans: ImageSet) -> list[Tensor]:
        """Position of each voxel's value among the values, float32 `(1, X, Y, Z)`."""
        maps = cast("NDArray[np.int16]", scans.label_maps)
        return [torch.from_numpy(np.searchsorted(self.values, one).astype(np.float32)) for one in maps]

    def network(self) -> nn.Module:
        """MONAI's U-Net of three levels with instance normalisation."""
        count = len(self.values)
        network: nn.Module = UNet(3, 1, count, channels=_CHANNELS, strides=(2, 2), num_res_units=1, norm="INSTANCE")
        return network

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Dice + cross-entropy, background left out of the Dice."""
        result: Tensor = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)(output, target)
        return result

    def weights(self, scans: ImageSet) -> NDArray[np.float64]:
        """All the same."""
        return np.full(len(scans), 1 / len(scans))

    def measures(self, network: nn.Module, images: Sequence[Tensor], scans: ImageSet) -> dict[str, Measure]:
        """Mean Dice and mean surface distance over the structures, then both of each structure.

        A structure that a scan does not have is left out. One that is missed altogether is as far away as the diagonal
        of the grid is long.
        """
        pairs = zip(images, self.targets(scans), strict=True)
        found = [self._of_scan(network, image, target) for image, target in pairs]
        dice, distance = (np.array([one[at] for one in found]) for at in range(2))  # (S, structures)
        one = np.zeros(len(scans), np.intp)
        with np.errstate(invalid="ignore"):
            means = {"dice": Measure(_mean(dice), one), "surface_mm": Measure(_mean(distance), one)}
        for at, value in enumerate(self.values[1:]):
            means[f"dice_{value}"] = Measure(dice[:, at], one)
            means[f"surface_mm_{value}"] = Measure(distance[:, at], one)
        return means

    def _of_scan(self, network: nn.Module, image: Tensor, target: Tensor) -> tuple[list[float], list[float]]:
        x, y, z = (slice(n) for n in target.shape[1:])  # without what was padded
        guess = network(image[None]).argmax(1, keepdim=True)[0, :, x, y, z].cpu()
        pairs = [(guess == at, target == at) for at in range(1, len(self.values))]
        return [_dice(*pair) for pair in pairs], [self._surface(*pair) for pair in pairs]

    def _surface(self, guess: Tensor, truth: Tensor) -> float:
        """Mean distance between the surfaces, both ways, mm; NaN where the structure is absent."""
        if not truth.any():
            return float("nan")
        if not guess.any():
            return self.diagonal
        pair = (guess[None].float(), truth[None].float())
        with catch_warnings():
            simplefilter("ignore", FutureWarning)  # MONAI 1.6 passes an argument of its own that it has deprecated
            found = compute_average_surface_distance(
                *pair, include_background=True, symmetric=True, spacing=self.spacing
            )
        return float(found[0, 0])


@dataclass(frozen=True)
class Classification:
    """Classes by three strided convolutions and a mean over the volume; cross-entropy, classes drawn equally often.

    Attributes:
        classes: sorted.
    """

    classes: tuple[str, ...]
    name: str = "classification"
    pictures: bool = False

    @classmethod
    def of(cls, real: ImageSet, others: Sequence[ImageSet]) -> Classification:
        """The task of a real set.

        Raises:
            InputError: a scan has no class, there is one class only, or one that the real set does not have.
        """
        names = real.class_names
        known = [one.class_names for one in others]
        if len(names) < 2 or not all(one and set(one) <= set(names) for one in known):
            message = f"classes {', '.join(names) or 'unknown'} in the real training scans; all need one of two or more"
            raise InputError(message, code="no_labels", hint="name a list with a column `label` (0 is a class, too)")
        return cls(names)

    def targets(self, scans: ImageSet) -> list[Tensor]:
        """Number of the class, a scalar."""
        return [torch.tensor(self.classes.index(cast("str", one))) for one in scans.classes]

    def network(self) -> nn.Module:
        """A linear layer on the mean of 64 channels."""
        levels = [
            Convolution(3, before, after, strides=2, norm="INSTANCE", act="RELU")
            for before, after in zip((1, *_CHANNELS[:-1]), _CHANNELS, strict=True)
        ]
        head = nn.Linear(_CHANNELS[-1], len(self.classes))
        return nn.Sequential(*levels, nn.AdaptiveAvgPool3d(1), nn.Flatten(), head)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy."""
        return nn.functional.cross_entropy(output, target)

    def weights(self, scans: ImageSet) -> NDArray[np.float64]:
        """Every class as often as any other."""
        counts = np.array([scans.classes.count(one) for one in scans.classes], np.float64)
        return 1 / counts / len(set(scans.classes))

    def measures(self, network: nn.Module, images: Sequence[Tensor], scans: ImageSet) -> dict[str, Measure]:
        """Balanced accuracy (whether the class is right, averaged within each class first); the probability of it."""
        truth = np.array([int(one) for one in self.targets(scans)], np.intp)
        logits = torch.stack([network(image[None])[0] for image in images]).cpu()
        probability = logits.softmax(1).double().numpy()
        right = (probability.argmax(1) == truth).astype(np.float64)
        of_truth = probability[np.arange(len(truth)), truth]
        return {"balanced_accuracy": Measure(right, truth), "probability_of_truth": Measure(of_truth, truth)}


def _dice(guess: Tensor, truth: Tensor) -> float:
    return float(compute_dice(guess[None].float(), truth[None].float(), include_background=True)[0, 0])


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the structures that a scan has, `(S, K)` -> `(S,)`; NaN where it has none."""
    known = np.isfinite(values)
    mean: NDArray[np.float64] = np.where(known, values, 0).sum(1) / known.sum(1)
    return mean
