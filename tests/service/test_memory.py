"""What the C library keeps of freed memory goes back to the system."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os
from otelbridge.service import memory

def rss_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

memory.bound()
# Buffers of many sizes, too large for Python's own arenas, with one in a thousand that lives on: the heap cannot shrink.
buffers = [bytearray(600 + n % 5000) for n in range(40_000)]
filled = rss_bytes()
kept = buffers[999::1000]
del buffers
freed = rss_bytes()
memory.give_back()
print(filled, freed, rss_bytes(), len(kept))
"""


def test_what_was_freed_between_what_lives_on_goes_back_to_the_system() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    filled, freed, given_back, _ = map(int, done.stdout.split())
    assert freed > filled * 0.8, "the C library gave it back by itself; this tests nothing here"
    assert given_back < filled * 0.4
