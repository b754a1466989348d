#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A TCP relay with a token bucket: a thin link, for the direction to the client.

    tests/net/relay.py PORT MBIT

relays connections from a free port of 127.0.0.1, whose number it prints, to PORT there. Together they get MBIT 10^6 bits
a second of TCP payload; what comes late because this process was not run is made up for, up to BURST_S.
The other direction, which carries requests, is not limited, and there is no delay. Bytes are spliced, not
copied, so that at 1000 Mbit/s the relay costs little of the processors that it shares with those
whom it serves. Ends with standard input.
"""
import fcntl
import os
import socket
import sys
import threading
import time

BURST_S = 0.01
STEP_S = 0.002  # tokens are spent in portions of so much time at least
PIPE = 1 << 20


class Bucket:
    """take() waits for tokens, which are bytes, and returns how many may go; give() returns the rest."""

    def __init__(self, mbit):
        self.rate = mbit * 1e6 / 8
        self.burst = max(self.rate * BURST_S, 4096)
        self.step = max(self.rate * STEP_S, 1024)
        self.tokens, self.last = 0.0, time.monotonic()
        self.lock = threading.Lock()

    def take(self):
        while True:
            with self.lock:
                now = time.monotonic()
                self.tokens = min(self.tokens + (now - self.last) * self.rate, self.burst)
                self.last = now
                if self.tokens >= self.step:
                    n = int(self.tokens)
                    self.tokens -= n
                    return n
                wait = (self.step - self.tokens) / self.rate
            time.sleep(wait)

    def give(self, n):
        with self.lock:
            self.tokens += n


def pump(source, sink, bucket):
    """Until either end closes; what one end has finished the other hears of."""
    r, w = os.pipe()
    try:
        fcntl.fcntl(w, fcntl.F_SETPIPE_SZ, PIPE)
        while True:
            allowed = bucket.take() if bucket else PIPE
            n = os.splice(source.fileno(), w, min(allowed, PIPE))
            if bucket:
                bucket.give(allowed - n)
            if not n:
                break
            while n:
                n -= os.splice(r, sink.fileno(), n)
    except OSError:
        pass
    for s, how in (source, socket.SHUT_RD), (sink, socket.SHUT_WR):
        try:
            s.shutdown(how)
        except OSError:
            pass
    os.close(r)
    os.close(w)


def serve(client, port, bucket):
    try:
        server = socket.create_connection(("127.0.0.1", port))
    except OSError:
        client.close()
        return
    up = threading.Thread(target=pump, args=(client, server, None), daemon=True)
    up.start()
    pump(server, client, bucket)
    # Nothing more can be answered, so whatever the client still says is for nobody.
    try:
        client.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    up.join()
    client.close()
    server.close()


def main():
    port, bucket = int(sys.argv[1]), Bucket(float(sys.argv[2]))
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)

    def accept():
        while True:
            client = listener.accept()[0]
            threading.Thread(target=serve, args=(client, port, bucket), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
