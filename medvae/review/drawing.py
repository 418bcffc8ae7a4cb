"""What pictures have in common: text that the font can show, and libraries that are imported before a thread draws."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from matplotlib.font_manager import FontProperties, findfont, get_font
from PIL import Image

_BOX = "\N{WHITE SQUARE}"


def drawable(text: str) -> str:
    """A text as matplotlib draws it: two `$` begin no formula, and a character that the font lacks, of which it would
    warn, is a box.
    """
    known = "".join(one if one.isspace() or ord(one) in _glyphs() else _BOX for one in text)
    return known.replace("$", r"\$")


def import_what_drawing_needs() -> None:
    """Import what matplotlib and pillow import only when they draw.

    Pictures are written in a thread. A Ctrl-C that comes while the main thread imports something may leave the lock of
    imports closed; the thread would then wait for it, and the main thread for the thread.
    """
    Image.preinit()
    import_module("contourpy")


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties())).get_charmap())
