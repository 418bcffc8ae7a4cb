"""From a fitted network to a model: the posteriors of the training scans, and some of the scans."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.checkpoint.kept import Latents, TrainingScans
from medvae.checkpoint.lesion_codes import LESION_CODES
from medvae.checkpoint.model import MAIN, Model, weights_hash, with_all_options
from medvae.cohort.names import digest
from medvae.detector.network import DETECTOR
from medvae.lesions.network import LESIONS
from medvae.prepare.preparation import Preparation
from medvae.run.work import Progress, ignore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from medvae.checkpoint.lesion_codes import LesionCodes
    from medvae.detector.network import Detector
    from medvae.lesions.network import LesionVAE
    from medvae.prepare.preparation import Prepared
    from medvae.settings import Settings
    from medvae.training.store import Scans
    from medvae.vae.base import VAE


def to_model(
    vae: VAE,
    scans: Scans,
    *,
    labels: Sequence[str | None],
    settings: Settings,
    record: Mapping[str, Any],
    detector: Detector | None = None,
    lesions: tuple[LesionVAE, LesionCodes] | None = None,
    on_progress: Callable[[Progress], None] = ignore,
) -> Model:
    """The checkpoint of fitted networks.

    Args:
        vae: in eval mode, its σ frozen.
        scans: all scans of the training, those that it was validated on included.
        labels: class of each scan, or None.
        settings: of the run.
        record: how it was trained.
        detector: in eval mode; None where none was trained.
        lesions: the network of lesion crops and what it was trained on; None where no lesions were learned. A scan
            without a label map is then one without lesions.
        on_progress: called after each scan, with the stage "latents".
    """
    settings = with_all_options(settings)
    networks = networks_of(vae, detector, lesions=None if lesions is None else lesions[0])
    preparation = Preparation(settings.prepare)
    nothing = Latents(np.zeros((0,), np.float32), np.zeros((0,), np.float32), [], [], [], [])
    bare = Model(
        networks=networks,
        preparation=preparation,
        settings=settings,
        latents=nothing,
        training=_kept(scans, labels, settings, lesions=None if lesions is None else lesions[1]),
        hash=weights_hash(networks),
        conditions=scans.conditions,
        sets={} if lesions is None else {LESION_CODES: lesions[1].to_set()},
        record=record,
    )
    return replace(bare, latents=_latents(bare, scans, labels=labels, on_progress=on_progress))


def networks_of(vae: VAE, detector: Detector | None, *, lesions: LesionVAE | None = None) -> dict[str, VAE | Detector]:
    """The networks by the names that a checkpoint has for them."""
    networks: dict[str, VAE | Detector] = {MAIN: vae}
    networks |= {} if detector is None else {DETECTOR: detector}
    networks |= {} if lesions is None else {LESIONS: lesions}
    return networks


def _latents(
    model: Model, scans: Scans, *, labels: Sequence[str | None], on_progress: Callable[[Progress], None]
) -> Latents:
    means, log_variances, rows = [], [], []
    for index in range(len(scans)):
        prepared = scans[index]
        posterior = model.encode_prepared(prepared)
        means.append(posterior.mean[0].cpu().numpy())
        log_variances.append(posterior.log_variance[0].cpu().numpy())
        rows.append((prepared.id, prepared.subject, prepared.source_hash, dict(prepared.conditions)))
        on_progress(Progress("latents", index + 1, len(scans)))
    ids, subjects, hashes, conditions = (list(column) for column in zip(*rows, strict=True))
    return Latents(np.stack(means), np.stack(log_variances), ids, subjects, list(labels), hashes, conditions)


def _kept(
    scans: Scans, labels: Sequence[str | None], settings: Settings, *, lesions: LesionCodes | None
) -> TrainingScans:
    """`train.keep_scans` scans as images; where lesions are learned, missing label maps are ones of zeros."""
    kept = [scans[row] for row in _chosen(scans, labels, count=settings.train.keep_scans, lesions=lesions)]
    if not kept:
        empty = np.zeros((0, 1, *settings.prepare.shape))
        return TrainingScans(empty.astype(np.float16), empty.astype(bool), None, [], [], scans[0].units)
    nothing = None if lesions is None else np.zeros(kept[0].mask.shape, np.int16)
    maps = [nothing if one.label_map is None else one.label_map for one in kept]
    label_maps = np.stack([one for one in maps if one is not None]) if all(one is not None for one in maps) else None
    return TrainingScans(
        np.stack([one.image.astype(np.float16) for one in kept]),
        np.stack([one.mask for one in kept]),
        label_maps,
        [one.intensity for one in kept],
        [one.id for one in kept],
        kept[0].units,
    )


def _chosen(scans: Scans, labels: Sequence[str | None], *, count: int, lesions: LesionCodes | None) -> list[int]:
    """Rows of `count` scans: as many of each class, with and without lesions, as far as there are so many.

    Samplers take their donors, and classes, from the kept scans; lists are often sorted by class. Within a class scans
    are taken in an order that has nothing to do with that of the list: of hashes of their ids.
    """
    if not 0 < count < len(scans):
        return list(range(min(count, len(scans))))
    groups: dict[tuple[str | None, bool], list[tuple[str, int]]] = defaultdict(list)
    for row, (file, label) in enumerate(zip(scans.files, labels, strict=True)):
        ill = lesions is not None and _has_lesion(scans[row], lesions)  # read only where lesions are learned
        groups[label, ill].append((digest(file.stem), row))
    turns = [(turn, *one) for members in groups.values() for turn, one in enumerate(sorted(members))]
    return sorted(row for *_, row in sorted(turns)[:count])


def _has_lesion(scan: Prepared, lesions: LesionCodes) -> bool:
    return scan.label_map is not None and bool(lesions.in_map(scan.label_map).any())
