"""medvae: 3D variational autoencoders for medical scans. Research use only.

The public names load what they need when they are first used: `import medvae` costs nothing.
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medvae.anomaly.anomaly_map import AnomalyMap, anomaly_map
    from medvae.anomaly.detect import detect
    from medvae.anomaly.detection import Detection
    from medvae.anomaly.inference import Inference, infer
    from medvae.anomaly.reference import Reference, reference_of
    from medvae.checkpoint.folder import load_model
    from medvae.checkpoint.model import Model
    from medvae.cohort.find import Cohort, find
    from medvae.cohort.read import read
    from medvae.errors import MedVAEError, RunError, ScanError
    from medvae.io.writing import write
    from medvae.pipelines.calibrate import calibrate
    from medvae.pipelines.evaluate import evaluate
    from medvae.pipelines.evaluate_augment import evaluate_augment
    from medvae.pipelines.train import train
    from medvae.prepare.native import coverage, to_native
    from medvae.prepare.preparation import Preparation, Prepared
    from medvae.prepare.preparation import prepare as prepare_scan
    from medvae.scan import Geometry, Scan, ScanRef, Selection
    from medvae.settings import Settings, load_settings
    from medvae.synthesis.dataset import RandSyntheticd, SyntheticDataset
    from medvae.synthesis.synthesize import synthesize
    from medvae.synthesis.synthetic import Synthetic

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a library is silent until somebody listens

__all__ = [
    "AnomalyMap",
    "Cohort",
    "Detection",
    "Geometry",
    "Inference",
    "MedVAEError",
    "Model",
    "Preparation",
    "Prepared",
    "RandSyntheticd",
    "Reference",
    "RunError",
    "Scan",
    "ScanError",
    "ScanRef",
    "Selection",
    "Settings",
    "Synthetic",
    "SyntheticDataset",
    "anomaly_map",
    "calibrate",
    "coverage",
    "detect",
    "evaluate",
    "evaluate_augment",
    "find",
    "infer",
    "load_model",
    "load_settings",
    "prepare_scan",
    "read",
    "reference_of",
    "synthesize",
    "to_native",
    "train",
    "write",
]

# Public name -> the module it lives in, and its name there.
_HOMES = {
    "AnomalyMap": ("anomaly.anomaly_map", "AnomalyMap"),
    "Cohort": ("cohort.find", "Cohort"),
    "Detection": ("anomaly.detection", "Detection"),
    "Geometry": ("scan", "Geometry"),
    "Inference": ("anomaly.inference", "Inference"),
    "MedVAEError": ("errors", "MedVAEError"),
    "Model": ("checkpoint.model", "Model"),
    "Preparation": ("prepare.preparation", "Preparation"),
    "Prepared": ("prepare.preparation", "Prepared"),
    "RandSyntheticd": ("synthesis.dataset", "RandSyntheticd"),
    "Reference": ("anomaly.reference", "Reference"),
    "RunError": ("errors", "RunError"),
    "Scan": ("scan", "Scan"),
    "ScanError": ("errors", "ScanError"),
    "ScanRef": ("scan", "ScanRef"),
    "Selection": ("scan", "Selection"),
    "Settings": ("settings", "Settings"),
    "Synthetic": ("synthesis.synthetic", "Synthetic"),
    "SyntheticDataset": ("synthesis.dataset", "SyntheticDataset"),
    "anomaly_map": ("anomaly.anomaly_map", "anomaly_map"),
    "calibrate": ("pipelines.calibrate", "calibrate"),
    "coverage": ("prepare.native", "coverage"),
    "detect": ("anomaly.detect", "detect"),
    "evaluate": ("pipelines.evaluate", "evaluate"),
    "evaluate_augment": ("pipelines.evaluate_augment", "evaluate_augment"),
    "find": ("cohort.find", "find"),
    "infer": ("anomaly.inference", "infer"),
    "load_model": ("checkpoint.folder", "load_model"),
    "load_settings": ("settings", "load_settings"),
    "prepare_scan": ("prepare.preparation", "prepare"),  # `medvae.prepare` is a module
    "read": ("cohort.read", "read"),
    "reference_of": ("anomaly.reference", "reference_of"),
    "synthesize": ("synthesis.synthesize", "synthesize"),
    "to_native": ("prepare.native", "to_native"),
    "train": ("pipelines.train", "train"),
    "write": ("io.writing", "write"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'medvae' has no attribute {name!r}")
    module, inner = _HOMES[name]
    return getattr(import_module(f"medvae.{module}"), inner)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
