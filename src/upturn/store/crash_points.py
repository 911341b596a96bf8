"""Named boundaries at which a test may kill the process, to prove that nothing finished is ever lost.

``UPTURN_FAULT="commit:file-moved"`` kills at the first time the boundary is reached, ``"commit:file-moved:3"`` at the
third. SIGKILL, so nothing is cleaned up: the same as a power cut for everything but the disk's own cache.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

from upturn.errors import UserError

VARIABLE = "UPTURN_FAULT"
BOUNDARIES = (
    "create:written",  # a new run is complete in a temporary folder, not yet under its name
    "commit:begin",  # the temporary folder of a step exists and is empty
    "commit:written",  # the step has written its files
    "commit:after-fsync",  # they are on the disk, and so is the draft of the record
    "commit:file-moved",  # reached once for each file or folder moved into the unit
    "commit:before-record",  # all are moved
    "commit:after-record",  # the record has its name: the step is done
    "commit:after-catalog",  # and the catalog knows
    "checkpoint:begin",
    "checkpoint:written",
    "checkpoint:after-fsync",
    "checkpoint:old-removed",  # only where a checkpoint of the same step is replaced
    "checkpoint:after-rename",
    "checkpoint:pruned",  # reached once for each older checkpoint removed
    "shard:written",  # rows of a cache are on the disk, under a hidden name
    "shard:after-rename",
    "state:before-rename",
    "prune:recorded",  # a deletion is written down, the weights are still there
    "prune:deleted",
    "fork:linked",  # a fork is complete in a temporary folder, not yet under its name
)
_seen: Counter[str] = Counter()


def reach(name: str) -> None:
    """End the process here if ``UPTURN_FAULT`` names this boundary; otherwise only read the environment.

    Raises UserError where the variable names no boundary.
    """
    fault = os.environ.get(VARIABLE)
    if not fault:
        return
    wanted, _, count = fault.rpartition(":")
    if not count.isdigit():
        wanted, count = fault, "1"
    if wanted not in BOUNDARIES:
        raise UserError(f"'{wanted}' is no boundary", where=VARIABLE, fix=f"Known: {', '.join(BOUNDARIES)}.")
    if wanted == name:
        _seen[name] += 1
        if _seen[name] == int(count):
            os.kill(os.getpid(), signal.SIGKILL)
