"""Named places where a test may have the process killed: ``AVOCADO_FAILPOINT=name:N``.

``reach(name)`` does nothing unless the variable names it; the N-th time it sends SIGKILL to its own
process, as a power cut would. The writer's names: before_commit, after_commit, after_delivery, and
before_KIND_commit, after_KIND_commit with KIND one of hold, settle, void, progress.
"""

from __future__ import annotations

import os
import signal

_name, _, _count = os.environ.get("AVOCADO_FAILPOINT", "").partition(":")
armed = bool(_name)
_left = int(_count or 1)


def reach(name: str) -> None:
    """Kills this process if ``name`` is the armed point and its count is up."""
    global _left
    if name != _name:
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
