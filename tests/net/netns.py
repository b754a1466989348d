# SPDX-License-Identifier: MIT
"""Two network namespaces and the link between them.

    cloud: 10.77.0.1, fd77::1  --- lslm0 --- [build/nettests/link] --- lslm0 ---  edge: 10.77.0.2, fd77::2

Direction ab is from the cloud to the edge. Needs root; available() says why not.
"""
import ctypes
import json
import os
import signal
import socket
import subprocess
import threading

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LINK = os.path.join(TOP, "build/nettests/link")
CLOUD4, EDGE4, CLOUD6, EDGE6 = "10.77.0.1", "10.77.0.2", "fd77::1", "fd77::2"


def available():
    """None, or why there can be no namespaces here."""
    if os.geteuid() != 0:
        return "needs root"
    name = "lslm-t-%d" % os.getpid()
    made = subprocess.run(["ip", "netns", "add", name], check=False, stderr=subprocess.PIPE)
    if made.returncode:
        return "no network namespaces"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None if os.path.exists("/dev/net/tun") else "no /dev/net/tun"


def _enter(path):
    with open(path, "rb") as f:
        if ctypes.CDLL(None, use_errno=True).setns(f.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns", path)


def _ip(*args):
    subprocess.run(["ip", *args], check=True)


class Ends:
    """The namespaces; a kind of link adds itself in _make(). Use it in a with statement."""

    def __init__(self, *how):
        self.cloud, self.edge = "lslm-c-%d" % os.getpid(), "lslm-e-%d" % os.getpid()
        self.made = []
        try:
            for name in (self.cloud, self.edge):
                _ip("netns", "add", name)
                self.made.append(name)
            self._make(*how)
        except BaseException:
            self.__exit__()
            raise

    def _up(self, mtu=1500, more=()):
        """Once both have their lslm0."""
        for name, v4 in (self.cloud, CLOUD4), (self.edge, EDGE4):
            _ip("-n", name, "link", "set", "lo", "up")
            # Nothing but the tests' own packets.
            _ip("-n", name, "link", "set", "lslm0", "addrgenmode", "none")
            _ip("-n", name, "link", "set", "lslm0", "mtu", str(mtu), *more, "up")
            _ip("-n", name, "address", "add", v4 + "/24", "dev", "lslm0")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in self.made:
            _ip("netns", "del", name)

    def inside(self, name, command):
        """The command line that runs there; name is .cloud or .edge."""
        return ["ip", "netns", "exec", name, *command]


class Net(Ends):
    """The link; options as in link.c: Net(rate=20, delay_ab=20)."""
    link = None

    def __init__(self, mtu=1500, **options):
        super().__init__(mtu, options)

    def _make(self, mtu, options):
        words = [w for k, v in options.items() for w in (k.replace("_", "-"), str(v))]
        self.link = subprocess.Popen([LINK, self.cloud, self.edge, *words], encoding="ascii",
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self.link.stdout.readline() != "ready\n":
            raise RuntimeError("the link does not start")
        self._up(mtu, ("txqueuelen", "10000"))
        for name, v6 in (self.cloud, CLOUD6), (self.edge, EDGE6):
            _ip("-n", name, "address", "add", v6 + "/64", "dev", "lslm0", "nodad")

    def __exit__(self, *_):
        if self.link:
            self.link.stdin.close()
            try:
                self.link.wait(60)
            except subprocess.TimeoutExpired:
                self.link.send_signal(signal.SIGKILL)
                self.link.wait()
            self.link.stdout.close()
        super().__exit__()

    def set(self, **options):
        """In force when this returns; also down=1, down=0."""
        for name, value in options.items():
            self._say("%s %s" % (name.replace("_", "-"), value))
        self.stats()

    def reset(self):
        self._say("reset")
        self.stats()

    def stats(self):
        """Counts and delays since the start or the last reset, by direction: ab, ba."""
        self._say("stats")
        return json.loads(self.link.stdout.readline())

    def _say(self, line):
        self.link.stdin.write(line + "\n")
        self.link.stdin.flush()

    def socket(self, name, family, kind):
        """A socket that lives there, of a process that does not."""
        made = []

        def make():
            _enter("/run/netns/" + name)
            made.append(socket.socket(family, kind))
        # A namespace is a thread's: this one ends with it.
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]


class Hub(Net):
    """A fleet behind that link: what is its edge else routes for n gateways, which have a fast network of their own.

        cloud: 10.77.0.1  --- link ---  hub: 10.77.0.2, 10.78.0.254  --- bridge ---  gateways: 10.78.0.1 ...
    """
    HUB = "10.78.0.254"

    def __init__(self, n, **options):
        self.gateways = ["lslm-g%d-%d" % (i, os.getpid()) for i in range(n)]
        super().__init__(**options)

    def _make(self, mtu, options):
        super()._make(mtu, options)
        _ip("-n", self.edge, "link", "add", "br0", "type", "bridge")
        _ip("-n", self.edge, "address", "add", self.HUB + "/24", "dev", "br0")
        _ip("-n", self.edge, "link", "set", "br0", "up")
        subprocess.run(self.inside(self.edge, ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]), check=True)
        _ip("-n", self.cloud, "route", "add", "10.78.0.0/24", "via", EDGE4)
        for i, name in enumerate(self.gateways):
            _ip("netns", "add", name)
            self.made.append(name)
            _ip("-n", self.edge, "link", "add", "v%d" % i, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("-n", self.edge, "link", "set", "v%d" % i, "master", "br0", "up")
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "address", "add", self.address(i) + "/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "route", "add", "default", "via", self.HUB)

    @staticmethod
    def address(i):
        return "10.78.0.%d" % (i + 1)
