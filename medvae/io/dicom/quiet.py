"""Silence around the libraries that read and write DICOM: their warnings and log lines quote what they read."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOGGERS = ("pydicom", "highdicom", "pylibjpeg", "openjpeg", "jpeg_ls")


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress their warnings and log lines; our own errors report what is broken."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
