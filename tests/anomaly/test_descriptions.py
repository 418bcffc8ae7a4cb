"""What the headers of a scan's files say: never without the notice, never with half a number."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import nibabel as nib
import pytest
from made_review import detection

from medvae.io.nifti.file import described

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "status", ["calibrated, n=25", "cross-fitted, n=200", "thresholds n=20, mean and spread n=1200"]
)
@pytest.mark.parametrize(
    "first", ["fused", "matched_residual", "a_map_of_another_package_with_a_longer_name_than_fits_é"]
)
def test_every_file_has_the_notice(first: str, status: str, tmp_path: Path) -> None:
    found = detection("a")
    maps = {first: replace(found.maps["fused"], name=first, unit="probability")}
    scores = {first: found.scores["fused"]}
    long = replace(found, maps=maps, scores=scores, status=status, pseudo_healthy=found.first.data)
    texts = {}
    for file in sorted(long.save(tmp_path).glob("*.nii.gz")):
        texts[file.name] = nib.load(file).header["descrip"].tobytes().rstrip(b"\0").decode()
    marks = {"coverage.nii.gz", "template_brain.nii.gz"}  # say nothing of the scan
    assert {name for name, text in texts.items() if not text.endswith("; research use only")} == marks
    assert texts["candidates.nii.gz"].startswith(f"candidates of {first[:20]}")


def test_the_last_words_make_room_and_no_number_is_cut() -> None:
    assert described("z", "n=25") == "z, n=25; research use only"
    assert described("a" * 50, "n=123", "by number") == f"{'a' * 50}, n=123; research use only"
    assert described("a" * 57, "n=123") == f"{'a' * 57}; research use only"
    assert described("é" * 50) == f"{'é' * 30}; research use only", "60 bytes"
