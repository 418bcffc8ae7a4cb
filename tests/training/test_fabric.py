"""Which device and precision a fit runs on, from what the machine says of itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from medvae.errors import RunError
from medvae.training import fabric as module
from medvae.training.fabric import make_fabric


def test_precision_auto_asks_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    def precision(**known: bool) -> str:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
        return str(make_fabric("cpu", precision="auto")._precision.precision)

    assert precision(avx512_bf16=True) == "bf16-mixed"
    assert precision(amx_bf16=True) == "bf16-mixed"
    assert precision(avx2=True) == "32-true"
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert str(make_fabric("cpu", precision="auto")._precision.precision) == "32-true"


def test_device_auto_takes_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert make_fabric("auto", precision="32").device == torch.device("cpu")


def test_a_gpu_is_named_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(module, "Fabric", lambda **given: seen.update(given))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: not including_emulation)
    make_fabric("cuda:1", precision="auto")
    assert seen == {"accelerator": "cuda", "devices": [1], "precision": "bf16-mixed"}
    make_fabric("auto", precision="32")
    assert seen == {"accelerator": "cuda", "devices": "auto", "precision": "32-true"}


def test_a_gpu_that_is_not_there_is_a_known_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(RunError, match="there is no device 'cuda'"):
        make_fabric("cuda", precision="auto")
