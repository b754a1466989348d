# SPDX-License-Identifier: MIT
"""Two network namespaces and a link of a given rate between them, made by the kernel alone.

    cloud: 10.77.0.1 --- lslm0 (veth; a token bucket each way, tc's tbf) lslm0 --- edge: 10.77.0.2

Where netns.py's link delays, loses and counts in a process of its own, this one only limits, and takes so little of the processor
that 1000 Mbit/s are no matter. There is no delay but that of the queue. Needs root; available() says why not.
"""
import json
import os
import subprocess
import time

import netns

BURST_S = 0.001
BURST_LEAST = 3028  # two packets
QUEUE_S = 0.05
QUEUE_LEAST = 64000
IDLE_S = 0.3  # without a byte: longer than a sender's pauses


def _tc(namespace, *args):
    return subprocess.run(["tc", "-n", namespace, *args], check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True).stdout


def available():
    """None, or why there can be no such link here."""
    why = netns.available()
    if why:
        return why
    name = "lslm-q-%d" % os.getpid()
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        _tc(name, "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "1mbit", "burst", "10kb", "limit", "10kb")
    except (OSError, subprocess.CalledProcessError):
        return "no tc, or a kernel without tbf"
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    return None


class Thin(netns.Ends):
    """The link, both ways at `mbit`; use it in a with statement."""

    def _make(self, mbit):
        subprocess.run(["ip", "-n", self.cloud, "link", "add", "lslm0", "type", "veth", "peer", "name", "lslm0",
                        "netns", self.edge], check=True)
        self._up()
        for name in (self.cloud, self.edge):
            _tc(name, "qdisc", "add", "dev", "lslm0", "root", "tbf", "rate", "%dbit" % (mbit * 1e6),
                "burst", "%d" % max(mbit * 125e3 * BURST_S, BURST_LEAST),
                "limit", "%d" % max(mbit * 125e3 * QUEUE_S, QUEUE_LEAST))

    def _qdisc(self, name):
        return json.loads(_tc(name, "-s", "-j", "qdisc", "show", "dev", "lslm0"))[0]

    def sent(self, name=None):
        """Bytes that the cloud, or this end, has sent, with the headers of every packet."""
        return self._qdisc(name or self.cloud)["bytes"]

    def wait_idle(self):
        """Until nothing is queued and nobody sends: what a process that has ended was still being sent delays the next one."""
        last = None
        while True:
            now = [(q["bytes"], q["backlog"]) for q in map(self._qdisc, (self.cloud, self.edge))]
            if now == last and not any(backlog for _, backlog in now):
                return
            last = now
            time.sleep(IDLE_S)
