#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Write user/model/unicode_data.c: which code points are letters, numbers, punctuation, white space.

Pre-tokenizers are regular expressions over these four classes, so the table decides token ids. It is
that of Unicode 15.1, the one in llama.cpp. Python brings the table of its own Unicode version; what
15.0 and 15.1 added to these classes since 14.0 (Debian 12) is listed here, from the standard's
DerivedAge.txt and UnicodeData.txt, so that any Python writes the same file.

    scripts/unicode.py > user/model/unicode_data.c
"""
import sys
import unicodedata

OTHER, SPACE, LETTER, NUMBER, PUNCT = range(5)
NAMES = ["OTHER", "SPACE", "LETTER", "NUMBER", "PUNCT"]
END = 0x110000

# The White_Space property. It never grew, and str.isspace() counts U+001C to U+001F, which are not in it.
WHITE_SPACE = {
    *range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000,
}

# (first, last, class) of what 15.0 and 15.1 assigned; symbols and marks are OTHER, assigned or not.
SINCE_14 = [
    (0x1123F, 0x11240, LETTER), (0x11B00, 0x11B09, PUNCT), (0x11F02, 0x11F02, LETTER), (0x11F04, 0x11F10, LETTER),
    (0x11F12, 0x11F33, LETTER), (0x11F43, 0x11F4F, PUNCT), (0x11F50, 0x11F59, NUMBER), (0x1342F, 0x1342F, LETTER),
    (0x13441, 0x13446, LETTER), (0x1B132, 0x1B132, LETTER), (0x1B155, 0x1B155, LETTER), (0x1D2C0, 0x1D2D3, NUMBER),
    (0x1DF25, 0x1DF2A, LETTER), (0x1E030, 0x1E06D, LETTER), (0x1E4D0, 0x1E4EB, LETTER), (0x1E4F0, 0x1E4F9, NUMBER),
    (0x2B739, 0x2B739, LETTER), (0x2EBF0, 0x2EE5D, LETTER), (0x31350, 0x323AF, LETTER),
]


def classes():
    table = []
    for c in range(END):
        category = unicodedata.category(chr(c))
        if c in WHITE_SPACE:
            table.append(SPACE)
        else:
            table.append({"L": LETTER, "N": NUMBER, "P": PUNCT}.get(category[0], OTHER))
    for first, last, kind in SINCE_14:
        for c in range(first, last + 1):
            if table[c] not in (OTHER, kind):
                sys.exit(f"U+{c:04X}: {NAMES[table[c]]} in Python's table, {NAMES[kind]} in ours")
            table[c] = kind
    return table


def main():
    version = tuple(int(x) for x in unicodedata.unidata_version.split(".")[:2])
    if not (14, 0) <= version <= (15, 1):
        sys.exit(f"Unicode {unicodedata.unidata_version}: run this with a Python that has 14.0 to 15.1")
    table = classes()
    starts = [c for c in range(END) if c == 0 or table[c] != table[c - 1]]
    print("// SPDX-License-Identifier: MIT")
    print("// Written by scripts/unicode.py: edit that. Unicode 15.1.")
    print('#include "model/unicode.h"\n')
    print("// clang-format off")
    print("// First code point of each run << 8, and its class; a run ends where the next one starts.")
    print("const uint32_t unicode_runs[] = {")
    for i in range(0, len(starts), 8):
        print("\t" + " ".join(f"0x{s << 8 | table[s]:08x}," for s in starts[i:i + 8]))
    print("};")
    print("// clang-format on")
    print(f"const unsigned int unicode_n_runs = {len(starts)};")


main()
