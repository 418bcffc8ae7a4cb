"""Which device and precision a training runs on."""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric import Fabric

from medvae.checkpoint.folder import find_device


def make_fabric(device: str, *, precision: str) -> Fabric:
    """Lightning Fabric for a device: "auto", "cpu", "cuda", "cuda:N".

    `precision` "auto" takes bf16 where the hardware multiplies it: GPUs and CPUs that report it. On a CPU with such
    units a step takes 0.6 of the time; on one without it takes thirty times as long as in float32.

    Raises:
        RunError: a GPU that is not there.
    """
    accelerator, _, index = find_device(device).partition(":")
    if precision == "auto":
        precision = "bf16" if _multiplies_bf16(accelerator) else "32"
    kind: Any = "bf16-mixed" if precision == "bf16" else "32-true"
    return Fabric(
        accelerator=accelerator,
        devices=[int(index)] if index else 1 if accelerator == "cpu" else "auto",
        precision=kind,
    )


def _multiplies_bf16(accelerator: str) -> bool:
    if accelerator == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    known: dict[str, Any] = dict(torch.cpu.get_capabilities()) if hasattr(torch.cpu, "get_capabilities") else {}
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
