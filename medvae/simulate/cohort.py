"""A made cohort as files: who is in it and for what, where the scans and the masks of their lesions lie, its terms.

FOLDER/member-000.nii.gz    scans, in axis orders and poses of their own
FOLDER/truth/               a mask for each scan with a lesion
FOLDER/cohort.csv           scan, subject, split, lesion: a list that every command reads
FOLDER/NOTICE.txt           the terms of the template that the scans derive from
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from medvae.evaluation.truth import Case
from medvae.io.files import write_text
from medvae.io.formats import nifti
from medvae.prepare import template
from medvae.scan import ScanRef
from medvae.simulate import phantom

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

LIST = "cohort.csv"
_TEST = ("none", "dark", "none", "bright", "none", "iso")  # lesions of the members of `test`, in turn

NOTICE = """\
These scans are made: no person was scanned for them. They derive from the ICBM 2009a template (MNI152), read from the
installed nilearn distribution, whose notice reads:

  Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill
  University. Permission to use, copy, modify, and distribute this software and its documentation for any purpose and
  without fee is hereby granted, provided that the above copyright notice appear in all copies. The authors and McGill
  University make no representations about the suitability of this software for any purpose. It is provided "as is"
  without express or implied warranty. The authors are not responsible for any data loss, equipment damage, property
  loss, or injury to subjects or patients resulting from the use or misuse of this software package.

  Fonov VS, Evans AC, McKinstry RC, Almli CR, Collins DL. Unbiased nonlinear average age-appropriate brain templates
  from birth to adulthood. NeuroImage 2009;47:S102.

Research use only. Not a medical device; not for diagnosis.
"""


@dataclass(frozen=True)
class Maker:
    """Makes the members of a cohort; picklable and light, so that the runner's workers call it.

    Attributes:
        seed: of the cohort.
    """

    seed: int

    def __call__(self, ref: ScanRef) -> phantom.Member:
        """The member whose number the id ends with, with the lesion that the label names."""
        lesion: Any = ref.label
        return phantom.make(int(ref.id.rpartition("-")[2]), seed=self.seed, lesion=lesion)


def members(sizes: Mapping[str, int]) -> list[ScanRef]:
    """Everyone in a cohort of these splits; half of `test` has a lesion, which its label names, and nobody else."""
    roles = []
    for split, size in sizes.items():
        kinds = cycle(_TEST if split == "test" else ("none",))
        roles += [(split, kind) for kind in islice(kinds, size)]
    source = (template.path("t1"),)
    return [
        ScanRef(f"member-{n:03d}", "made", source, label=kind, split=split) for n, (split, kind) in enumerate(roles)
    ]


def case(ref: ScanRef, folder: Path) -> Case:
    """Where the files of a member lie."""
    truth = None if ref.label == "none" else folder / "truth" / f"{ref.id}.nii.gz"
    return Case(ref.id, ref.subject, folder / f"{ref.id}.nii.gz", truth)


def write(ref: ScanRef, member: phantom.Member, folder: Path) -> list[str]:
    """Write the files of a member; returns their paths below the folder."""
    files = case(ref, folder)
    nifti.write(files.scan, member.data, member.geometry, description="made from the ICBM 2009a template, no person")
    if files.truth is None:
        return [str(files.scan.relative_to(folder))]
    nifti.write(files.truth, member.lesion.astype(np.uint8), member.geometry, description="implanted lesion")
    return [str(path.relative_to(folder)) for path in (files.scan, files.truth)]


def write_list(refs: Iterable[ScanRef], folder: Path) -> Path:
    """Write the list and the terms; returns the path of the list."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["scan", "subject", "split", "lesion"])
    table.writerows([case(ref, folder).scan.name, ref.subject, ref.split, ref.label] for ref in refs)
    write_text(folder / "NOTICE.txt", NOTICE)
    write_text(folder / LIST, text.getvalue())
    return folder / LIST
