"""Thresholds of another site: its healthy scans against the means and spreads that a model already has.

Scanners and people differ from site to site, and with them how high a map is in healthy scans. A mean and a spread of
each voxel need many scans; a threshold needs fewer. So the statistics stay, and healthy scans of the site, none of
which is behind the statistics, give thresholds, healthy scores, colour scale and traits. Scans of the site are then
compared with scans of the site: this is split conformal prediction (Vovk et al., 2005), the maps being fixed before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from medvae.anomaly.anomaly_map import scan_maps
from medvae.anomaly.calibrate import Seen, by_trait, numbered
from medvae.anomaly.inference import infer
from medvae.anomaly.reference import reference_of
from medvae.anomaly.traits import scan_traits
from medvae.errors import ModelError
from medvae.run.work import Progress, ignore

if TYPE_CHECKING:
    from collections.abc import Callable

    from medvae.anomaly.calibrate import PreparedScans
    from medvae.anomaly.reference import Reference
    from medvae.checkpoint.model import Model


def with_thresholds_of(
    model: Model, scans: PreparedScans, *, on_progress: Callable[[Progress], None] = ignore
) -> Reference:
    """The Reference of a model with the thresholds, scores and traits of other healthy scans.

    Args:
        model: calibrated; the maps, their options, means and spreads stay as they are.
        scans: healthy ones, prepared for the model, none of which is behind the statistics.
        on_progress: called after each scan, with the stage "thresholds".

    Raises:
        ModelError: the model is not calibrated.
    """
    before = statistics_for_site(model)
    seen = {name: Seen() for name in before.maps}
    hashes, traits, people = [], [], []
    for index in range(len(scans)):
        inference = infer(model, scans[index], draws=before.draws)
        maps = scan_maps(seen, inference, before)
        for name, one in seen.items():
            one.note(maps[name], inference.foreground, top=before.top)
        traits.append(scan_traits(inference))
        hashes.append(inference.prepared.source_hash)
        people.append(inference.prepared.subject)
        on_progress(Progress("thresholds", index + 1, len(scans)))
    subjects, voxel_ml = numbered(people), model.preparation.grid.voxel_volume / 1000
    maps_of_site = {
        name: replace(
            one.reference(kept.arrays, kept.options, scale=1.0, subjects=subjects, voxel_ml=voxel_ml), scale=kept.scale
        )
        for (name, kept), one in zip(before.maps.items(), seen.values(), strict=True)
    }
    return replace(
        before,
        maps=maps_of_site,
        n=len(scans),
        scan_hashes=tuple(hashes),
        traits=by_trait(traits),
        cross_fitted=0,
        statistics_of=before.behind,
    )


def statistics_for_site(model: Model) -> Reference:
    """The Reference whose means and spreads a site can use.

    Raises:
        ModelError: it is of training scans.
    """
    before = reference_of(model)
    if not before.calibrated:
        message = "thresholds alone need the mean and spread of healthy scans, and the model is not calibrated"
        raise ModelError(
            message, path=model.path, hint="calibrate it on all healthy scans first, or train it with folds"
        )
    return before
