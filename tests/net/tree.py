# SPDX-License-Identifier: MIT
"""`lslm edge -m` of a lab: its processes, and those who ask it."""
import http.client
import json
import os
import re
import signal
import subprocess
import threading
import time

import lab as net


def alive(pid):
    try:
        with open("/proc/%d/stat" % pid, encoding="utf-8") as f:
            return f.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Tree:
    """`lslm edge -m` of a lab."""

    made = 0

    def __init__(self, lab, *contexts, engines=1, more=(), prefix=(), store="off", wait=True):
        Tree.made += 1
        name = "tree%d" % Tree.made
        self.lab, self.socket = lab, lab.path(name + ".sock")
        self.log_path = lab.path(name + ".log")
        self.log = open(self.log_path, "wb")
        words = [w for c in contexts for w in ("--context", c)]
        self.process = subprocess.Popen(
            [*prefix, net.LSLM, "edge", "-m", net.MODEL, "-t", "1", "--engines", str(engines), "--courier", self.socket,
             "--listen", "127.0.0.1:0", "--cacert", lab.path("tls/ca.pem"), "--token-file", lab.path("tls/token"),
             "--kv-mib", "64", "--store", store, *words, *more],
            env=lab.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, encoding="utf-8")
        lab.children.append(self)
        self.port = 0
        if wait:
            line = self.process.stdout.readline()
            assert line == "courier %s\n" % self.socket, "no courier: %r, %s" % (line, self.tail())
            self.port = int(self.process.stdout.readline().split()[-1])

    def said(self):
        with open(self.log_path, encoding="utf-8") as f:
            return f.read()

    def ready(self, kind):
        """Processes that were said to be, and live."""
        found = re.findall(r"^%s(?: \d+)?: ready, process (\d+)" % kind, self.said(), re.M)
        return [p for p in map(int, found) if alive(p)]

    def engines(self):
        return self.ready("engine")

    def courier(self):
        return self.wait("a courier", lambda: self.ready("courier"))[-1]

    def wait(self, what, is_so, limit=net.LIMIT):
        until = time.monotonic() + limit
        while True:
            got = is_so()
            if got:
                return got
            assert time.monotonic() < until, "not %s\n%s" % (what, self.tail())
            time.sleep(0.02)

    def tail(self):
        """What it said, without a line per request."""
        return "\n".join([x for x in self.said().splitlines() if " POST " not in x][-40:])

    def stat(self):
        got = self.lab.run("stat", "--courier", self.socket, "--json")
        return json.loads(got.stdout) if got.returncode == 0 else None

    def wait_stat(self, what, is_so):
        def look():
            stat = self.stat()
            return stat if stat and is_so(stat) else None
        return self.wait(what, look)

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=net.LIMIT)

    def post(self, path, body, headers=()):
        c = self.connect()
        c.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **dict(headers)})
        return c, c.getresponse()

    def ask(self, question=None, headers=(), **more):
        """(status, reply)"""
        body = {"messages": [{"role": "user", "content": question or self.lab.question}], "context": self.lab.key,
                "temperature": 0, "max_tokens": 32, **more}
        c, got = self.post("/v1/chat/completions", body, headers)
        data = json.loads(got.read())
        c.close()
        return got.status, data

    def contexts(self):
        """As one of the engines sees them: whichever accepts."""
        c = self.connect()
        c.request("GET", "/v1/contexts")
        found = json.loads(c.getresponse().read())["data"]
        c.close()
        return found

    def right(self, **more):
        status, data = self.ask(**more)
        assert status == 200, (status, data)
        assert data["choices"][0]["message"]["content"] + "\n" == self.lab.want, data
        return data

    def kill(self, pid):
        os.kill(pid, signal.SIGKILL)
        self.wait("dead", lambda: not alive(pid))

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(net.LIMIT) == 0, self.tail()
        assert "refused" not in self.said(), self.tail()
        self.stop()

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


class Load(threading.Thread):
    """Somebody who asks all the time; what was not answered rightly is counted by kind."""

    def __init__(self, tree, **more):
        super().__init__(daemon=True)
        self.tree, self.more = tree, more
        self.right, self.wrong, self.failed = 0, [], []
        self.end = threading.Event()
        self.start()

    def run(self):
        while not self.end.is_set():
            try:
                code, data = self.tree.ask(**self.more)
            except (OSError, http.client.HTTPException) as e:
                self.failed.append(repr(e))
                continue
            if code != 200:
                self.failed.append("%d %r" % (code, data))
            elif data["choices"][0]["message"]["content"] + "\n" != self.tree.lab.want:
                self.wrong.append(data)
            else:
                self.right += 1

    def stop(self):
        self.end.set()
        self.join()
        assert not self.wrong, self.wrong[:3]
        return self
