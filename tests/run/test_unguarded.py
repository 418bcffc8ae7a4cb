"""Workers of a script that is not made to be imported: each of them runs it again, and cannot start."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
from pathlib import Path

from medvae.run.engine import run_jobs
from medvae.run.folder import OutputFolder
from medvae.run.processes import Processes
from medvae.run.work import Result
from medvae.scan import ScanRef

here = Path(__file__).parent
refs = [ScanRef("a", "text", (here / "a",))]
with OutputFolder(here / "out", command="test", identity={}, exclusive=True) as folder:
    run_jobs(refs, repr, lambda ref, text: Result(), folder=folder, engine=Processes(1), stage="test")
"""


def test_it_is_told_how_to_be_written(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("scan", "utf-8")
    (tmp_path / "script.py").write_text(SCRIPT, "utf-8")
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=False)
    assert "RunError: the processes that read ahead cannot start" in done.stderr
    assert '`if __name__ == "__main__":`, or pass workers=0' in done.stderr
