"""Blocks of the networks."""

from __future__ import annotations

import pytest
import torch

from medvae.vae.blocks import Conv


@pytest.mark.parametrize("size", [(2, 4, 4), (2, 2, 2), (4, 2, 2), (1, 3, 3)])
def test_gradients_in_bf16_are_those_in_float32(size: tuple[int, int, int]) -> None:
    """With two voxels along the first axis torch gives what happens to be in memory: here, huge numbers."""
    torch.manual_seed(0)
    conv, image = Conv(16, 16), torch.randn(2, 16, *size)
    towards = torch.randn(2, 16, *size)
    conv(image).backward(towards)
    expected = conv.weight.grad.clone()
    for _ in range(4):
        conv.weight.grad = None
        garbage = [torch.full((30_000 + 977 * i,), 3e34) for i in range(60)]
        del garbage
        with torch.autocast("cpu", torch.bfloat16):
            found = conv(image)
        found.backward(towards.to(found.dtype))
        assert (conv.weight.grad - expected).abs().max() < 0.03 * expected.abs().max()
