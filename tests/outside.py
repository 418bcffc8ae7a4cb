"""A package outside of medvae that adds a format by one file and an entry point; and how a test makes a file."""

from __future__ import annotations

import shutil
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import dicom_made
import numpy as np
import pytest

import medvae
from medvae import plugins
from medvae.errors import OutputError
from medvae.io import contract

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medvae.scan import Geometry

TOY = "npz"
FORMATS = [*plugins.names("formats"), TOY]  # all there are, when tests are collected


@contextmanager
def toy_format(folder: Path) -> Iterator[None]:
    """Install the package into `folder` for a while, as pip would: a module, and metadata with an entry point."""
    package, metadata = folder / "toy_package", folder / "toy_package-1.0.dist-info"
    package.mkdir(parents=True)
    metadata.mkdir()
    (package / "__init__.py").touch()
    shutil.copy(Path(__file__).parent / "toy_format.py", package / "archive.py")
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-package\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[medvae.formats]\n{TOY} = toy_package.archive\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        contract.formats.cache_clear()
        yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy_package"]:
        del sys.modules[name]
    contract.formats.cache_clear()


@cache
def written_suffixes() -> tuple[str, ...]:
    """Of all files that `medvae.write` can write, in any format there is."""
    suffixes = [suffix for one in contract.formats().values() for suffix in getattr(one, "SUFFIXES", ())]
    return tuple(suffix for suffix in suffixes if _is_written(suffix))


def _is_written(suffix: str) -> bool:
    with TemporaryDirectory() as folder:
        try:
            medvae.write(Path(folder) / f"a{suffix}", np.arange(8.0).reshape(2, 2, 2), affine=np.eye(4))
        except (OutputError, ValueError):
            return False
    return True


def put(format_: str, folder: Path, data: np.ndarray[Any, Any], geometry: Geometry) -> Path:
    """A scan of this format in a folder of its own. DICOM, which medvae does not write, is CT made by `dicom_made`."""
    if format_ == "dicom":
        dicom_made.put(folder, dicom_made.slices(data.astype(np.int16), geometry.affine))
        return folder
    one = contract.get(format_)
    suffix = next((end for end in getattr(one, "SUFFIXES", ()) if end in written_suffixes()), None)
    if suffix is None:
        pytest.skip(f"nothing writes {format_}")
    return medvae.write(folder / f"scan{suffix}", data, geometry=geometry).parent
