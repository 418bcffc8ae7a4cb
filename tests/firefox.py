"""Firefox by its Marionette protocol, with the standard library alone: opens a page from a file and reads it.

It runs on a screen in memory (Xvfb): without one, Firefox for Linux has no WebGL where there is no graphics card.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

PREFERENCES = {
    "marionette.port": 0,  # it chooses one
    "webgl.force-enabled": True,  # by software, where there is no graphics card
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.enabled": False,
    "app.normandy.enabled": False,
}
FLAGS = ("--marionette", "--remote-allow-system-access", "--no-remote", "--width=1280", "--height=960")
_PATIENCE = 60.0  # seconds that a page may take, on a busy machine
_CONSOLE = """return Services.console.getMessageArray()
    .filter((one) => one.errorMessage && (one.sourceName ?? '').startsWith('file:'))
    .map((one) => `${one.sourceName.split('/').at(-1)}: ${one.errorMessage}`)"""


def executable() -> str | None:
    """Firefox, where it and a screen in memory are installed."""
    browser = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)
    return browser if shutil.which("Xvfb") else None


def _screen() -> tuple[subprocess.Popen[bytes], str]:
    """A screen in memory, and its name."""
    ours, theirs = os.pipe()
    command = ["Xvfb", "-displayfd", str(theirs), "-screen", "0", "1280x1024x24", "-nolisten", "tcp"]
    screen = subprocess.Popen(command, pass_fds=(theirs,), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(theirs)
    with os.fdopen(ours) as written:
        return screen, f":{written.readline().strip()}"


class Firefox:
    """A browser of its own with an empty profile and one page; a context manager."""

    def __init__(self) -> None:
        self._profile = Path(tempfile.mkdtemp(prefix="firefox-"))
        lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items())
        (self._profile / "user.js").write_text("".join(lines), "utf-8")
        self._screen, display = _screen()
        self._process = subprocess.Popen(
            [executable() or "", *FLAGS, "--profile", str(self._profile)],
            env={**os.environ, "HOME": str(self._profile), "DISPLAY": display},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._number = 0

    def __enter__(self) -> Self:
        self._socket = socket.create_connection(("127.0.0.1", self._port()))
        self._file = self._socket.makefile("rb")
        self._receive()  # who it is
        self.call("WebDriver:NewSession", capabilities={})
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()
        self._process.terminate()
        self._process.wait()
        self._screen.terminate()
        self._screen.wait()
        shutil.rmtree(self._profile, ignore_errors=True)

    def _port(self) -> int:
        """The port that it chose, which it writes into its profile."""
        end = time.monotonic() + _PATIENCE
        while not (written := self._profile / "MarionetteActivePort").is_file() or not written.read_text():
            assert self._process.poll() is None, "Firefox does not start"
            assert time.monotonic() < end, "Firefox opens no port"
            time.sleep(0.05)
        return int(written.read_text())

    def call(self, name: str, **parameters: Any) -> Any:
        """A command of the protocol."""
        self._number += 1
        message = json.dumps([0, self._number, name, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(message), message))
        _, number, error, found = self._receive()
        assert number == self._number
        assert error is None, f"{name}: {error}"
        return found

    def _receive(self) -> Any:
        length = b""
        while (letter := self._file.read(1)) != b":":
            assert letter, "the browser has ended"
            length += letter
        return json.loads(self._file.read(int(length)))

    def js(self, expression: str) -> Any:
        """What a JavaScript expression gives; promises are awaited."""
        script = f"const done = arguments[0]; Promise.resolve({expression}).then(done);"
        return self.call("WebDriver:ExecuteAsyncScript", script=script, args=[], sandbox=None)["value"]

    def wait(self, expression: str) -> None:
        """Until a JavaScript expression is true."""
        end = time.monotonic() + _PATIENCE
        while not self.js(expression):
            assert time.monotonic() < end, f"{expression} did not become true; {self.complaints()}"
            time.sleep(0.05)

    def open(self, page: Path, *, ready: str = "document.readyState === 'complete'") -> None:
        """Go to a page and wait."""
        self.call("WebDriver:Navigate", url=page.resolve().as_uri())
        self.wait(ready)

    def picture(self) -> bytes:
        """A PNG of what is seen."""
        return base64.b64decode(self.call("WebDriver:TakeScreenshot", full=False)["value"])

    def complaints(self) -> list[str]:
        """What the console has of pages from files: errors, warnings, what the content security policy forbids."""
        found: list[str] = self.inside(_CONSOLE)
        return found

    def inside(self, script: str) -> Any:
        """What a script of the browser itself returns, e.g. one that sets a preference."""
        self.call("Marionette:SetContext", value="chrome")
        found = self.call("WebDriver:ExecuteScript", script=script, args=[])["value"]
        self.call("Marionette:SetContext", value="content")
        return found
