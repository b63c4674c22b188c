"""A real Firefox without a window, by WebDriver BiDi, which it speaks itself; it needs no driver of its own."""

import base64
import json
import re
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from websockets.sync.client import connect

from support.console_site import until
from support.program import die_with_parent

PACKAGE = "firefox-esr"
START_S = 60.0
ANSWER_S = 30.0
PREFERENCES = {
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "",
    "toolkit.telemetry.enabled": False,
}


def missing() -> str | None:
    """What to do before Firefox can be run on this machine; None: nothing."""
    return None if shutil.which(PACKAGE) else f"no Firefox here; run: apt-get install --no-install-recommends {PACKAGE}"


class Firefox:
    """`with Firefox() as firefox: firefox.goto(url)`; `faults` holds what scripts failed with and pages refused."""

    def __enter__(self) -> Self:
        self._opened = ExitStack()
        self._folder = tempfile.TemporaryDirectory(prefix="firefox")
        profile = Path(self._folder.name)
        lines = [f"user_pref({json.dumps(key)}, {json.dumps(value)});" for key, value in PREFERENCES.items()]
        (profile / "user.js").write_text("\n".join(lines))
        command = [PACKAGE, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port=0"]
        self._log = (profile / "log").open("w+")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log, preexec_fn=die_with_parent)
        said = until(lambda: re.search(r"listening on (ws://\S+)", (profile / "log").read_text()), START_S)
        self._socket = self._opened.enter_context(connect(f"{said[1]}/session", max_size=None))
        self._numbers = count()
        self.faults: list[str] = []
        self._ask("session.new", capabilities={})
        self._ask("session.subscribe", events=["log.entryAdded"])
        self._page = self._ask("browsingContext.getTree")["contexts"][0]["context"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()
        self._process.terminate()
        self._process.wait(20)
        self._log.close()
        self._folder.cleanup()

    def goto(self, url: str, size_px: tuple[int, int] = (1366, 768)) -> None:
        """Show a page, once it is loaded."""
        viewport = {"width": size_px[0], "height": size_px[1]}
        self._ask("browsingContext.setViewport", context=self._page, viewport=viewport)
        self._ask("browsingContext.navigate", context=self._page, url=url, wait="complete")

    def evaluate(self, expression: str) -> Any:
        """Return an expression's value, awaited, as JSON holds it."""
        answer = self._ask(
            "script.evaluate",
            expression=f"Promise.resolve({expression}).then((value) => JSON.stringify(value ?? null))",
            target={"context": self._page},
            awaitPromise=True,
        )
        if answer["type"] != "success":
            raise AssertionError(answer["exceptionDetails"]["text"])
        return json.loads(answer["result"]["value"])

    def click(self, selector: str) -> None:
        """Click in the middle of an element, with the mouse."""
        box = self.evaluate(f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()")
        place = {"x": round(box["x"] + box["width"] / 2), "y": round(box["y"] + box["height"] / 2)}
        kinds = (
            {"type": "pointerMove", **place},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        )
        source = {"type": "pointer", "id": "mouse", "actions": kinds}
        self._ask("input.performActions", context=self._page, actions=[source])

    def press(self, key: str) -> None:
        """Press a key and release it; Enter clicks nothing, as a window that is not on a screen has no focus."""
        actions = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        source = {"type": "key", "id": "keyboard", "actions": actions}
        self._ask("input.performActions", context=self._page, actions=[source])

    def screenshot(self, path: Path) -> None:
        """Save what the window shows."""
        path.write_bytes(base64.b64decode(self._ask("browsingContext.captureScreenshot", context=self._page)["data"]))

    def _ask(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=ANSWER_S))
            if message.get("method") == "log.entryAdded" and message["params"]["level"] == "error":
                self.faults.append(str(message["params"]["text"]))
            if message.get("id") == number:
                if message["type"] == "error":
                    raise AssertionError(f"{method}: {message['error']}: {message['message']}")
                return message["result"]
