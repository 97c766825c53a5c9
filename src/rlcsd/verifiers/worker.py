"""The process behind `pool.py`: one JSON pair a line in, one JSON truth value a line out."""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys

from .math import equivalent


def main() -> None:
    seconds, megabytes = float(sys.argv[1]), int(sys.argv[2])
    logging.disable(logging.CRITICAL)  # math-verify warns that its own time limit is off
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))
    equivalent("x+1", "1+x")  # imports and caches, before any clock runs
    print("ready", flush=True)
    for line in sys.stdin:
        given, reference = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            same = equivalent(given, reference)
        except Exception:  # whatever a parser makes of arbitrary text, it is not the answer
            same = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(same), flush=True)


if __name__ == "__main__":
    main()
