"""What the C library keeps of freed memory goes back to the system."""

from __future__ import annotations

import subprocess
import sys

MEASURE = """
import os
from otelbridge.service import memory

def rss_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

memory.bound()
"""
# Buffers of many sizes, too large for Python's own arenas, with one in a thousand that lives on: the heap cannot shrink.
MANY = """
buffers = [bytearray(600 + n % 5000) for n in range(40_000)]
filled = rss_bytes()
kept = buffers[999::1000]
del buffers
freed = rss_bytes()
memory.give_back()
print(filled, freed, rss_bytes(), len(kept))
"""
# After one buffer of 16 MiB was freed, such of 256 KiB lie on the heap if they may.
LARGE = """
buffer = bytearray(16 << 20)
del buffer
buffers, kept = [], []
for _ in range(400):
    buffers.append(bytearray(b"x") * (256 << 10))
    kept.append(bytearray(2000))
filled = rss_bytes()
del buffers
print(filled, rss_bytes(), len(kept))
"""


def sizes(program: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", MEASURE + program], capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_what_was_freed_between_what_lives_on_goes_back_to_the_system() -> None:
    filled, freed, given_back, _ = sizes(MANY)
    assert freed > filled * 0.8, "the C library gave it back by itself; this tests nothing here"
    assert given_back < filled * 0.4


def test_large_buffers_go_back_as_soon_as_they_are_freed() -> None:
    filled, freed, _ = sizes(LARGE)
    assert freed < filled * 0.3
