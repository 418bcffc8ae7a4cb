"""Headless Chromium over a pipe, with the standard library alone: opens a page from a file and watches what it does."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"),
    *("--disable-dev-shm-usage", "--remote-debugging-pipe", "--window-size=1280,860", "--hide-scrollbars"),
)
_PATIENCE = 60.0  # seconds that a page may take, on a busy machine
_LEFT = (
    *("Inspected target navigated or closed", "Execution context was destroyed."),
    "Cannot find context with specified id",
)


class PageLeftError(AssertionError):
    """The page that was asked has been left for another one before it answered."""


def executable() -> str | None:
    """Chromium or Chrome, where it is installed."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass
class Tab:
    """A page: what it said on the console, what it asked for."""

    browser: Browser
    session: str
    target: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol."""
        return self.browser.call(method, session=self.session, **parameters)

    def js(self, expression: str) -> Any:
        """What a JavaScript expression gives; promises are awaited."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until a JavaScript expression is true, on this page or on the one that a followed link leads to."""
        end = time.monotonic() + _PATIENCE
        while not self._holds(expression):
            assert time.monotonic() < end, f"{expression} did not become true; {self.complaints}"
            time.sleep(0.02)

    def _holds(self, expression: str) -> bool:
        try:
            return bool(self.js(expression))
        except PageLeftError:
            return False

    def open(self, page: Path | str, *, ready: str = "document.readyState === 'complete'") -> None:
        """Go to a page and wait."""
        url = page.resolve().as_uri() if isinstance(page, Path) else page
        self.call("Page.navigate", url=url)
        self.wait(f"location.href.startsWith({json.dumps(url.partition('#')[0])}) && ({ready})")

    def press(self, key: str, *, code: int = 0, modifiers: int = 0) -> None:
        """A key, down and up."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        common = {"key": key, "modifiers": modifiers, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def close(self) -> None:
        """Close it: an open page goes on to draw."""
        self.browser.close(self)

    def picture(self) -> bytes:
        """A PNG of what is seen."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def note(self, event: dict[str, Any]) -> None:
        """Remember what an event says."""
        method, found = event["method"], event["params"]
        if method == "Network.requestWillBeSent":
            self.requests.append(found["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(found["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and found["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(one.get("value", one)) for one in found["args"]))
        elif method == "Log.entryAdded" and found["entry"]["level"] in ("error", "warning"):
            self.complaints.append(found["entry"]["text"])
        elif method == "Page.javascriptDialogOpening":
            self.complaints.append(f"dialog: {found['message']}")


class Browser:
    """A browser of its own, with an empty profile; a context manager."""

    def __init__(self, *more: str) -> None:
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        command = [executable() or "", *FLAGS, *more, f"--user-data-dir={self._profile}", "about:blank"]
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        script = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", script, "bash", str(theirs_in), str(theirs_out), *command],
            pass_fds=(theirs_in, theirs_out),
            env={**os.environ, "TMPDIR": self._profile},  # else it leaves folders in /tmp
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._left, self._number = b"", 0
        self._tabs: dict[str, Tab] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)
        shutil.rmtree(self._profile, ignore_errors=True)

    def tab(self, *, width: int = 1280, height: int = 860, dark: bool = False) -> Tab:
        """A new page."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = self._tabs[session] = Tab(self, session, target)
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            tab.call(f"{domain}.enable")
        tab.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        tab.call("Emulation.setEmulatedMedia", features=[scheme])
        return tab

    def close(self, tab: Tab) -> None:
        """Close a page."""
        self.call("Target.closeTarget", targetId=tab.target)
        del self._tabs[tab.session]

    def call(self, method: str, *, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol; events that come before its answer are noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(self._out, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            if answer.get("sessionId") in self._tabs:
                self._tabs[answer["sessionId"]].note(answer)
        if "error" in answer:
            kind = PageLeftError if answer["error"]["message"] in _LEFT else AssertionError
            raise kind(f"{method}: {answer['error']}")
        found: dict[str, Any] = answer["result"]
        return found

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            piece = os.read(self._in, 1 << 20)
            assert piece, "the browser has ended"
            self._left += piece
        message, _, self._left = self._left.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found
