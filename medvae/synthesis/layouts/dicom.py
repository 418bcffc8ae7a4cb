"""images/<id>/, a DICOM series per sample, of an invented patient; labels/ as NIfTI; labels.csv."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NoReturn

from medvae.errors import InputError, SettingsError
from medvae.run.work import BytesFile
from medvae.synthesis.base_layout import BaseLayout, Places
from medvae.synthesis.layouts._lists import labels_csv

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from medvae.run.work import File
    from medvae.scan import Scan
    from medvae.synthesis.rows import Row


class Layout(BaseLayout):
    """A folder per sample, for tools and archives that take DICOM only; Synthetic Data (0008,001C) is YES."""

    with_pages: ClassVar[bool] = False

    def places(self, one: str) -> Places:
        """A folder for the slices of each image, one for label maps, one for sidecars."""
        return Places(f"images/{one}", f"labels/{one}.nii.gz", f"sidecars/{one}.json", f"masks/{one}.nii.gz")

    def image(self, one: str, scan: Scan, *, description: str) -> tuple[File, ...]:
        """A file per slice."""
        from medvae.dicom_objects.synthetic import synthetic_series

        model = self.synthesizer.model.hash
        slices = synthetic_series(scan, one, description=description, model=model)
        folder = self.places(one).image
        return tuple(BytesFile(f"{folder}/{number:04d}.dcm", data) for number, data in enumerate(slices, start=1))

    def lists(self, rows: Sequence[Row], out: Path) -> tuple[File, ...]:
        """`labels.csv`, whose scans are folders."""
        return (labels_csv(self, rows),)

    @classmethod
    def read(cls, folder: Path) -> NoReturn:
        """There is no real set to be appended to: its lists could not hold series of other studies."""
        hint = "leave merge_with= out, and train on the real series beside labels.csv"
        raise InputError("samples in the layout 'dicom' are not appended to a real set", path=folder, hint=hint)

    def check(self) -> None:
        """Refuse a modality without a class of single slices."""
        super().check()
        modality = self.synthesizer.model.preparation.settings.modality
        if modality not in ("CT", "MR", "PT"):
            message = f"the layout 'dicom' needs scans of CT, MR or PT, not {modality}"
            raise SettingsError(message, hint="set augment.layout=medvae")
