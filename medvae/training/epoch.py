"""What is known of a training after each validation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """What is known after `validate_every` steps.

    Attributes:
        step: steps done.
        plan: planned numbers of steps as they changed, `(step, total)` pairs (`medvae.training.plan`).
        loss: training loss, nats per foreground voxel.
        reconstruction: −ln p(x|z) in training, nats per scan.
        kl: in training, nats per scan.
        beta: weight of the KL.
        error: mean error per foreground voxel in training: squared, unless the likelihood has another.
        validation: −ELBO of the validation scans under the averaged weights, β = 1, nats per voxel; None without any.
        validation_error: mean error per foreground voxel there.
        mean_image_error: the same of the mean of the training scans, which a network has to beat; None without any.
        active: latent units whose mean varies over the validation (else the last training) scans.
        scans_per_second: in training.
        best: whether this is the best so far.
    """

    step: int
    plan: tuple[tuple[int, int], ...]
    loss: float
    reconstruction: float
    kl: float
    beta: float
    error: float
    validation: float | None
    validation_error: float | None
    mean_image_error: float | None
    active: int
    scans_per_second: float
    best: bool

    @property
    def steps(self) -> int:
        """Steps in all, as planned now."""
        return self.plan[-1][1]

    def __str__(self) -> str:
        """The numbers that tell a person whether the network learns, with their units."""
        loss = f"loss {self.loss:.3f} nats/voxel"
        known = self.validation is not None and self.validation_error is not None
        if known and self.mean_image_error is not None:
            loss += f", validation {self.validation:.3f}, error {self.validation_error:.3f}"
            loss += f" (mean image {self.mean_image_error:.3f})"
        return f"{loss}, KL {self.kl:.0f} nats/scan, {self.scans_per_second:.1f} scans/s"
