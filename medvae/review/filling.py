"""Pages are files of `page/` with data put in, as text that no browser takes for markup or runs."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from medvae.io.files import atomic, remove_matching, write_text
from medvae.run.record import RESEARCH_USE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FOLDER = "review"  # of the pages, in the folder of a run
_FOLDER = "page"
_ASSET = re.compile(r'"(?:\.\./)?page/(\w+\.(?:css|js))"')  # what a template loads from beside it
_HERE = "<!-- data -->"  # where a template takes its data
_PART = re.compile(r"<!-- (head|stage|note|greys|words) -->\n")  # what templates share


def json_text(tree: Any) -> str:
    """JSON without `<`, `>` and `&`: nothing in it can end the element that it lies in, or begin another one."""
    text = json.dumps(tree, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def base64_text(data: bytes) -> str:
    """Bytes in letters, digits, `+`, `/` and `=`."""
    return b64encode(data).decode("ascii")


def filled(template: str, data: Mapping[str, str]) -> str:
    """A page of `page/` with data in it.

    Args:
        template: name of the file.
        data: texts of `json_text` or `base64_text` by the id of the element that gets them.

    Raises:
        ValueError: a text or an id that could be markup.
    """
    for name, text in data.items():
        if "<" in text or not name.isidentifier():
            raise ValueError(f"the data {name!r} could be taken for markup")
    elements = [f'<script type="text/plain" id="{name}">{text}</script>' for name, text in data.items()]
    return _template(template).replace(_HERE, "\n".join(elements))


def assets(*templates: str) -> tuple[str, ...]:
    """Names of the files of `page/` that pages made from these templates load."""
    texts = (_template(name) for name in templates)
    return tuple(dict.fromkeys(name for text in texts for name in _ASSET.findall(text)))


def write_assets(folder: Path, *templates: str) -> None:
    """Write what pages made from these templates load into `folder`/page."""
    for name in assets(*templates):
        there, data = folder / _FOLDER / name, _read(name)
        if not there.is_file() or there.read_bytes() != data:
            with atomic(there) as partial:
                partial.write_bytes(data)


def write_worklist(
    folder: Path, templates: tuple[str, str], *, facts: Mapping[str, Any], thumbnails: Mapping[str, str]
) -> Path:
    """Write `folder`/index.html, `run.js` with what all pages share, and what they load; returns the worklist.

    Args:
        folder: of the pages.
        templates: of the worklist, and of the page of one scan.
        facts: what all pages share; the notice comes with them.
        thumbnails: PNG by id of the scan, as base64.

    Raises:
        OSError: the disk is full or the folder cannot be written.
    """
    write_assets(folder, *templates)
    shared = json_text({"notice": RESEARCH_USE, **facts})
    write_text(folder / "run.js", f'"use strict";\nglobalThis.medvaeRun = {shared};\n')
    write_text(folder / "index.html", filled(templates[0], {"thumbnails": json_text(thumbnails)}))
    return folder / "index.html"


def remove_pages(out: Path) -> None:
    """Remove the pages of an earlier run from its folder; other files there, e.g. exported verdicts, stay.

    Args:
        out: folder of the run.

    Raises:
        OSError: a file cannot be removed.
    """
    loaded = (f"{_FOLDER}/{one.name}" for one in (files("medvae.review") / _FOLDER).iterdir())
    remove_matching(out / FOLDER, ("index.html", "run.js", "scans/*.html", *loaded))


def _template(name: str) -> str:
    """A template with the parts that it names."""
    return _PART.sub(lambda part: _read(f"_{part[1]}.html").decode("utf-8"), _read(name).decode("utf-8"))


def _read(name: str) -> bytes:
    return (files("medvae.review") / _FOLDER / name).read_bytes()
