"""Secondary capture: a picture in colour, for archives that show nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from highdicom.sc import SCImage

from medvae.dicom_objects.content import equipment, text, uid

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

    from medvae.dicom_objects.content import Content
    from medvae.dicom_objects.source import Source


def capture(source: Source, content: Content, picture: NDArray[np.uint8], *, key: str) -> Dataset:
    """A picture `(rows, columns, 3)` in RGB. It may show a face; nothing written in it tells who it is."""
    made: Dataset = SCImage.from_ref_dataset(
        source.first,
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        series_instance_uid=uid(key, "picture series"),
        series_number=source.series_number(6),
        sop_instance_uid=uid(key, "picture"),
        instance_number=1,
        patient_orientation=("L", "P"),
        specific_character_set=source.first.get("SpecificCharacterSet"),
        series_description=text(content.algorithm, "picture", content.status),
        **equipment(content.model),
    )
    made.PatientOrientation = ""  # it has three planes
    made.BurnedInAnnotation, made.RecognizableVisualFeatures = "NO", "YES"
    return made
