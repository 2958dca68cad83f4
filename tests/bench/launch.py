"""Run one command and tell what its whole tree of processes took: `launch.py REPORT COMMAND...` writes REPORT as JSON.

A process of its own, since a child is never said to have needed less memory than the process that started it: this one imports
next to nothing and needs 9 MiB.
"""

import json
import os
import signal
import sys
import time


def main() -> int:
    """Run it; its exit code. SIGTERM goes on to the command."""
    report, *command = sys.argv[1:]
    begin_s = time.monotonic()
    child = os.posix_spawnp(command[0], command, os.environ)
    signal.signal(signal.SIGTERM, lambda number, _frame: os.kill(child, number))
    _, status, used = os.wait4(child, 0)
    took = {
        "cpu_s": used.ru_utime + used.ru_stime,
        "wall_s": time.monotonic() - begin_s,
        "peak_mib": used.ru_maxrss / 1024,
        "code": os.waitstatus_to_exitcode(status),
    }
    with open(report, "w", encoding="utf-8") as file:  # noqa: PTH123  # pathlib alone takes 2 MiB
        json.dump(took, file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
