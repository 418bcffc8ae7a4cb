"""NumPy archives of `data` and `affine`: a format as another package would add it, by this one file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from medvae.errors import ScanError
from medvae.io.checked import as_scan, stated
from medvae.io.files import atomic
from medvae.scan import Geometry, Scan, ScanInfo, ScanRef

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from medvae.settings import ReadSettings

SUFFIXES = (".npz",)


def matches(path: Path) -> bool:
    return path.name.lower().endswith(SUFFIXES)


def find(files: Sequence[Path], settings: ReadSettings) -> tuple[list[ScanRef], list[Path]]:
    mine = [file for file in files if matches(file)]
    return [ScanRef("", "npz", (file,)) for file in mine], [file for file in files if not matches(file)]


def read_values(path: Path, settings: ReadSettings) -> tuple[np.ndarray[Any, Any], Geometry]:
    try:
        with open(path, "rb") as file, np.load(file) as archive:
            data, affine = archive["data"], archive["affine"]
    except (BadZipFile, EOFError, KeyError, ValueError) as error:
        raise ScanError(f"no archive of data and affine: {error}", code="corrupt", path=path) from None
    return data.astype(np.float32), Geometry(data.shape, affine)


def inspect(ref: ScanRef, settings: ReadSettings) -> ScanInfo:
    data, geometry = read_values(ref.path, settings)
    return ScanInfo(geometry, str(data.dtype), *stated(ref, settings))


def read(ref: ScanRef, settings: ReadSettings) -> Scan:
    return as_scan(*read_values(ref.path, settings), ref, settings)


def write(
    path: Path,
    data: np.ndarray[Any, Any],
    geometry: Geometry,
    *,
    description: str,
    limits: tuple[float, float] | None = None,
) -> None:
    with atomic(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, data=data, affine=geometry.affine, description=description)
