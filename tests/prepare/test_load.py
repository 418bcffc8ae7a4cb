"""How a scan is usually loaded: read with its mask and label map, and prepared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from medvae.errors import ScanError
from medvae.io.formats import nifti
from medvae.prepare import preparation
from medvae.prepare.align import Alignment
from medvae.prepare.load import ReadAndPrepare
from medvae.prepare.preparation import Preparation
from medvae.scan import Geometry, ScanRef
from medvae.settings import PrepareSettings, ReadSettings

if TYPE_CHECKING:
    from pathlib import Path

    from medvae.scan import Scan


def image(path: Path, value: int = 100, *, spacing: float = 1.0, dtype: Any = np.float32) -> Path:
    data = np.zeros((12, 12, 12), dtype)
    data[3:9, 3:9, 3:9] = value
    if dtype is np.float32:
        data += np.arange(12, dtype=np.float32) * (data > 0)
    nifti.write(path, data, Geometry(data.shape, np.diag([spacing, spacing, spacing, 1])), description="block")
    return path


def test_reading_and_preparing_takes_mask_and_labels_along(tmp_path: Path) -> None:
    ref = ScanRef(
        "s",
        "nifti",
        (image(tmp_path / "s.nii.gz"),),
        subject="who",
        mask=image(tmp_path / "m.nii.gz", 1, dtype=np.uint8),
        label_map=image(tmp_path / "l.nii.gz", 7, dtype=np.uint8),
    )
    settings = PrepareSettings(modality="MR", spacing=(1, 1, 1), shape=(16, 16, 16))
    loaded = ReadAndPrepare(ReadSettings(), Preparation(settings))(ref)
    assert loaded.scan.data.shape == (12, 12, 12)
    assert (loaded.prepared.id, loaded.prepared.subject) == ("s", "who")
    assert loaded.prepared.mask.sum() == 6**3
    other = ScanRef("s", "nifti", ref.paths, mask=image(tmp_path / "far.nii.gz", 1, spacing=2.0, dtype=np.uint8))
    with pytest.raises(ScanError) as caught:
        ReadAndPrepare(ReadSettings(), Preparation(settings))(other)
    assert caught.value.code == "mask_mismatch"


def test_a_doubtful_alignment_is_accepted_with_a_warning_or_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def doubtful(scan: Scan, mask: Any) -> Alignment:
        return Alignment(np.eye(4), 0.4, 0.9)

    monkeypatch.setattr(preparation, "align_to_template", doubtful)
    settings = PrepareSettings(modality="MR", align="mni152", spacing=(8, 8, 8), shape=(24, 28, 24))
    ref = ScanRef("s", "nifti", (image(tmp_path / "s.nii.gz", spacing=14.0),))
    prepared = ReadAndPrepare(ReadSettings(), Preparation(settings))(ref).prepared
    assert [one.partition(":")[0] for one in prepared.warnings] == ["doubtful_alignment"]
    with pytest.raises(ScanError) as caught:
        ReadAndPrepare(ReadSettings(on_doubtful="reject"), Preparation(settings))(ref)
    assert caught.value.code == "doubtful_alignment"
    assert "0.40" in str(caught.value)
