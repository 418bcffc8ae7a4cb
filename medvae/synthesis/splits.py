"""Folds in which nobody is trained on, real or synthetic, while a scan of the same person is validated."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
from sklearn.model_selection import KFold

from medvae.cohort.read import read
from medvae.errors import MedVAEError
from medvae.scan import scan_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from medvae.checkpoint.kept import Latents
    from medvae.synthesis.base_layout import RealScan
    from medvae.synthesis.generate import Synthesizer
    from medvae.synthesis.rows import Row

People = frozenset[str]
FOLDS, _SEED = 5, 12345  # as nnU-Net's own split: real scans alone are split as it would split them


def folds(people: Mapping[str, People], validated: Iterable[str]) -> list[dict[str, list[str]]]:
    """Training and validation scans of each fold.

    A scan is trained on in a fold if none of its people is validated there.

    Args:
        people: by scan, everyone whose data it holds.
        validated: scans that may be validated; each is, in one fold, if its people are in the same one.
    """
    candidates = sorted(validated)
    everyone = list(dict.fromkeys(person for one in candidates for person in sorted(people[one])))
    if len(everyone) < 2:
        return []
    split = KFold(min(FOLDS, len(everyone)), shuffle=True, random_state=_SEED)
    parts = [{everyone[at] for at in held_out} for _, held_out in split.split(np.arange(len(everyone)))]
    return [
        {
            "train": [one for one in people if not people[one] & part],
            "val": [one for one in candidates if people[one] <= part],
        }
        for part in parts
    ]


def people_of_sources(rows: Sequence[Row], latents: Latents) -> dict[str, People]:
    """The subjects of the sources of each sample; nobody where it has none."""
    subject_of = dict(zip(latents.ids, latents.subjects, strict=True))
    return {row.id: frozenset(subject_of[one] for one in row.sources) for row in rows}


def data_of_others(rows: Sequence[Row], held_out: Sequence[RealScan], synthesizer: Synthesizer) -> list[str]:
    """Ids of the samples that hold the data of people who are held out; all held-out scans are read.

    A decoded image holds everyone that the decoder has seen.
    """
    latents = synthesizer.model.latents
    others = frozenset().union(*people_of_real(held_out, latents).values())
    everyone = frozenset(latents.subjects)
    decoded = synthesizer.space == "latent"
    samples = people_of_sources(rows, latents)
    return [one for one, people in samples.items() if (everyone if decoded or not people else people) & others]


def people_of_real(scans: Sequence[RealScan], latents: Latents) -> dict[str, People]:
    """Who was scanned: a subject of the training scans, where the voxels or else the name are one's, else a new person.

    Voxels are asked first: a case that was numbered anew may be called as another person's training scan.
    """
    found = {}
    for scan in scans:
        known = _by_voxels(scan, latents) or _by_name(scan.id, latents)
        found[scan.id] = frozenset(known or [f"real {scan.id}"])
    return found


def _by_name(name: str, latents: Latents) -> set[str]:
    """Subjects of training scans that are called so, whatever folder their id begins with and channel it ends with."""
    pattern = re.compile(rf"(?:.*_)?{re.escape(name)}(?:_0000)?")
    return {person for one, person in zip(latents.ids, latents.subjects, strict=True) if pattern.fullmatch(one)}


def _by_voxels(scan: RealScan, latents: Latents) -> set[str]:
    try:
        mark = scan_hash(read(scan.image))
    except MedVAEError:  # it cannot be read: only its name is known
        return set()
    return {person for one, person in zip(latents.hashes, latents.subjects, strict=True) if one == mark}
