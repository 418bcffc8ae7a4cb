"""The brain of a whole head, found by deepbet's networks, which lie in its wheel.

Fisch et al., deepbet: fast brain extraction of T1-weighted MRI using convolutional neural networks, Computers in
Biology and Medicine 2024. Torch is loaded with the first whole head: processes that read stripped brains stay small.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np

from medvae.threads import one_thread

if TYPE_CHECKING:
    from deepbet import BrainExtraction
    from numpy.typing import NDArray

    from medvae.scan import Scan

_FINE_ENOUGH_MM = 1.0  # the networks see a brain in about so large voxels: smaller ones cost memory and show no more


def extract_brain(scan: Scan) -> NDArray[np.bool_]:
    """The brain on the scan's own grid, bool `(X, Y, Z)`; empty where none is found. Filled voxels never count.

    One thread: the same scan gives the same mask, whatever the number of workers.

    Args:
        scan: a whole head, in any orientation; the networks were trained on T1-weighted MR of adults.
    """
    steps = [max(1, int(_FINE_ENOUGH_MM / mm)) for mm in scan.geometry.spacing]
    thin = scan.data[tuple(slice(None, None, step) for step in steps)]
    found = _found(nib.Nifti1Image(thin, scan.geometry.affine @ np.diag([*steps, 1.0])))
    for axis, step in enumerate(steps):
        found = np.repeat(found, step, axis)
    x, y, z = scan.data.shape
    return found[:x, :y, :z] if scan.valid is None else found[:x, :y, :z] & scan.valid


def _found(image: nib.Nifti1Image) -> NDArray[np.bool_]:
    with one_thread():
        try:
            _, mask, _ = _networks().run(image)
        except (AssertionError, ValueError):  # what deepbet ends with where no voxel looks like brain
            return np.zeros(image.shape, bool)
    return np.asarray(mask.dataobj) > 0


@cache
def _networks() -> BrainExtraction:
    """Loaded once per process."""
    from deepbet import BrainExtraction

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates the format of the weights
        return BrainExtraction(no_gpu=True)
