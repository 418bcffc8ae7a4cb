"""A simulated cohort as files: its members, the scans and the masks of their lesions, a list, the template's terms.

FOLDER/member-000.nii.gz    scans, in axis orders and poses of their own
FOLDER/truth/               one mask per scan with a lesion
FOLDER/cohort.csv           scan, subject, split, lesion: a list that every command reads
FOLDER/NOTICE.txt           the terms of the template that the scans derive from
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from hashlib import sha256
from itertools import cycle, islice
from typing import TYPE_CHECKING

import numpy as np

from medvae.evaluation.truth import Case
from medvae.io.files import write_text
from medvae.io.nifti.file import NiftiFile
from medvae.simulate import phantom

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

LIST = "cohort.csv"
_TEST: tuple[phantom.Lesion, ...] = ("none", "dark", "none", "bright", "none", "iso")  # the members of `test`, in turn

NOTICE = """\
These scans are simulated: no person was scanned for them. They derive from the ICBM 2009a template (MNI152), read from
the installed nilearn distribution, whose notice reads:

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
class MemberJob:
    """One member of a simulated cohort, before it is simulated.

    Attributes:
        index: number of the member.
        split: what it is for: "train", "calibrate" or "test".
        lesion: "none", or the kind of its lesion.
        seed: of the cohort.
    """

    index: int
    split: str
    lesion: phantom.Lesion
    seed: int

    @property
    def id(self) -> str:
        """Name of its scan, and of its subject."""
        return f"member-{self.index:03d}"

    def fingerprint(self) -> str:
        """Hash of everything that its voxels depend on."""
        return sha256(repr((self.index, self.lesion, self.seed)).encode()).hexdigest()


def members(sizes: Mapping[str, int], *, seed: int) -> list[MemberJob]:
    """All members of a cohort.

    Args:
        sizes: members by split. Half of those of `test` have a lesion, all others have none.
        seed: of the cohort.
    """
    roles: list[tuple[str, phantom.Lesion]] = []
    for split, size in sizes.items():
        kinds = cycle(_TEST if split == "test" else ("none",))
        roles += [(split, kind) for kind in islice(kinds, size)]
    return [MemberJob(index, split, kind, seed) for index, (split, kind) in enumerate(roles)]


def simulate(job: MemberJob) -> phantom.Member:
    """The scan of a member, and its lesion."""
    return phantom.make(job.index, seed=job.seed, lesion=job.lesion)


def case(job: MemberJob, folder: Path) -> Case:
    """Where the files of a member lie."""
    truth = None if job.lesion == "none" else folder / _truth(job)
    return Case(job.id, job.id, folder / _scan(job), truth)


def files(job: MemberJob, member: phantom.Member) -> tuple[NiftiFile, ...]:
    """The files of a member, to be written into the folder of the cohort."""
    text = "simulated from the ICBM 2009a template, no person"
    scan = NiftiFile(_scan(job), member.data, member.geometry, text)
    if job.lesion == "none":
        return (scan,)
    return scan, NiftiFile(_truth(job), member.lesion.astype(np.uint8), member.geometry, "simulated lesion")


def write_list(jobs: Iterable[MemberJob], folder: Path) -> Path:
    """Write the list and the terms; returns the path of the list."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["scan", "subject", "split", "lesion"])
    table.writerows([_scan(job), job.id, job.split, job.lesion] for job in jobs)
    write_text(folder / "NOTICE.txt", NOTICE)
    write_text(folder / LIST, text.getvalue())
    return folder / LIST


def _scan(job: MemberJob) -> str:
    return f"{job.id}.nii.gz"


def _truth(job: MemberJob) -> str:
    return f"truth/{job.id}.nii.gz"
