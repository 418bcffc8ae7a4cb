"""Computing with one thread of torch: the same sums, and so the same bytes, whatever the number of threads."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread within the block; afterwards as many as before."""
    import torch  # not at the top: reading and preparing load it for whole heads only

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
