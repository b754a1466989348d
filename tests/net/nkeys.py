# SPDX-License-Identifier: MIT
"""Accounts and users of a NATS server in its operator mode: nkeys (Ed25519, by libsodium) and the JWTs that they sign.

What `nsc` would make, for a server of a test: operator, system account, one account with JetStream, and users' credentials.
"""
import base64
import ctypes
import json
import time

ROLES = {"O": 14, "A": 0, "U": 20}
SEED = 18
ANY = {name: -1 for name in ("subs", "data", "payload", "imports", "exports", "conn", "leaf")}
STORED = {name: -1 for name in ("mem_storage", "disk_storage", "streams", "consumer")}    # not allowed to the system's account
sodium = ctypes.CDLL("libsodium.so.23")


def crc16(data):
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ (0x1021 if crc & 0x8000 else 0)) & 0xffff
    return crc


def text_of(data):
    return base64.b32encode(data + crc16(data).to_bytes(2, "little")).decode().rstrip("=")


def web(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Key:
    def __init__(self, role):
        public, self.secret = ctypes.create_string_buffer(32), ctypes.create_string_buffer(64)
        assert sodium.crypto_sign_keypair(public, self.secret) == 0
        role = ROLES[role]
        self.public = text_of(bytes([role << 3]) + public.raw)
        self.seed = text_of(bytes([SEED << 3 | role >> 2, (role << 3 & 31) << 3]) + self.secret.raw[:32])

    def sign(self, subject, kind, name, **claims):
        """A JWT about another key, or this one."""
        body = {"jti": name, "iat": int(time.time()), "iss": self.public, "name": name, "sub": subject.public,
                "nats": {**claims, "type": kind, "version": 2}}
        text = web(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode()) + "." + web(json.dumps(body).encode())
        signature = ctypes.create_string_buffer(64)
        assert sodium.crypto_sign_detached(signature, None, text.encode(), ctypes.c_ulonglong(len(text)), self.secret) == 0
        return text + "." + web(signature.raw)


class Operator:
    def __init__(self):
        self.key, self.system, self.account = Key("O"), Key("A"), Key("A")

    def configuration(self):
        """What a nats-server is to read."""
        accounts = {each.public: self.key.sign(each, "account", name, limits={**ANY, **more, "wildcards": True})
                    for name, each, more in (("system", self.system, {}), ("gateways", self.account, STORED))}
        return "operator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: {\n%s\n}\n" % (
            self.key.sign(self.key, "operator", "site"), self.system.public,
            "\n".join("  %s: %s" % pair for pair in accounts.items()))

    def credentials(self, path, by=None):
        """Of a new user; by: another account's key, which the server does not know."""
        user = Key("U")
        with open(path, "w", encoding="ascii") as file:
            file.write("-----BEGIN NATS USER JWT-----\n%s\n------END NATS USER JWT------\n\n"
                       "-----BEGIN USER NKEY SEED-----\n%s\n------END USER NKEY SEED------\n"
                       % ((by or self.account).sign(user, "user", "gateway", subs=-1, data=-1, payload=-1), user.seed))
        return path
