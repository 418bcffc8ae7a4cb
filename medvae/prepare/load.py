"""From a scan's files to the model's grid: reading and preparing in one call, for the processes that read ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from medvae.errors import ScanError
from medvae.io import reading
from medvae.prepare.align import DOUBTFUL
from medvae.prepare.contrast import DOUBTFUL_CONTRAST
from medvae.prepare.preparation import Preparation, Prepared, prepare

if TYPE_CHECKING:
    from medvae.scan import Scan, ScanRef
    from medvae.settings import ReadSettings

_DOUBTS = (DOUBTFUL, DOUBTFUL_CONTRAST)


@dataclass(frozen=True)
class Loaded:
    """A scan as read, and on the model's grid."""

    scan: Scan
    prepared: Prepared


@dataclass(frozen=True)
class ReadAndPrepare:
    """The usual `load` of a run: read a scan with its mask and label map, and prepare it. Picklable, light to import.

    Attributes:
        read: how files are read.
        preparation: the steps from the scan to the model's grid.
    """

    read: ReadSettings
    preparation: Preparation

    def __call__(self, ref: ScanRef) -> Loaded:
        """Raises ScanError where the scan cannot be used."""
        scan = reading.read(ref, self.read)
        mask = None if ref.mask is None else reading.read_foreground(ref.mask, scan.geometry, self.read)
        labels = None if ref.label_map is None else reading.read_label_map(ref.label_map, scan.geometry, self.read)
        prepared = prepare(
            scan,
            self.preparation,
            id=ref.id,
            subject=ref.subject,
            mask=mask,
            label_map=labels,
            conditions=ref.conditions,
        )
        return accepted(Loaded(scan, prepared), self.read)


def accepted(loaded: Loaded, settings: ReadSettings) -> Loaded:
    """The same scan.

    Raises:
        ScanError: `doubtful_alignment` or `doubtful_contrast`, where the settings reject it.
    """
    if settings.on_doubtful == "reject":
        doubts = [one.split(": ", 1) for one in loaded.prepared.warnings if one.startswith(_DOUBTS)]
        if doubts:
            raise ScanError.of_all([(code, text) for code, text in doubts])
    return loaded
