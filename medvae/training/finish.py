"""From a fitted network to a checkpoint: posteriors of the training scans, some of the scans, a first Reference."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from medvae import plugins
from medvae.anomaly.calibrate import empty_reference, make_reference
from medvae.anomaly.inference import infer
from medvae.checkpoint import Latents, Model, TrainingScans, weights_hash, with_all_options
from medvae.prepare.preparation import Preparation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import nn

    from medvae.prepare.preparation import Prepared
    from medvae.settings import Settings
    from medvae.training.batches import Scans
    from medvae.vae.base import VAE

REFERENCE_SCANS = 200  # so many training scans tell well enough what training scans look like


def remember(
    vae: VAE,
    scans: Scans,
    *,
    labels: Sequence[str | None],
    settings: Settings,
    record: Mapping[str, Any],
    on_scan: Callable[[], None] = lambda: None,
) -> Model:
    """The checkpoint of a fitted network.

    Args:
        vae: in eval mode, its σ frozen.
        scans: all scans that the fit has seen, those that it was validated on included.
        labels: class of each scan, or None.
        settings: of the run.
        record: how it was trained.
        on_scan: called after each scan of each of the three passes.
    """
    settings = with_all_options(settings)
    digest, preparation = weights_hash(cast("nn.Module", vae)), Preparation(settings.prepare)
    nothing = Latents(np.zeros((0,), np.float32), np.zeros((0,), np.float32), [], [], [], [])
    reference = empty_reference(digest, preparation.hash)
    bare = Model(vae, preparation, settings, nothing, _kept(scans, settings), reference, digest, record)
    model = _with_latents(bare, scans, labels=labels, on_scan=on_scan)

    def some() -> Iterator[Prepared]:
        return (scans[i] for i in range(min(len(scans), REFERENCE_SCANS)))

    names = plugins.names("maps")
    return model.with_reference(make_reference(model, some, names=names, calibrated=False, on_scan=on_scan))


def passes(count: int) -> int:
    """How often `remember` calls `on_scan` for so many scans."""
    return count + 2 * min(count, REFERENCE_SCANS)


def _with_latents(bare: Model, scans: Scans, *, labels: Sequence[str | None], on_scan: Callable[[], None]) -> Model:
    means, log_variances, seen = [], [], []
    for index in range(len(scans)):
        prepared = scans[index]
        posterior = infer(bare, prepared).posterior
        means.append(posterior.mean[0].cpu().numpy())
        log_variances.append(posterior.log_variance[0].cpu().numpy())
        seen.append((prepared.id, prepared.subject, prepared.source_hash))
        on_scan()
    ids, subjects, hashes = (list(column) for column in zip(*seen, strict=True))
    return replace(bare, latents=Latents(np.stack(means), np.stack(log_variances), ids, subjects, list(labels), hashes))


def _kept(scans: Scans, settings: Settings) -> TrainingScans:
    """The first `train.keep_scans` scans as images."""
    kept = [scans[i] for i in range(min(len(scans), settings.train.keep_scans))]
    if not kept:
        empty = np.zeros((0, 1, *settings.prepare.shape))
        return TrainingScans(empty.astype(np.float16), empty.astype(bool), None, [], [], scans[0].units)
    maps = [one.label_map for one in kept]
    label_maps = np.stack([one for one in maps if one is not None]) if all(one is not None for one in maps) else None
    return TrainingScans(
        np.stack([one.image for one in kept]).astype(np.float16),
        np.stack([one.mask for one in kept]),
        label_maps,
        [one.intensity for one in kept],
        [one.id for one in kept],
        kept[0].units,
    )
