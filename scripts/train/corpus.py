#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Generated site handbooks, and questions whose answers stand only there.

A handbook describes one invented site: its devices, rooms, people, alarms and
procedures. Names and values are drawn at random, so nothing but the handbook
itself can answer a question about it. Every fact is one sentence that names
its subject first, and the expected answer is that sentence, word for word.

Everything follows from an integer seed. Seeds below HELD_OUT_END belong to
evaluation; training draws from TRAIN_BEGIN upwards.

  corpus.py OUT.jsonl --count 40 --facts 8-60

writes handbooks that training never sees, one a line, as
{"handbook": text, "questions": [{"q", "a", "kind"}]}.
"""
import argparse
import json
import random

HELD_OUT_END = 100_000
TRAIN_BEGIN = 1_000_000

ADJECTIVES = """amber azure black blue brass bronze broad central copper coral
crimson double eastern emerald front golden gray green heavy high inner iron
ivory large left little long lower main middle narrow new northern old orange
outer pale pink plain purple rear red right round rusty scarlet second short
silver slim small southern spare square steel tall third tin turquoise twin
upper violet western white wide yellow""".split()
NOUNS = """pump, valve, boiler, fan, compressor, turbine, conveyor, crane, heater,
chiller, filter, mixer, tank, burner, blower, press, lathe, robot, scanner, printer,
furnace, dryer, cutter, welder, lift, gate, router, switch, server, battery, charger,
generator, transformer, motor, gearbox, sensor, camera, lamp, siren, sprinkler, drill,
saw, grinder, loader, sorter, feeder, cooler, dosing unit, control panel, water meter,
gas meter, air lock, test bench""".replace("\n", " ").split(", ")
ROOMS = """boiler house, cold store, paint shop, tool room, pump station, north hall,
south hall, east wing, west wing, machine room, control room, battery room, loading dock,
main office, wash bay, cellar, attic, garage, workshop, laboratory, canteen, archive,
warehouse, gate house, server room, packing hall, yard, tower, tunnel, first aid room,
meeting room, test room, stairwell, kiln house, dry store, chemical store, parts store,
locker room, roof, reception""".replace("\n", " ").split(", ")
FIRST = """Ada Alma Anton Astrid Boris Carla Clara Dario Edith Elena Emil Erik
Fatima Felix Frida Georg Greta Hanna Hugo Ida Igor Ines Ivan Jana Jonas Julia
Kamil Karin Lars Lea Lena Leon Linus Lucia Magda Marek Maria Marta Milan Mira
Nadia Nils Nora Olga Omar Oskar Paula Pavel Petra Rafael Rita Rosa Samir Sonja
Stefan Tara Tomas Ursula Vera Viktor Yusuf Zara""".split()
ONSETS = "B Br D Dr F G Gr H K Kr L M N P R S St T Tr V W Z".split()
MIDDLES = "a al an ar e el en er i il in o ol on or u ul".split()
ENDINGS = "din berg ka lin man mer nik rov sen ski son tov vic zak der ley".split()
UNITS = ["bar", "degrees", "amps", "volts", "litres per minute", "kilograms",
         "turns per minute", "percent", "kilowatts", "millimetres"]
TRADES = ["water works", "saw mill", "dairy", "paper mill", "power plant", "brewery",
          "foundry", "data centre", "wind park", "bakery", "quarry", "ship yard",
          "glass works", "depot", "airport", "hospital"]
CONTROLS = ["blue button", "red button", "green button", "black lever", "brass key",
            "main switch", "side valve", "small crank", "white knob", "yellow handle",
            "drain valve", "upper lid", "lower lid", "service door", "bypass"]
CONDITIONS = ["the filter is blocked", "the door is open", "the oil is low",
              "the belt is torn", "the pressure is too high", "the pressure is too low",
              "the water is too hot", "the battery is empty", "a fuse has blown",
              "the line is down", "the tank is full", "the tank is empty",
              "the motor is too hot", "a sensor is lost", "the fan stands still",
              "the air is bad", "smoke was seen", "the cover is missing",
              "the flow is too low", "the clock is wrong"]
EVENTS = ["fire", "flood", "a gas leak", "a power cut", "a storm", "a chemical spill",
          "an injury", "an intruder"]
MEETING = ["the flag pole", "the car park", "the east gate", "the bus stop", "the bridge",
           "the old oak", "the main gate", "the fountain", "the bike shed", "the lawn"]
FILLERS = ["Keep this page near the phone.", "Ask the shift leader if in doubt.",
           "Wear gloves and a helmet at all times.", "Doors stay closed at night.",
           "Write every change into the log book.", "Visitors sign in first.",
           "Never work alone.", "Report damage at once.", "Labels must stay readable.",
           "This part was checked by the safety board.", "Old copies are no longer valid."]
INTROS = ["This handbook is for the staff of the {site}.",
          "All who work at the {site} must know these pages.",
          "Here the {site} writes down what every shift needs to know.",
          "These notes hold for all shifts of the {site}."]

# kind: (heading, statements, questions). {s} is the subject, {v} the value.
# A statement and the answer to its question are the same sentence.
KINDS = {
    "place": ("Where things are",
              ["The {s} is in {v}.", "The {s} stands in {v}.", "The {s} can be found in {v}."],
              ["Where is the {s}?", "Where do I find the {s}?", "In which place is the {s}?"]),
    "limit": ("Limits",
              ["The {s} must not exceed {v}.", "The {s} must stay below {v}.",
               "The {s} may go up to {v}."],
              ["What is the limit of the {s}?", "What is the highest value for the {s}?",
               "How high may the {s} go?"]),
    "service": ("Service",
                ["The {s} is serviced every {v}.", "The {s} needs service every {v}.",
                 "The {s} gets service every {v}."],
                ["How often is the {s} serviced?", "When does the {s} need service?",
                 "How often does the {s} need service?"]),
    "owner": ("Who looks after what",
              ["The {s} is looked after by {v}.", "The {s} belongs to {v}.",
               "The {s} is in the care of {v}."],
              ["Who looks after the {s}?", "Who is responsible for the {s}?",
               "Who takes care of the {s}?"]),
    "part": ("Spare parts",
             ["The {s} uses spare part {v}.", "The {s} takes spare part {v}.",
              "The {s} is repaired with part {v}."],
             ["Which spare part does the {s} use?", "Which part fits the {s}?",
              "What is the spare part of the {s}?"]),
    "year": ("History",
             ["The {s} was installed in {v}.", "The {s} was built in {v}.",
              "The {s} has been running since {v}."],
             ["When was the {s} installed?", "Since when do we have the {s}?",
              "From which year is the {s}?"]),
    "power": ("Power",
              ["The {s} is fed from panel {v}.", "The {s} gets its power from panel {v}.",
               "The {s} hangs on panel {v}."],
              ["Which panel feeds the {s}?", "Where does the {s} get its power?",
               "On which panel is the {s}?"]),
    "restart": ("Procedures",
                ["To restart the {s}, {v}.", "When the {s} stops, {v}."],
                ["How do I restart the {s}?", "What do I do when the {s} stops?",
                 "How is the {s} restarted?"]),
    "phone": ("Contacts",
              ["{s} can be reached at extension {v}.", "{s} answers extension {v}.",
               "{s} has extension {v}."],
              ["How do I reach {s}?", "What is the extension of {s}?",
               "Which number does {s} have?"]),
    "alarm": ("Alarms",
              ["Alarm {s} means that {v}.", "Alarm {s} says that {v}."],
              ["What does alarm {s} mean?", "What is the meaning of alarm {s}?",
               "Why do I see alarm {s}?"]),
    "code": ("Door codes",
             ["The door code of {s} is {v}.", "The code for {s} is {v}."],
             ["What is the door code of {s}?", "Which code opens {s}?",
              "What is the code for {s}?"]),
    "key": ("Keys",
            ["Key {s} opens {v}.", "Key {s} is for {v}."],
            ["What does key {s} open?", "What is key {s} for?", "Where do I use key {s}?"]),
    "meet": ("Emergencies",
             ["In case of {s}, meet at {v}.", "In case of {s}, go to {v}."],
             ["Where do we meet in case of {s}?", "Where do I go in case of {s}?",
              "What do we do in case of {s}?"]),
}
DEVICE_KINDS = ["place", "limit", "service", "owner", "part", "year", "power", "restart"]
OTHER_KINDS = ["phone", "alarm", "code", "key", "meet"]


def surname(rng):
    return rng.choice(ONSETS) + rng.choice(MIDDLES) + rng.choice(ENDINGS)


def person(rng):
    return f"{rng.choice(FIRST)} {surname(rng)}"


def room(rng):
    pick = rng.random()
    if pick < 0.5:
        return "the " + rng.choice(ROOMS)
    if pick < 0.7:
        return f"hall {rng.randint(1, 30)}"
    if pick < 0.85:
        return f"bay {rng.randint(1, 30)}"
    return f"room {rng.randint(100, 499)}"


def device(rng):
    """One in eight carries an invented name, so that names never seen get copied too."""
    first = surname(rng) if rng.random() < 0.125 else rng.choice(ADJECTIVES)
    return first, rng.choice(NOUNS)


def action(rng):
    thing = rng.choice(CONTROLS)
    return rng.choice([f"press the {thing}", f"open the {thing}", f"turn the {thing}",
                       f"close the {thing}", f"check the {thing}", f"pull the {thing}",
                       f"wait {rng.randint(2, 59)} minutes", f"call {rng.choice(FIRST)}"])


def actions(rng):
    first, second = action(rng), action(rng)
    while second == first:
        second = action(rng)
    return f"{first} and {second}"


def value(kind, people, rng):
    if kind == "place" or kind == "key":
        return room(rng)
    if kind == "limit":
        return f"{rng.randint(2, 99)} {rng.choice(UNITS)}"
    if kind == "service":
        return f"{rng.randint(2, 30)} {rng.choice(['days', 'weeks', 'months', 'hours'])}"
    if kind == "owner":
        return rng.choice(people)
    if kind == "part":
        letters = "ABCDEFGHKLMNPRSTVWX"
        return f"{rng.choice(letters)}{rng.choice(letters)}-{rng.randint(100, 999)}"
    if kind == "year":
        return str(rng.randint(1961, 2024))
    if kind == "power":
        return f"{rng.choice('ABCDEFGH')}{rng.randint(1, 40)}"
    if kind == "restart":
        return actions(rng)
    if kind == "phone" or kind == "code":
        return str(rng.randint(1000, 9999))
    if kind == "alarm":
        return rng.choice(CONDITIONS)
    return rng.choice(MEETING)


def other_subject(kind, people, rng):
    if kind == "phone":
        return rng.choice(people)
    if kind == "alarm":
        return str(rng.randint(10, 99))
    if kind == "code":
        return room(rng)
    if kind == "key":
        return str(rng.randint(1, 60))
    return rng.choice(EVENTS)


def draw_devices(count, likeness, rng):
    """Distinct devices. likeness is the share that may repeat a word of another."""
    out, seen = [], set()
    while len(out) < count:
        first, noun = device(rng)
        alike = first in seen or noun in seen
        if (first, noun) in out or (alike and rng.random() >= likeness):
            continue
        seen.update((first, noun))
        out.append((first, noun))
    return [f"{first} {noun}" for first, noun in out]


def draw_subjects(facts, likeness, people, rng):
    """(kind, subject) pairs, each at most once per handbook."""
    kinds = rng.sample(DEVICE_KINDS, min(len(DEVICE_KINDS), 1 + max(1, facts // 4)))
    others = rng.sample(OTHER_KINDS, rng.randint(1, min(len(OTHER_KINDS), 1 + facts // 6)))
    share = rng.uniform(0.6, 0.9)
    per_device = rng.uniform(1.0, 3.5)
    devices = draw_devices(min(50, max(1, round(facts * share / per_device))), likeness, rng)
    pairs = set()
    for _ in range(20 * facts):
        if len(pairs) == facts:
            break
        if rng.random() < share:
            pairs.add((rng.choice(kinds), rng.choice(devices)))
        else:
            kind = rng.choice(others)
            pairs.add((kind, other_subject(kind, people, rng)))
    pairs = sorted(pairs)
    rng.shuffle(pairs)
    return pairs


def ask(kind, subject, rng):
    question = rng.choice(KINDS[kind][2]).format(s=subject)
    if rng.random() < 0.08:
        question = question[0].lower() + question[1:].rstrip("?")
    return question


def paragraph(sentences, rng):
    """The sentences of one section, as prose or as a list."""
    if rng.random() < 0.3:
        return "\n".join("- " + s for s in sentences)
    lines, at = [], 0
    while at < len(sentences):
        step = rng.randint(2, 6)
        lines.append(" ".join(sentences[at:at + step]))
        at += step
    return "\n".join(lines)


def write_down(facts, rng):
    """Sentences for [(kind, subject, value)]: [(kind, subject, value, sentence)] and sections."""
    habit = {kind: rng.choice(spec[1]) for kind, spec in KINDS.items()}
    by_device = rng.random() < 0.4
    sections, out = {}, []
    for kind, subject, worth in facts:
        form = habit[kind] if rng.random() < 0.7 else rng.choice(KINDS[kind][1])
        sentence = form.format(s=subject, v=worth)
        sections.setdefault(heading_of(kind, subject, by_device), []).append(sentence)
        out.append((kind, subject, worth, sentence))
    return out, sections


def heading_of(kind, subject, by_device):
    return "The " + subject if by_device and kind in DEVICE_KINDS else KINDS[kind][0]


def lay_out(site, sections, rng):
    """The text of a handbook with these sections in random order."""
    parts = [f"# Handbook of the {site}\n{rng.choice(INTROS).format(site=site)}"]
    order = list(sections)
    rng.shuffle(order)
    for heading in order:
        sentences = sections[heading]
        if rng.random() < 0.35:
            sentences.insert(rng.randint(0, len(sentences)), rng.choice(FILLERS))
        parts.append(f"## {heading}\n{paragraph(sentences, rng)}")
    return "\n".join(parts) + "\n"


def handbook(seed, facts, likeness=0.5):
    """{"handbook": text, "questions": [{"q", "a", "kind"}]}, questions in random order."""
    rng = random.Random(seed)
    site = f"{surname(rng)} {rng.choice(TRADES)}"
    habit = {kind: rng.choice(spec[1]) for kind, spec in KINDS.items()}
    people = [person(rng) for _ in range(2 + facts // 4)]
    sections, questions = {}, []
    by_device = rng.random() < 0.4
    for kind, subject in draw_subjects(facts, likeness, people, rng):
        form = habit[kind] if rng.random() < 0.7 else rng.choice(KINDS[kind][1])
        sentence = form.format(s=subject, v=value(kind, people, rng))
        sections.setdefault(heading_of(kind, subject, by_device), []).append(sentence)
        questions.append({"q": ask(kind, subject, rng), "a": sentence, "kind": kind})
    text = lay_out(site, sections, rng)
    rng.shuffle(questions)
    return {"handbook": text, "questions": questions}


def render_system(text):
    return f"<|im_start|>system\n{text}<|im_end|>\n"


def render_question(question):
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def span(text):
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def write_qa(write, opt):
    with open(opt.out, "w", encoding="ascii") as out:
        for index in range(opt.count):
            rng = random.Random(opt.seed + index)
            book = write(opt.seed + index, rng.randint(*opt.facts))
            book["questions"] = book["questions"][:opt.per_book]
            out.write(json.dumps(book) + "\n")


def main(write, about):
    args = argparse.ArgumentParser(description=about)
    args.add_argument("out", metavar="OUT.jsonl")
    args.add_argument("--count", type=int, default=40)
    args.add_argument("--facts", type=span, default=(8, 60))
    args.add_argument("--per-book", type=int, default=8)
    args.add_argument("--seed", type=int, default=0)
    opt = args.parse_args()
    if opt.seed + opt.count > HELD_OUT_END:
        args.error(f"seeds from {HELD_OUT_END} on are for training")
    write_qa(write, opt)


if __name__ == "__main__":
    main(handbook, __doc__.splitlines()[0])
