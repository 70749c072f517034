"""A process that does one job: read from standard input, which it must never see the end of before its own.

Says on standard output, a line of JSON each, how far it is and at last how it ended.
"""

from __future__ import annotations

import json
import os
import sys
import threading

INTERRUPTED = 130


def main() -> None:
    """Does the job of the first line of standard input."""
    job = json.loads(sys.stdin.readline())
    # Whoever started this process holds the other end: when that is gone, even killed, nobody waits for the job, and
    # the same command that is typed again must find the run's folder free.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        from diffusion.ablations.job import Job
        from diffusion.ablations.trial import attempt

        reason = attempt(Job.from_dict(job), lambda step, doing: _say(step=step, doing=doing))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    _say(ended=reason)


def _say(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)
