"""Fuzzes the link's gateware, compiled: python tests/rtl/fuzz_link.py [--frames N] [--seed N] [--credits N] [--slow].

Every frame on the line, damaged or not, is executed by a model too; replies, writes and counters must be the same,
and a valid READ is answered after every batch. Prints one line of counts.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from bench import SEED
from builds import verilog
from harness import compiled
from sterna.hw.link import Link

HARNESS = Path(__file__).with_name("fuzz_link.cpp")


def program(credits, slow):
    """Path of the compiled harness."""
    config = SimpleNamespace(credits=credits, slow=slow, register_bits=32, frame_counter_bits=32, batch=1,
                             memory_bytes=1 << 16)
    return compiled("fuzz-link", "link", verilog(Link(config), "link"), HARNESS)


def fuzz(frames, seed, credits=4, slow=False):
    """Counts by name (dict of int); AssertionError with the first difference."""
    done = subprocess.run([program(credits, slow), str(frames), str(seed)], capture_output=True, text=True)
    assert done.returncode == 0, f"seed {seed}: {done.stderr.strip() or done.returncode}"
    words = done.stdout.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


def main():
    parser = argparse.ArgumentParser(description="Fuzz the link's gateware against a model.")
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--credits", type=int, default=4)
    parser.add_argument("--slow", action="store_true", help="the link of a slow clock, without registers for speed")
    given = parser.parse_args()
    path = program(given.credits, given.slow)
    started = time.monotonic()
    try:
        counts = fuzz(given.frames, given.seed, given.credits, given.slow)
    except AssertionError as error:
        print(f"error: {path.name}: {error}", file=sys.stderr)
        return 1
    print(", ".join(f"{value:,} {name}" for name, value in counts.items())
          + f"; seed {given.seed}, {time.monotonic() - started:.1f} s on {os.uname().machine}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
