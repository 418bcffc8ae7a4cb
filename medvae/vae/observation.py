"""From a decoder's output to p(x|z): what every family of likelihood offers. The families are in `likelihoods/`.

A family is one file. It offers `build(settings, *, spread) -> Observation` and, if it has options, a class `Settings`.
`likelihoods/gaussian.py` is the shortest example; nothing else in the project knows a family by its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from medvae.settings import configure

if TYPE_CHECKING:
    from medvae.settings import LikelihoodSettings, Spread

LOG_SCALE_RANGE = (-6.0, 3.0)  # the soft floor of σ-VAE (Rybkin et al., ICML 2021), and a ceiling


class Likelihood(Protocol):
    """p(x|z) of each voxel, independent given z.

    - `mean` is `(B, 1, X, Y, Z)`.
    - `log_prob(x)` is ln p(x|z) of each voxel in nats, float32, `(B, 1, X, Y, Z)`.
    - `sample(generator)` draws an image.
    """

    @property
    def mean(self) -> Tensor: ...  # noqa: D102

    def log_prob(self, x: Tensor) -> Tensor: ...  # noqa: D102

    def sample(self, generator: torch.Generator) -> Tensor: ...  # noqa: D102


class Observation(nn.Module):
    """From a decoder's output to p(x|z); base class of all families.

    A family implements `forward`. Whatever has a spread overrides the rest, most simply by deriving from
    `ScaledObservation`.

    Attributes:
        channels: channels that the decoder has to give.
        binary: whether images are 0 or 1, as shapes are, and `mean` is a probability.
    """

    channels: int = 1
    binary: bool = False

    def forward(self, output: Tensor) -> Likelihood:
        """p(x|z) from a decoder's output `(B, channels, ...)`, in float32 whatever the autocast, for scoring."""
        raise NotImplementedError

    def fitted(self, output: Tensor, x: Tensor) -> Likelihood:
        """p(x|z) for training: as `forward`, but what is estimated from the batch is the optimum of these values.

        Args:
            output: of the decoder, `(B, channels, ...)`; foreground only.
            x: the true values, `(B, 1, ...)`.
        """
        likelihood: Likelihood = self(output)
        return likelihood

    def error(self, x: Tensor, mean: Tensor) -> Tensor:
        """The mean error that the spread follows from; the mean squared error unless a family has another."""
        return ((x - mean) ** 2).mean()

    def freeze(self, error: float) -> None:
        """Set what `fitted` estimates from a batch to the optimum of this mean `error`, for scoring."""

    def weighted(self, log_p: Tensor, likelihood: Likelihood) -> Tensor:
        """ln p(x|z) of each voxel as training sums it up; unweighted unless a family says otherwise."""
        return log_p


class ScaledObservation(Observation):
    """A family with a mean and a scale. It implements `at` and `log_optimum`, and `error` if that is not squared.

    - spread `shared`: one scale for all voxels. In training it is the analytic optimum of the batch (σ-VAE), through
      which gradients flow; for scoring it is frozen in `log_scale`, estimated on validation scans.
    - `learned`: `log_scale` is a parameter.
    - `voxel`: the decoder's second channel is ln scale.

    Attributes:
        log_scale: ln σ (or ln b), a scalar.
    """

    log_scale: Tensor

    def __init__(self, spread: Spread) -> None:
        super().__init__()
        self.spread = spread
        self.channels = 2 if spread == "voxel" else 1
        if spread == "learned":
            self.log_scale = nn.Parameter(torch.zeros(()))
        else:
            self.register_buffer("log_scale", torch.zeros(()))

    def at(self, mean: Tensor, log_scale: Tensor) -> Likelihood:
        """p(x|z) of this mean and this ln scale, which is a scalar or of the mean's shape."""
        raise NotImplementedError

    def log_optimum(self, error: Tensor) -> Tensor:
        """Ln of the scale that is most likely where the mean error (`error`) is this one."""
        raise NotImplementedError

    def forward(self, output: Tensor) -> Likelihood:
        """p(x|z) with the frozen, learned or decoded scale."""
        output = output.float()
        scale = output[:, 1:] if self.spread == "voxel" else self.log_scale
        return self.at(output[:, :1], scale.clamp(*LOG_SCALE_RANGE))

    def fitted(self, output: Tensor, x: Tensor) -> Likelihood:
        """As `forward`; a shared scale is the optimum of all these values."""
        if self.spread != "shared":
            return super().fitted(output, x)
        mean = output.float()
        return self.at(mean, self._log_optimum(self.error(x, mean)))

    def freeze(self, error: float) -> None:
        """Set a shared scale to the optimum of this mean error; others keep theirs."""
        if self.spread == "shared":
            self.log_scale.fill_(float(self._log_optimum(torch.tensor(error, dtype=torch.float64))))

    def weighted(self, log_p: Tensor, likelihood: Likelihood) -> Tensor:
        """β-NLL (Seitzer et al., ICLR 2022) with β = ½ where each voxel has its scale: weighted by it, held constant.

        The mean weight is 1. Without it a scale of each voxel explains hard voxels away before their mean is learned.
        """
        if self.spread != "voxel":
            return log_p
        scale: Tensor = likelihood.log_scale.detach().exp()  # type: ignore[attr-defined]
        return log_p * (scale / scale.mean())

    def _log_optimum(self, error: Tensor) -> Tensor:
        return self.log_optimum(error.clamp(min=1e-12)).clamp(*LOG_SCALE_RANGE)


def build_observation(settings: LikelihoodSettings) -> Observation:
    """The observation of the family that the settings name.

    Raises:
        SettingsError: an unknown family or option, or one that cannot be imported.
    """
    module, options = configure("likelihoods", settings.family, settings.options)
    observation: Observation = module.build(options, spread=settings.spread)
    return observation
