# SPDX-License-Identifier: MIT
"""What benchmarks share: contexts of any length for a model of SmolLM2-135M's shape with synthetic weights.

Made once, into build/bench/context, with certificates for loopback and for the link's cloud (netns.py). About
23 kB for each token at level f16.
"""
import os
import re
import subprocess
import sys

import netns

sys.path.insert(0, os.path.join(netns.TOP, "scripts"))
LSLM = os.path.join(netns.TOP, "build", "lslm")
CACHE = os.path.join(netns.TOP, "build", "bench", "context")
MODEL = "smollm2-135m"


def at(*parts):
    return os.path.join(CACHE, *parts)


ENV = {**{k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")},
       "XDG_CONFIG_HOME": at("config"), "XDG_CACHE_HOME": at("cache")}


def lslm(*args):
    return subprocess.run([LSLM, *args], env=ENV, check=True, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def first_in_line():
    """For this process and what it starts; true where that is allowed."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return False
    return True


def text_of(n_tokens):
    """So many words of the synthetic vocabulary that they are one token more than that."""
    import make_model
    words = []
    for word in make_model.words_of_letters():
        if len(word) > 2:
            break
        words.append(word)  # a token each, behind that of the blank
    return " ".join(words[int(x) % len(words)] for x in make_model.hashed("meet", n_tokens // 2 + 1))


def model_file():
    """The model in the cache, made where it is missing."""
    os.makedirs(CACHE, exist_ok=True)
    model = at(MODEL + ".gguf")
    if not os.path.exists(model):
        import make_model
        make_model.make(MODEL, model + ".new")
        os.rename(model + ".new", model)
    return model


def prepare(n_tokens):
    """(model, key, publisher) of what is in the cache, made where it is missing."""
    model, note = model_file(), at("published-%d" % n_tokens)
    os.makedirs(at("store"), mode=0o700, exist_ok=True)
    subprocess.run([os.path.join(netns.TOP, "scripts/certs"), at("tls"), netns.CLOUD4], check=True)
    if not os.path.exists(note):
        with open(at("text"), "w", encoding="utf-8") as f:
            f.write(text_of(n_tokens))
        said = lslm("publish", "--raw", "-m", model, "-f", at("text"), "-o", at("store", "new.part")).stdout
        key, publisher = (re.search(r"^%s +(\w{64})" % what, said, re.M).group(1) for what in ("key", "publisher"))
        os.rename(at("store", "new.part"), at("store", key + ".lskv"))
        with open(note, "w", encoding="utf-8") as f:
            f.write("%s %s\n" % (key, publisher))
    with open(note, encoding="utf-8") as f:
        return [model, *f.read().split()]


def access(publisher):
    """What names the cloud's certificate and token, and the publisher to believe."""
    return ["--trust", publisher, "--cacert", at("tls/ca.pem"), "--token-file", at("tls/token")]


def cloud_command(model, listen, *more):
    tls = at("tls")
    return [LSLM, "cloud", "-m", model, "--listen", listen, "--store", at("store"), "--cert", tls + "/server.pem",
            "--key", tls + "/server.key", "--token-file", tls + "/token", *more]
