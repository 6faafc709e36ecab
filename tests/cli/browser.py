"""A headless Chromium, driven through the pipe of its DevTools protocol: pages opened at a window's size, asked, and photographed. No packages needed.

By hand:  python3 tests/cli/browser.py PAGE.html OUT.png [WIDTH [dark]]
"""
import base64
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless_shell")
SECONDS = 60  # that an answer may take


def program():
    """The browser to use: $MEZZO_CHROMIUM, or the first known one in PATH; None without one."""
    named = os.environ.get("MEZZO_CHROMIUM")
    return named if named else next((p for p in map(shutil.which, NAMES) if p), None)


class Browser:
    """A process without a window and without a network: every host name is unknown to it."""

    def __init__(self, path):
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()

        def pipes():  # the protocol's: commands come in by 3, answers go out by 4
            os.setsid()
            a, b = os.dup(to_browser), os.dup(from_browser)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self._process = subprocess.Popen(
            [path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
             "--hide-scrollbars", "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={self._profile.name}", "--remote-debugging-pipe", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=pipes, close_fds=False)
        os.close(to_browser)
        os.close(from_browser)
        self._buffer, self._last, self._session = b"", 0, None
        self.messages = []  # what arrived unasked for, oldest first
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    def _next(self, deadline):
        while b"\0" not in self._buffer:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the browser gave no answer within {SECONDS} s")
            part = os.read(self._read, 1 << 20)
            if not part:
                raise EOFError("the browser has ended")
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def ask(self, method, **parameters):
        """The result of a command of the protocol."""
        self._last += 1
        command = {"id": self._last, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        data = json.dumps(command).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data):]
        deadline = time.monotonic() + SECONDS
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.messages.append(answer)

    def open(self, path, width, height=844, phone=False, dark=False):
        """Shows a file as a window of this size would, and waits until it is there."""
        self.messages.clear()
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if phone else 1, mobile=phone)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.ask("Page.navigate", url=pathlib.Path(path).resolve().as_uri())
        deadline = time.monotonic() + SECONDS
        while not any(m.get("method") == "Page.loadEventFired" for m in self.messages):
            self.messages.append(self._next(deadline))

    def evaluate(self, expression):
        """The value of a JavaScript expression in the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def complaints(self):
        """Everything that the console of the page would show: errors, warnings, remarks, exceptions."""
        self.evaluate("1")  # what was said before has arrived with this
        out = []
        for m in self.messages:
            p = m.get("params", {})
            if m.get("method") == "Log.entryAdded":
                out.append(f"{p['entry']['level']}: {p['entry']['text']}")
            elif m.get("method") == "Runtime.consoleAPICalled":
                out.append(f"{p['type']}: {[a.get('value') for a in p['args']]}")
            elif m.get("method") == "Runtime.exceptionThrown":
                out.append(f"exception: {p['exceptionDetails'].get('text')}")
        return out

    def requests(self):
        """Addresses that the page asked for, its own first."""
        return [m["params"]["request"]["url"] for m in self.messages if m.get("method") == "Network.requestWillBeSent"]

    def photograph(self, path):
        """The whole page, from top to bottom, as PNG."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 16000), "scale": 1}
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        pathlib.Path(path).write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    if len(sys.argv) < 3 or not program():
        sys.exit(__doc__ if program() else "no chromium found")
    width = int(sys.argv[3]) if len(sys.argv) > 3 else 1200
    with Browser(program()) as browser:
        browser.open(sys.argv[1], width, phone=width < 600, dark="dark" in sys.argv[4:])
        browser.photograph(sys.argv[2])
