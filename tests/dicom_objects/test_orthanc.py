"""An archive (Orthanc, started here) takes all objects by its REST interface and DICOMweb, finds them, gives them back.

C-STORE needs a program that sends (storescu of DCMTK); without it that part is skipped.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
import pytest
from made_objects import PICTURE, content, planes, series
from pydicom import dcmread

from medvae.dicom_objects.objects import for_fusion, map_and_candidates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from medvae.dicom_objects.objects import Objects

PROGRAM = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
PLUGIN = next(Path("/usr/share/orthanc/plugins").glob("libOrthancDicomWeb.so*"), None)
OPENER = build_opener(ProxyHandler({}))  # of this machine: no proxy
pytestmark = pytest.mark.skipif(not Path(PROGRAM).exists(), reason="needs Orthanc (Debian: orthanc)")


@dataclass(frozen=True)
class Archive:
    """A running Orthanc."""

    http: int
    dicom: int

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> Any:
        """What it answers, JSON as data."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        with OPENER.open(Request(f"http://127.0.0.1:{self.http}{path}", body, names), timeout=20) as answer:
            data = answer.read()
            return json.loads(data) if "json" in answer.headers.get("Content-Type", "") else data


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    """On free ports, with all it keeps in a temporary folder."""
    folder = tmp_path_factory.mktemp("orthanc")
    http, dicom = free_port(), free_port()
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "store"),
        "HttpPort": http,
        "DicomPort": dicom,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "HttpsCACertificates": "",
        "Plugins": [str(PLUGIN)] if PLUGIN else [],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "settings.json").write_text(json.dumps(settings), "utf-8")
    with open(folder / "log", "wb") as log:
        program = subprocess.Popen([PROGRAM, str(folder / "settings.json")], stdout=log, stderr=log)
    try:
        started = Archive(http, dicom)
        wait_for(started, program, folder / "log")
        yield started
    finally:
        program.terminate()
        program.wait(20)


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(archive: Archive, program: subprocess.Popen[bytes], log: Path) -> None:
    """Until it answers; skips where it cannot start here."""
    for _ in range(100):
        if program.poll() is not None:
            pytest.skip(f"Orthanc does not start: {log.read_text('utf-8', errors='replace')[-300:]}")
        try:
            archive.ask("/system")
        except URLError:
            time.sleep(0.1)
        else:
            return
    pytest.skip("Orthanc does not answer within 10 seconds")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    source = series(tmp_path_factory.mktemp("series"), planes()["oblique"])
    shown = content(source.geometry)
    return map_and_candidates(source, shown) | for_fusion(source, shown, PICTURE)


def uids(objects: Objects) -> dict[str, str]:
    """SOP Instance UIDs by name."""
    return {name: str(dcmread(BytesIO(data)).SOPInstanceUID) for name, data in objects.files.items()}


def test_what_is_stored_is_found_and_comes_back(archive: Archive, objects: Objects) -> None:
    for data in objects.files.values():
        assert archive.ask("/instances", data)["Status"] in ("Success", "AlreadyStored")
    for name, uid in uids(objects).items():
        query = json.dumps({"Level": "Instance", "Query": {"SOPInstanceUID": uid}}).encode()
        (key,) = archive.ask("/tools/find", query)
        back = dcmread(BytesIO(archive.ask(f"/instances/{key}/file")))
        there = dcmread(BytesIO(objects.files[name]))
        if "Rows" in there:
            assert np.array_equal(back.pixel_array, there.pixel_array)
        assert back.SeriesDescription == there.SeriesDescription
    studies = archive.ask("/studies?expand")
    assert len(studies) == 1
    assert len(studies[0]["Series"]) == 6


@pytest.mark.skipif(PLUGIN is None, reason="needs the DICOMweb plug-in of Orthanc (Debian: orthanc-dicomweb)")
def test_dicomweb_stores_and_finds_them(archive: Archive, objects: Objects) -> None:
    parts = b"".join(
        b"--part\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n" for data in objects.files.values()
    )
    kind = 'multipart/related; type="application/dicom"; boundary=part'
    answer = archive.ask(
        "/dicom-web/studies", parts + b"--part--\r\n", Content_Type=kind, Accept="application/dicom+json"
    )
    stored = {one["00081155"]["Value"][0] for one in answer["00081199"]["Value"]}
    assert stored == set(uids(objects).values())
    found = archive.ask("/dicom-web/instances?Modality=SEG", Accept="application/dicom+json")
    assert {one["00080018"]["Value"][0] for one in found} == {
        uids(objects)[name] for name in ("candidates.dcm", "strengths.dcm")
    }


@pytest.mark.skipif(shutil.which("storescu") is None, reason="needs storescu (Debian: dcmtk)")
def test_they_are_sent_by_c_store(archive: Archive, objects: Objects, tmp_path: Path) -> None:
    for number, data in enumerate(objects.files.values()):
        (tmp_path / f"{number}.dcm").write_bytes(data)
    command = ["storescu", "-R", "-aec", "ORTHANC", "127.0.0.1", str(archive.dicom), "+sd", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert run.returncode == 0, run.stderr
    for uid in uids(objects).values():
        query = json.dumps({"Level": "Instance", "Query": {"SOPInstanceUID": uid}}).encode()
        assert len(archive.ask("/tools/find", query)) == 1
