# SPDX-License-Identifier: MIT
"""What the tests of the HTTP front share: a front of a lab, and requests to it."""
import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import threading
import time

import lab as net

TOOL = os.path.join(net.TOP, "build/nettests/front_tool")


class Front:
    """front_tool of a lab, at a free port of loopback."""

    def __init__(self, lab, *args, name="front", tls=False):
        self.lab, self.tls = lab, tls
        self.log_path = lab.path(name + ".log")
        self.log = open(self.log_path, "wb")
        if tls:
            args += ("cert=" + lab.path("tls/server.pem"), "key=" + lab.path("tls/server.key"))
        self.process = subprocess.Popen([TOOL, net.MODEL, *args], env=lab.env, cwd=lab.dir,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=self.log, encoding="utf-8")
        lab.children.append(self)
        line = self.process.stdout.readline()
        assert line.startswith("listening on port "), "no front: %r, %s" % (line, self.said())
        self.port = int(line.split()[-1])
        self.url = "%s://localhost:%d" % ("https" if tls else "http", self.port)

    def said(self):
        self.log.flush()
        with open(self.log_path, encoding="utf-8") as f:
            return f.read()

    def connect(self, timeout=net.LIMIT):
        if not self.tls:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        context = ssl.create_default_context(cafile=self.lab.path("tls/ca.pem"))
        return http.client.HTTPSConnection("localhost", self.port, timeout=timeout, context=context)

    def send(self, method, path, body=None, headers=()):
        """A connection whose request was sent."""
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if isinstance(body, str):
            body = body.encode()
        c = self.connect()
        c.request(method, path, body, dict(headers))
        return c

    def ask(self, method, path, body=None, headers=()):
        """(status, reply, headers); the reply is read as JSON where it is."""
        c = self.send(method, path, body, headers)
        got = c.getresponse()
        data = got.read().decode()
        c.close()
        if got.headers.get("Content-Type", "").startswith("application/json"):
            data = json.loads(data)
        return got.status, data, got.headers

    def get(self, path, **headers):
        status, data, _ = self.ask("GET", path, headers=headers)
        assert status == 200, (status, data)
        return data

    def chat(self, question, headers=(), **more):
        """A reply that is 200. With stream: the events."""
        body = {"messages": messages(question), "temperature": 0, "max_tokens": 32, **more}
        return self.answer("/v1/chat/completions", body, headers)

    def complete(self, prompt, headers=(), **more):
        return self.answer("/v1/completions", {"prompt": prompt, "temperature": 0, "max_tokens": 32,
                                               **more}, headers)

    def answer(self, path, body, headers=()):
        status, data, got = self.ask("POST", path, body, headers)
        assert status == 200, (status, data)
        if not body.get("stream"):
            return data
        assert got["Content-Type"] == "text/event-stream; charset=utf-8", got["Content-Type"]
        return events(data)

    def refused(self, status, code, path, body=None, param=None, method="POST", headers=()):
        """An error in OpenAI's shape; returns it with the headers."""
        got, data, headers = self.ask(method, path, body, headers)
        assert got == status, (got, data)
        error = data["error"]
        assert set(error) == {"message", "type", "param", "code"}, error
        assert error["code"] == code, error
        assert error["param"] == param, error
        assert error["message"] and "\n" not in error["message"], error
        return error, headers

    def metric(self, name):
        for line in self.get("/metrics").splitlines():
            if line.rpartition(" ")[0] == name:
                return float(line.rpartition(" ")[2])
        return 0.0

    def wait(self, what, is_so, limit=net.LIMIT):
        until = time.monotonic() + limit
        while not is_so():
            assert time.monotonic() < until, "not %s\n%s" % (what, self.said())
            time.sleep(0.02)

    def wait_metric(self, name, value):
        self.wait("%s %g" % (name, value), lambda: self.metric(name) == value)

    def proc(self, name):
        with open("/proc/%d/status" % self.process.pid, encoding="utf-8") as f:
            return int(re.search(r"^%s:\s+(\d+)" % name, f.read(), re.M).group(1))

    def signal(self, number):
        os.kill(self.process.pid, number)

    def drain(self):
        self.signal(signal.SIGTERM)
        line = self.process.stdout.readline()
        assert line == "draining\n", line

    def end(self):
        """How many answers were left when it had drained; the process ended well."""
        line = self.process.stdout.readline()
        assert line.startswith("left "), "%r\n%s" % (line, self.said())
        assert self.process.wait(net.LIMIT) == 0, self.said()
        return int(line.split()[1])

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


def messages(question, system=None, history=()):
    said = [{"role": "system", "content": system}] if system else []
    for q, a in history:
        said += [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
    return said + [{"role": "user", "content": question}]


def events(text):
    """The objects of a stream that ended as one should."""
    parts = text.split("\n\n")
    assert parts.pop() == "" and parts.pop() == "data: [DONE]", text[-200:]
    assert all(p.startswith("data: {") and "\n" not in p for p in parts), text
    return [json.loads(p[6:]) for p in parts]


def text_of(reply, choice=0):
    c = reply["choices"][choice]
    return c["message"]["content"] if "message" in c else c["text"]


def streamed(chunks, choice=0):
    """(text, finish reason) of one choice."""
    text, finish = "", None
    for c in (c for chunk in chunks for c in chunk["choices"] if c["index"] == choice):
        assert finish is None, "a choice goes on after its end"
        text += c["delta"].get("content", "") if "delta" in c else c["text"]
        finish = c["finish_reason"]
    return text, finish


class Crowd:
    """Calls at the same time; results() in order, or the first error."""

    def __init__(self, calls):
        self.all = [net.Background(c) for c in calls]

    def results(self):
        return [b.result() for b in self.all]


def gate(n):
    return threading.Barrier(n)
