"""The manifest: the last line of an id counts, read as it grows, broken lines passed over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medvae.run.manifest import Manifest
from medvae.run.outcomes import Outcome

if TYPE_CHECKING:
    from pathlib import Path


def test_what_others_append_is_seen(tmp_path: Path) -> None:
    mine, other = Manifest(tmp_path / "m"), Manifest(tmp_path / "m")
    assert mine.outcomes() == {}
    other.append(Outcome("a", "failed"))
    mine.append(Outcome("B", "ok", facts={"class": "naïve"}))
    assert mine.outcomes() == other.outcomes() == {"a": Outcome("a", "failed"), "b": mine.outcomes()["b"]}
    other.append(Outcome("a", "ok"))
    assert mine.outcomes()["a"].status == "ok"


def test_a_line_counts_when_it_is_whole(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "m")
    manifest.append(Outcome("a", "ok"))
    line = manifest.path.read_bytes().replace(b'"a"', b'"b"')
    with open(manifest.path, "ab") as file:
        file.write(line[:20])
    assert list(manifest.outcomes()) == ["a"]
    with open(manifest.path, "ab") as file:
        file.write(line[20:])
    assert list(manifest.outcomes()) == ["a", "b"]


def test_a_line_that_was_never_finished_and_foreign_ones_are_passed_over(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "m")
    manifest.path.write_bytes(b'[1]\n{"id": "x"}\n\xff\xfe\nnull\n{"id": "s", "status": "o')
    manifest.append(Outcome("t", "ok", message="naïve \udcff"))
    assert list(manifest.outcomes()) == ["t"]
    assert manifest.path.read_bytes().splitlines()[-2] == b'{"id": "s", "status": "o'


def test_all_lines_may_be_replaced(tmp_path: Path) -> None:
    manifest, other = Manifest(tmp_path / "m"), Manifest(tmp_path / "m")
    for status in ("failed", "ok"):
        manifest.append(Outcome("a", status, outputs=("cache/a",)))  # type: ignore[arg-type]
    assert other.outcomes()["a"].outputs == ("cache/a",)
    manifest.rewrite([Outcome("a", "ok", message="naïve \udcff")])
    assert len(manifest.path.read_bytes().splitlines()) == 1
    assert manifest.outcomes()["a"].outputs == other.outcomes()["a"].outputs == ()


def test_a_manifest_that_was_begun_anew_is_read_anew(tmp_path: Path) -> None:
    manifest = Manifest(tmp_path / "m")
    manifest.append(Outcome("a", "ok"))
    assert list(manifest.outcomes()) == ["a"]
    manifest.path.unlink()
    assert manifest.outcomes() == {}
    manifest.append(Outcome("b", "ok"))
    assert list(manifest.outcomes()) == ["b"]
    manifest.path.write_bytes(b"")
    assert manifest.outcomes() == {}
