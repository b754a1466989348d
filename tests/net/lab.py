# SPDX-License-Identifier: MIT
"""What the network tests share: a model and a context, real clouds, links that can be held, servers
that misbehave, and TAP.

Everything listens on loopback at a free port; every process is stopped by its own id.
"""
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LSLM = os.path.join(TOP, "build", "lslm")
MODEL = os.path.join(TOP, "tests/models/handbook-edge.gguf")
TEXT = os.path.join(TOP, "tests/models/handbook.txt")
with open(os.path.join(TOP, "tests/models/questions.txt"), encoding="utf-8") as _f:
    QUESTION = _f.readline().strip()
# How many times as long as usual anything may take: for emulated machines.
PATIENCE = int(os.environ.get("LSLM_TEST_PATIENCE", "1"))
# Seconds after which what was waited for is taken for something that never comes; it decides nothing else.
LIMIT = 180 * PATIENCE


def reserve(host="127.0.0.1"):
    """A socket that keeps a port from everybody but servers, which say SO_REUSEADDR: nobody listens until one does."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((host, 0))
    return s


class Lab:
    """A directory with keys, certificates and a published context; use it in a with statement.

    facts: a handbook of so many facts in place of the short one; hosts: further names of the cloud.
    """

    def __init__(self, facts=None, hosts=()):
        self.dir = tempfile.mkdtemp(prefix="lslm-net-")
        self.text, self.question = TEXT, QUESTION
        self.inside = []  # what runs a command where the edge is
        self.env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        self.env.update(XDG_CONFIG_HOME=self.path("config"), XDG_CACHE_HOME=self.path("cache"))
        self.children = []
        try:
            subprocess.run([os.path.join(TOP, "scripts/certs"), self.path("tls"), *hosts], check=True)
            self.file = self.path("context.lskv")
            if facts:
                self._write_handbook(facts)
            out = self.run("publish", "-m", MODEL, "-f", self.text, "-o", self.file).stdout
            self.key = re.search(r"^key +(\w{64})", out, re.M).group(1)
            self.want = self.ask(self.file, "--source", "compute").stdout
            assert self.want.strip()
        except BaseException:
            self.__exit__()
            raise

    def _write_handbook(self, facts):
        books, self.text = self.path("books"), self.path("handbook.txt")
        subprocess.run(["/usr/bin/python3", os.path.join(TOP, "scripts/train/corpus.py"), books,
                        "--count", "1", "--facts", "%d-%d" % (facts, facts)], check=True)
        with open(books, encoding="utf-8") as f:
            book = json.loads(f.readline())
        with open(self.text, "w", encoding="utf-8") as f:
            f.write(book["handbook"])
        self.question = book["questions"][0]["q"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in self.children:
            child.stop()
        shutil.rmtree(self.dir)

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def run(self, *args, timeout=LIMIT):
        return subprocess.run([*self.inside, LSLM, *args], env=self.env, cwd=self.dir, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                              check=False, encoding="utf-8", errors="replace")

    def _question(self, context, more):
        command = ["generate", "-m", MODEL, "-p", self.question, "--temp", "0", "-n", "32"]
        if context:
            command += ["--context", context]
        if context.startswith("https:") and "--cacert" not in more:
            command += ["--cacert", self.path("tls/ca.pem")]
        if context.startswith("https:") and "--token-file" not in more:
            command += ["--token-file", self.path("tls/token")]
        # By the one connection that the cases cut and hold; place.test has the other transport.
        if "--transport" not in more:
            command += ["--transport", "https"]
        # Alone unless a case asks for both sides: a race would hide what the stream does.
        if "--source" not in more:
            command += ["--source", "stream"]
        return command + list(more)

    def ask(self, context, *more):
        return self.run(*self._question(context, more))

    def ask_in_background(self, context, *more):
        """A thread's result() is what ask() would return."""
        return Background(lambda: self.ask(context, *more))

    def right(self, context, *more):
        """The question is answered as by local computing; returns standard error."""
        got = self.ask(context, *more)
        check_right(self, got)
        return got.stderr

    def wrong(self, context, pattern, *more):
        """Not answered, but one line that says this."""
        check_refused(self.ask(context, *more), pattern)


def check_right(lab, got):
    assert got.returncode == 0, "exit code %d: %s" % (got.returncode, got.stderr)
    assert got.stdout == lab.want, "answer %r instead of %r" % (got.stdout, lab.want)


def check_refused(got, pattern):
    assert got.returncode == 1, "exit code %d: %s" % (got.returncode, got.stderr)
    assert got.stdout == "", "an answer: %r" % got.stdout
    assert len(got.stderr.splitlines()) == 1, "not one line: %r" % got.stderr
    assert re.search(pattern, got.stderr), "%r does not say %r" % (got.stderr, pattern)


def figure(stderr, name):
    return int(re.search(r"\b%s=(\d+)" % name, stderr).group(1))


class Background(threading.Thread):
    def __init__(self, call):
        super().__init__(daemon=True)
        self.call, self.value, self.error = call, None, None
        self.start()

    def run(self):
        try:
            self.value = self.call()
        except Exception as e:  # handed to whoever asks for the result
            self.error = e

    def result(self):
        self.join()
        if self.error:
            raise self.error
        return self.value


class Cloud:
    """`lslm cloud` of a lab, with its store kept over restarts."""

    def __init__(self, lab, name="store", port=0, more=(), host="127.0.0.1", inside=(),
                 tenants=None):
        self.lab, self.store = lab, lab.path(name)
        self.log = open(lab.path(name + ".log"), "ab")
        tls = lab.path("tls")
        self.process = subprocess.Popen(
            [*inside, LSLM, "cloud", "-m", MODEL, "--listen", "%s:%d" % (host, port), "--store", self.store,
             "--cert", tls + "/server.pem", "--key", tls + "/server.key",
             *(["--tenants", tenants] if tenants else ["--token-file", tls + "/token"]), *more],
            env=lab.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log,
            encoding="utf-8")
        lab.children.append(self)
        line = self.process.stdout.readline()
        assert line.startswith("listening on port"), "no cloud: %r" % line
        self.port = int(line.split()[-1])
        self.udp = self.process.stdout.readline()  # how placement goes
        self.publisher = self.process.stdout.readline().split()[-1]
        self.url = "https://%s:%d" % (host, self.port)

    def ask_to_publish(self, text, *more, token="tls/token"):
        """What `lslm publish` says, and whether it did."""
        return self.lab.run("publish", "-f", text, "--to", self.url, "--cacert", self.lab.path("tls/ca.pem"),
                            "--token-file", self.lab.path(token), *more)

    def publish(self, text=None, *more, **options):
        """The URL of a file's context, or of the lab's."""
        got = self.ask_to_publish(text or self.lab.text, *more, **options)
        assert got.returncode == 0, got.stderr
        return re.search(r"^url +(\S+)", got.stdout, re.M).group(1)

    def publish_key(self, *args, **options):
        return self.publish(*args, **options).rsplit("/", 1)[1]

    def signal(self, number):
        os.kill(self.process.pid, number)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
        self.process.stdout.close()
        self.log.close()


class Edge:
    """`lslm edge` of a lab, with its stripe store kept over restarts; it keeps `contexts`."""

    def __init__(self, lab, *contexts, name="edge", more=(), prefix=()):
        self.lab, self.socket = lab, lab.path(name + ".sock")
        self.log_path = lab.path(name + ".log")
        self.log = open(self.log_path, "ab")
        access = [w for c in contexts for w in ("--context", c)]
        access += ["--cacert", lab.path("tls/ca.pem"), "--token-file", lab.path("tls/token")]
        if "--store" not in more:
            access += ["--store", lab.path(name + ".stripes")]
        # By the one connection that the cases cut and hold.
        if "--transport" not in more:
            access += ["--transport", "https"]
        self.process = subprocess.Popen(
            [*prefix, LSLM, "edge", "--courier", self.socket, *access, *more], env=lab.env,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, encoding="utf-8")
        lab.children.append(self)
        line = self.process.stdout.readline()
        assert line == "courier %s\n" % self.socket, "no edge: %r, %s" % (line, self.said())

    def said(self):
        with open(self.log_path, encoding="utf-8") as f:
            return f.read()

    def stat(self):
        got = self.lab.run("stat", "--courier", self.socket, "--json")
        assert got.returncode == 0, got.stderr
        return json.loads(got.stdout)

    def wait(self, what, is_so, limit=LIMIT):
        """The first stat for which is_so(stat) holds."""
        until = time.monotonic() + limit
        while True:
            stat = self.stat()
            if is_so(stat):
                return stat
            assert time.monotonic() < until, "not %s: %r\n%s" % (what, stat, self.said())
            time.sleep(0.05)

    def wait_complete(self):
        return self.wait("complete", lambda s: s["contexts"] and all(
            c["state"] == "complete" for c in s["contexts"]))

    def ask(self, *more, context=""):
        return self.lab.ask(context, "--courier", self.socket, *more)

    def right(self, *more, context=""):
        got = self.ask(*more, context=context)
        check_right(self.lab, got)
        return got.stderr

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.kill()
        self.process.stdout.close()
        self.log.close()


class Gateway:
    """`lslm edge -m` of a lab: courier, engines and their HTTP front."""

    def __init__(self, lab, *args, name="gateway", listen="127.0.0.1:0"):
        self.lab = lab
        self.log_path = lab.path(name + ".log")
        self.log = open(self.log_path, "ab")
        more = [] if "--store" in args else ["--store", lab.path(name + ".stripes")]
        self.process = subprocess.Popen(
            [LSLM, "edge", "-m", MODEL, "--listen", listen, "--courier", lab.path(name + ".sock"), "--cacert",
             lab.path("tls/ca.pem"), "--token-file", lab.path("tls/token"), *more, *args], env=lab.env,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, encoding="utf-8")
        lab.children.append(self)
        for line in self.process.stdout:
            if line.startswith("listening on port"):
                self.url = "http://127.0.0.1:%d" % int(line.split()[-1])
                return
        raise AssertionError("no gateway: " + self.said())

    def said(self):
        with open(self.log_path, encoding="utf-8") as f:
            return f.read()

    def wait(self, what, is_so):
        """What is_so() returned when that was something; what a process tells may come after what it tells of."""
        until = time.monotonic() + LIMIT
        while not (got := is_so()):
            assert time.monotonic() < until, "not %s\n%s" % (what, self.said())
            time.sleep(0.05)
        return got

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=LIMIT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()
        self.log.close()


class Link:
    """A TCP relay to a cloud that lets so many bytes through to the client, then holds them.

    there: while it is not set, who connects waits until the cloud is there; refusals: so many may find nobody before that.
    """

    def __init__(self, lab, port, hold_after=None, listen=("127.0.0.1", 0)):
        self.target, self.left = port, hold_after
        self.held, self.go_on, self.there = threading.Event(), threading.Event(), threading.Event()
        self.severed, self.connections, self.refused, self.refusals = False, 0, 0, None  # that were accepted, that found nobody
        self.there.set()
        self.listener = socket.create_server(listen)
        self.host, self.port = self.listener.getsockname()
        lab.children.append(self)
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, key):
        return "https://%s:%d/v1/contexts/%s" % (self.host, self.port, key)

    def _accept(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        self.there.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            self.refused += 1
            if self.refused == self.refusals:
                self.there.clear()
            client.close()
            return
        threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
        self._pump(server, client, True)

    def _pump(self, source, sink, counted):
        try:
            while True:
                data = source.recv(4096)
                if not data:
                    break
                if counted and self.left is not None:
                    self.left -= len(data)
                    if self.left <= 0 and not self.go_on.is_set():
                        self.held.set()
                        self.go_on.wait()
                        if self.severed:
                            break
                sink.sendall(data)
        except OSError:
            pass
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        source.close()

    def hold(self, after):
        """From now on so many bytes pass."""
        self.held.clear()
        self.go_on.clear()
        self.severed, self.left = False, after

    def sever(self):
        """Break what is held instead of letting it go on; what comes later passes."""
        self.severed = True
        self.go_on.set()

    def stop(self):
        self.go_on.set()
        self.there.set()
        try:
            # Or a thread that waits in accept() would keep the port.
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:  # stopped before
            pass
        self.listener.close()


class Impostor:
    """A TLS server with the right certificate; answer(path, send) writes whatever it likes."""

    def __init__(self, lab, answer, host="127.0.0.1", tls=True):
        self.answer, self.requests = answer, []
        self.context = None
        if tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(lab.path("tls/server.pem"), lab.path("tls/server.key"))
        self.listener = socket.create_server((host, 0))
        self.url = "https://%s:%d/v1/contexts/%s" % (host, self.listener.getsockname()[1], lab.key)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()

    def _accept(self):
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        try:
            if self.context:
                client = self.context.wrap_socket(client, server_side=True)
            while self._one(client):
                pass
        except OSError:
            pass
        finally:
            client.close()

    def _one(self, client):
        head = b""
        while b"\r\n\r\n" not in head and (self.context or not head):
            data = client.recv(65536)
            if not data:
                return False
            head += data
        path = head.split()[1].decode() if self.context else ""
        self.requests.append(path)
        return self.answer(path, client.sendall)


def reply(body, status="200 OK", length=None, more=""):
    """A plain reply; length lies about the body's."""
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n" % (
        status.encode(), len(body) if length is None else length, more.encode()) + body


class Skip(Exception):
    """Raised by a case that cannot run here; its text says why."""


def main(cases, **options):
    """Run functions that take a Lab; each is a case named after it. Failures say why."""
    failed = 0
    print("1..%d" % len(cases), flush=True)
    with Lab(**options) as lab:
        for n, case in enumerate(cases, 1):
            start = time.monotonic()
            status, skip = "ok", ""
            try:
                case(lab)
            except Skip as e:
                skip = " # SKIP %s" % e
            except Exception as e:  # one failed case must not hide the others
                failed += 1
                status = "not ok"
                print("# %s: %s" % (type(e).__name__, str(e).replace("\n", "\n# ")))
            print("%s %d - %s%s" % (status, n, case.__name__.replace("_", " "), skip), flush=True)
            print("# %.1f s" % (time.monotonic() - start), flush=True)
    sys.exit(1 if failed else 0)
