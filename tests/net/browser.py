# SPDX-License-Identifier: MIT
"""Chromium without a window, driven over the pipe of its DevTools protocol."""
import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

import lab as net

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find():
    return next((p for p in map(shutil.which, NAMES) if p), None)


class Browser:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="lslm-browser-")
        to_child, self.out = os.pipe()
        self.into, from_child = os.pipe()
        self.serial, self.buffer, self.events = 0, b"", []

        def wire():  # the browser reads descriptor 3 and writes 4
            os.dup2(to_child, 100)
            os.dup2(from_child, 101)
            os.dup2(100, 3)
            os.dup2(101, 4)

        self.process = subprocess.Popen(
            [find(), "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run",
             "--disable-background-networking", "--user-data-dir=" + self.dir, "about:blank"],
            preexec_fn=wire, close_fds=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        os.close(to_child)
        os.close(from_child)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Accessibility", "Log"):
            self.page(domain + ".enable")

    def _read(self, until):
        while b"\0" not in self.buffer:
            assert select.select([self.into], [], [], max(0, until - time.monotonic()))[0], "the browser is silent"
            data = os.read(self.into, 1 << 20)
            assert data, "the browser has ended"
            self.buffer += data
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, session=None, **params):
        self.serial += 1
        message = {"id": self.serial, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + net.LIMIT
        while True:
            got = self._read(until)
            if got.get("id") == self.serial:
                assert "error" not in got, (method, got["error"])
                return got["result"]
            if "method" in got:
                self.events.append(got)

    def page(self, method, **params):
        return self.call(method, self.session, **params)

    def run(self, script):
        got = self.page("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    def wait(self, script, limit=net.LIMIT):
        until = time.monotonic() + limit
        while not self.run(script):
            assert time.monotonic() < until, "never: " + script + "\n" + str(self.run("document.body.innerText"))
            time.sleep(0.05)

    def size(self, width, height, mobile=False):
        self.page("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def scheme(self, name):
        self.page("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def picture(self, path):
        with open(path, "wb") as f:
            f.write(base64.b64decode(self.page("Page.captureScreenshot", captureBeyondViewport=True)["data"]))

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.out)
        os.close(self.into)
        shutil.rmtree(self.dir, ignore_errors=True)
