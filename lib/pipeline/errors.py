"""Errors that are for the user, who gets one message and no traceback."""

from __future__ import annotations

import errno

# What the system refuses and the user can mend: a full disk, a quota, a permission.
MENDABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


class SmeltError(Exception):
    """Something the user can mend. The message says what, where and what to do."""


def explain(error: OSError) -> str:
    """What to tell of a failed read or write."""
    if error.errno == errno.ENOSPC:
        return (
            f"the disk is full{f' (writing {error.filename})' if error.filename else ''}. Free some space and run the "
            f"same command again; nothing half-written was left, and checkpoints are kept"
        )
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
