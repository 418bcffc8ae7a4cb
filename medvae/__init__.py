"""medvae: 3D variational autoencoders for medical scans. Research use only.

The public names load what they need when they are first used: `import medvae` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medvae.cohort import find, read
    from medvae.errors import MedVAEError, RunError, ScanError
    from medvae.inference import Inference, infer
    from medvae.io.nifti import write
    from medvae.maps import AnomalyMap, anomaly_map
    from medvae.model import Model
    from medvae.model import load as load_model
    from medvae.prepare import Preparation, Prepared, coverage, restore
    from medvae.prepare import prepare as prepare_scan
    from medvae.reference import Reference
    from medvae.scan import Geometry, Scan, ScanRef, Selection
    from medvae.settings import Settings
    from medvae.settings import load as load_settings

__version__ = "0.1.0"

__all__ = [
    "AnomalyMap",
    "Geometry",
    "Inference",
    "MedVAEError",
    "Model",
    "Preparation",
    "Prepared",
    "Reference",
    "RunError",
    "Scan",
    "ScanError",
    "ScanRef",
    "Selection",
    "Settings",
    "anomaly_map",
    "coverage",
    "find",
    "infer",
    "load_model",
    "load_settings",
    "prepare_scan",
    "read",
    "restore",
    "write",
]

# Public name -> the module it lives in, and its name there.
_HOMES = {
    "AnomalyMap": ("maps", "AnomalyMap"),
    "Geometry": ("scan", "Geometry"),
    "Inference": ("inference", "Inference"),
    "MedVAEError": ("errors", "MedVAEError"),
    "Model": ("model", "Model"),
    "Preparation": ("prepare", "Preparation"),
    "Prepared": ("prepare", "Prepared"),
    "Reference": ("reference", "Reference"),
    "RunError": ("errors", "RunError"),
    "Scan": ("scan", "Scan"),
    "ScanError": ("errors", "ScanError"),
    "ScanRef": ("scan", "ScanRef"),
    "Selection": ("scan", "Selection"),
    "Settings": ("settings", "Settings"),
    "anomaly_map": ("maps", "anomaly_map"),
    "coverage": ("prepare", "coverage"),
    "find": ("cohort", "find"),
    "infer": ("inference", "infer"),
    "load_model": ("model", "load"),
    "load_settings": ("settings", "load"),
    "prepare_scan": ("prepare", "prepare"),  # `medvae.prepare` is a module
    "read": ("cohort", "read"),
    "restore": ("prepare", "restore"),
    "write": ("io.nifti", "write"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'medvae' has no attribute {name!r}")
    module, inner = _HOMES[name]
    return getattr(import_module(f"medvae.{module}"), inner)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
