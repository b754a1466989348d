#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Questions that take more than finding one sentence, and handbooks that hold the answers.

linked() writes a handbook as corpus.py does, but its facts refer to each other: the keepers of
devices have extensions, the rooms they stand in have codes and keys, several devices share a room
or a keeper. ask() turns its facts into questions of five families:

  plain       one fact, asked in the words of corpus.KINDS
  paraphrase  one fact, asked in other words
  reverse     one fact, asked from its value: which device, who, which key
  hop         two facts, the second about the value of the first; both are the answer
  count       how many facts there are of a kind, or about a keeper, room or panel

  questions.py OUT.jsonl --count 120 --facts 26-66 --per-book 10

writes handbooks that training never sees, in the form of corpus.py.
"""
import random

import corpus

# Share of each family among the questions of a handbook that has them all.
MIX = {"plain": 0.45, "paraphrase": 0.2, "reverse": 0.1, "hop": 0.15, "count": 0.1}
# The same with more of those that take longest to learn.
PRACTICE = {"plain": 0.2, "paraphrase": 0.15, "reverse": 0.25, "hop": 0.2, "count": 0.2}
MOST_COUNTED = 9
# Small numbers are so frequent that guessing them would pay: most of those questions are left out.
ASKED_COUNTS = {0: 0.0, 1: 0.12, 2: 0.3, 3: 0.6}

OPENERS = ["Tell me", "Please tell me", "I want to know", "Please look up", "Find out",
           "I have to note down", "Somebody asks", "We forgot"]
LEADS = ["I am new here.", "It is urgent.", "I am on the night shift.", "One more question.",
         "The boss wants an answer."]
INDIRECT = {
    "place": ["where the {s} stands", "the place of the {s}", "where one can see the {s}",
              "where to look for the {s}"],
    "limit": ["how high the {s} may go", "the limit of the {s}", "what is too much for the {s}",
              "the most that the {s} can take"],
    "service": ["how often the {s} needs service", "the time between two services of the {s}",
                "how long the {s} runs before its next service"],
    "owner": ["who takes care of the {s}", "the name of the keeper of the {s}",
              "who keeps the {s} in order", "whom to ask about the {s}"],
    "part": ["which part the {s} takes", "what to order for the {s}",
             "the part number of the {s}"],
    "year": ["how old the {s} is", "the year of the {s}", "when the {s} came here"],
    "power": ["which panel switches the {s} off", "the panel of the {s}",
              "where the {s} is fed from"],
    "restart": ["how to get the {s} running again", "what to do after a stop of the {s}",
                "how to start the {s} again"],
    "phone": ["how to call {s}", "the number of {s}", "where {s} can be reached"],
    "alarm": ["what is wrong at alarm {s}", "the reason for alarm {s}",
              "what alarm {s} is about"],
    "code": ["how to get into {s}", "what to type at the door of {s}", "the code of {s}"],
    "key": ["which door key {s} fits", "the use of key {s}", "what can be opened with key {s}"],
    "meet": ["where to run in case of {s}", "the meeting point for {s}",
             "where everybody meets in case of {s}"],
}
REVERSE = {
    "place": ["Which device is in {v}?", "What stands in {v}?"],
    "limit": ["Which device has a limit of {v}?", "What must stay below {v}?"],
    "service": ["Which device is serviced every {v}?", "What needs service every {v}?"],
    "owner": ["Which device belongs to {v}?", "What does {v} look after?"],
    "part": ["Which device uses part {v}?", "What is part {v} for?"],
    "year": ["Which device was installed in {v}?", "What has been running since {v}?"],
    "power": ["Which device hangs on panel {v}?", "What is fed from panel {v}?"],
    "phone": ["Who has extension {v}?", "Who answers extension {v}?"],
    "alarm": ["Which alarm says that {v}?", "Which alarm means that {v}?"],
    "code": ["Which door has the code {v}?", "What opens with the code {v}?"],
    "key": ["Which key opens {v}?", "Which key is for {v}?"],
}
# (kind of the first fact, kind of the second, whether its subject or its value is shared)
HOPS = {
    ("owner", "phone"): ["How do I reach the keeper of the {s}?",
                         "What is the extension of the one who looks after the {s}?",
                         "Which number do I call about the {s}?"],
    ("place", "code"): ["Which code opens the room of the {s}?",
                        "What is the door code on the way to the {s}?",
                        "Which code do I need to get to the {s}?"],
    ("place", "key"): ["Which key opens the room of the {s}?",
                       "Which key do I need to get to the {s}?"],
}
COUNTED = {"alarm": "alarms", "key": "keys", "code": "door codes", "phone": "extensions",
           "meet": "emergencies"}
COUNT_ALL = ["How many {c} are listed?", "How many {c} are there?", "Count the {c}."]
COUNT_OF = {
    "owner": ("devices of {v}", ["How many devices does {v} look after?",
                                 "How many devices belong to {v}?"]),
    "place": ("devices in {v}", ["How many devices are in {v}?", "How many devices stand in {v}?"]),
    "power": ("devices on panel {v}", ["How many devices are fed from panel {v}?",
                                       "How many devices hang on panel {v}?"]),
}


class Site:
    """What a handbook is about: its people, rooms and panels, fewer than its devices."""

    def __init__(self, facts, rng):
        self.name = f"{corpus.surname(rng)} {rng.choice(corpus.TRADES)}"
        few = 2 + facts // 10
        self.people = distinct(corpus.person, few, rng)
        self.rooms = distinct(corpus.room, few, rng)
        self.panels = distinct(lambda r: f"{r.choice('ABCDEFGH')}{r.randint(1, 40)}", few, rng)

    def value(self, kind, rng):
        pool = {"owner": self.people, "place": self.rooms, "power": self.panels}.get(kind)
        if kind == "key" and rng.random() < 0.7:
            pool = self.rooms
        return rng.choice(pool) if pool else corpus.value(kind, self.people, rng)

    def subject(self, kind, rng):
        if kind == "code" and rng.random() < 0.7:
            return rng.choice(self.rooms)
        return corpus.other_subject(kind, self.people, rng)


def distinct(draw, count, rng):
    out = []
    while len(out) < count:
        item = draw(rng)
        if item not in out:
            out.append(item)
    return out


def draw_facts(count, likeness, site, rng):
    """[(kind, subject, value)], each kind and subject at most once, linked ones first."""
    rest = [kind for kind in corpus.DEVICE_KINDS if kind not in ("owner", "place")]
    kinds = ["owner", "place"] + rng.sample(rest, rng.randint(1, min(5, 1 + count // 5)))
    others = ["phone", "code", "key"] + rng.sample(["alarm", "meet"], rng.randint(0, 2))
    devices = corpus.draw_devices(min(50, max(1, round(count * rng.uniform(0.2, 0.4)))),
                                  likeness, rng)
    facts = {}
    share = rng.uniform(0.6, 0.75)
    for _ in range(20 * count):
        if len(facts) == count:
            break
        if rng.random() < share:
            kind = rng.choice(["owner", "place", rng.choice(kinds), rng.choice(kinds)])
            subject = rng.choice(devices)
        else:
            kind = rng.choice(others)
            subject = site.subject(kind, rng)
        if (kind, subject) in facts:
            continue
        value = site.value(kind, rng)
        # A value that only one subject has can be asked for.
        taken = any(other == kind and was == value for (other, _), was in facts.items())
        if taken and kind not in COUNT_OF:
            continue
        facts[kind, subject] = value
    drawn = [(kind, subject, value) for (kind, subject), value in facts.items()]
    rng.shuffle(drawn)
    return drawn


def draw_alike(count, likeness, site, rng):
    """As draw_facts, but all of one or two kinds and no value twice: each can be asked for."""
    kinds = rng.sample(list(REVERSE), rng.choice([1, 1, 2]))
    devices = corpus.draw_devices(min(50, count + 4), likeness, rng)
    site.people = distinct(corpus.person, count + 4, rng)
    facts = {}
    for _ in range(20 * count):
        if len(facts) == count:
            break
        kind = rng.choice(kinds)
        device = kind in corpus.DEVICE_KINDS
        subject = rng.choice(devices) if device else site.subject(kind, rng)
        value = corpus.value(kind, site.people, rng)
        if (kind, subject) not in facts and value not in facts.values():
            facts[kind, subject] = value
    return [(kind, subject, value) for (kind, subject), value in facts.items()]


def plain(facts, rng):
    for kind, subject, _, sentence in facts:
        yield corpus.ask(kind, subject, rng), sentence


def paraphrase(facts, rng):
    for kind, subject, _, sentence in facts:
        core = rng.choice(INDIRECT[kind]).format(s=subject)
        question = f"{rng.choice(OPENERS)} {core}."
        if rng.random() < 0.3:
            question = f"{rng.choice(LEADS)} {question}"
        yield question, sentence


def reverse(facts, rng):
    for kind, _, value, sentence in facts:
        same = sum(1 for other in facts if (other[0], other[2]) == (kind, value))
        if kind in REVERSE and same == 1:
            yield rng.choice(REVERSE[kind]).format(v=value), sentence


def hop(facts, rng):
    for kind, subject, value, sentence in facts:
        for (first, second), forms in HOPS.items():
            if first != kind:
                continue
            shared = 2 if second == "key" else 1
            found = [fact for fact in facts if fact[0] == second and fact[shared] == value]
            if len(found) == 1:
                yield rng.choice(forms).format(s=subject), f"{sentence} {found[0][3]}"


def count(facts, rng):
    def wanted(number):
        return number <= MOST_COUNTED and rng.random() < ASKED_COUNTS.get(number, 1.0)

    for kind, name in COUNTED.items():
        number = sum(1 for fact in facts if fact[0] == kind)
        if wanted(number):
            yield rng.choice(COUNT_ALL).format(c=name), f"The number of {name} is {number}."
    for kind, (name, forms) in COUNT_OF.items():
        for value in sorted({fact[2] for fact in facts if fact[0] == kind}):
            number = sum(1 for fact in facts if (fact[0], fact[2]) == (kind, value))
            if wanted(number):
                yield (rng.choice(forms).format(v=value),
                       f"The number of {name.format(v=value)} is {number}.")


FAMILIES = {"plain": plain, "paraphrase": paraphrase, "reverse": reverse, "hop": hop,
            "count": count}


def ask(facts, rng, mix):
    """Questions in an order in which every stretch has about the shares of mix."""
    pools = {name: list(FAMILIES[name](facts, rng)) for name in mix}
    for pool in pools.values():
        rng.shuffle(pool)
    out = []
    while any(pools.values()):
        names = [name for name, pool in pools.items() if pool]
        name = rng.choices(names, [mix[each] for each in names])[0]
        question, answer = pools[name].pop()
        out.append({"q": question, "a": answer, "kind": name})
    return out


def write(seed, count_facts, likeness=0.5, mix=None, draw=draw_facts):
    """(handbook and questions as linked() has them, [(kind, subject, value, sentence)])"""
    rng = random.Random(seed)
    site = Site(count_facts, rng)
    facts, sections = corpus.write_down(draw(count_facts, likeness, site, rng), rng)
    return {"handbook": corpus.lay_out(site.name, sections, rng),
            "questions": ask(facts, rng, mix or MIX)}, facts


def linked(seed, count_facts, likeness=0.5, mix=None):
    """{"handbook": text, "questions": [{"q", "a", "kind"}]}; kind names the family."""
    return write(seed, count_facts, likeness, mix)[0]


if __name__ == "__main__":
    corpus.main(linked, __doc__.splitlines()[0])
