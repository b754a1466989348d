# SPDX-License-Identifier: MIT
"""Placement over the link of netns.py: a real `lslm cloud` at one end, build/nettests/placement_tool at the other."""
import os
import re
import signal
import subprocess
import threading

import lab as labs
import netns

TOOL = os.path.join(labs.TOP, "build/nettests/placement_tool")


class Cloud:
    """`lslm cloud` in the cloud's namespace, with the lab's context in its store."""

    def __init__(self, lab, net, host=netns.CLOUD4, more=()):
        self.lab, self.net, self.host = lab, net, host
        tls, store = lab.path("tls-" + host.replace(":", "_")), lab.path("placement-store")
        subprocess.run([os.path.join(labs.TOP, "scripts/certs"), tls, host], check=True)
        os.makedirs(store, mode=0o700, exist_ok=True)
        subprocess.run(["cp", lab.file, os.path.join(store, lab.key + ".lskv")], check=True)
        self.tls = tls
        self.brackets = "[%s]" % host if ":" in host else host
        self.log = open(lab.path("placement.log"), "ab")
        self.process = subprocess.Popen(
            net.inside(net.cloud, [labs.LSLM, "cloud", "-m", labs.MODEL, "--listen", self.brackets + ":8443",
                                   "--store", store, "--cert", tls + "/server.pem", "--key",
                                   tls + "/server.key", "--token-file", tls + "/token", *more]),
            env=lab.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log,
            encoding="utf-8")
        lines = [self.process.stdout.readline() for _ in range(2)]
        if not lines[1].startswith("udp port"):
            self.__exit__()
            raise AssertionError("no cloud: %r" % lines)
        self.url = "https://%s:8443/v1/contexts/%s" % (self.brackets, lab.key)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.log.close()


class Edge:
    """The tool, running; its lines are followed in the background."""

    def __init__(self, cloud, seconds=None):
        net, tls = cloud.net, cloud.tls
        command = [TOOL, cloud.url, tls + "/ca.pem", tls + "/token"]
        if seconds:
            command.append(str(seconds))
        self.process = subprocess.Popen(net.inside(net.edge, command), env=cloud.lab.env,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, encoding="utf-8")
        self.ready, self.some = threading.Event(), threading.Event()
        self.chunk = self.rtt = self.bytes = 0
        self.done = None
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def _follow(self):
        for line in self.process.stdout:
            words = line.split()
            if words[0] == "ready":
                self.chunk, self.rtt = int(words[1]), float(words[2])
                self.ready.set()
            elif words[0] == "done":
                self.done = [int(w) for w in words[1:]]
            else:
                self.bytes = int(words[1])
                if self.bytes:
                    self.some.set()
        self.ready.set()
        self.some.set()

    def finish(self, timeout=labs.LIMIT):
        """(authentic, placed, duplicate) datagrams of a run that went well."""
        try:
            code = self.process.wait(timeout)
        finally:
            self.stop()
        assert code == 0 and self.done, self.error
        return self.done

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.thread.join()
        self.error = re.sub(r"\s+", " ", self.process.stderr.read())
        self.process.stdout.close()
        self.process.stderr.close()
