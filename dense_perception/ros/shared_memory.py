"""Fast DDS' shared memory that killed processes have left behind."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time
from pathlib import Path

_FOLDER = Path("/dev/shm")
# Older and newer versions' names. Ports are small and shared by several processes: left alone.
_SEGMENT = re.compile(r"fast(?:dds|rtps)_[0-9a-f]{16}")
# A process that is starting may have made a segment and not locked it yet. A node that is started
# again and again within a second must not fill the memory in that time.
_LEAST_AGE_S = 1.5


def remove_dead_segments(folder: Path = _FOLDER, least_age_s: float = _LEAST_AGE_S) -> int:
    """Remove this user's segments whose process has ended; returns how many bytes that frees.

    A living process holds an exclusive lock on the segment's ``_el`` file, by which Fast DDS'
    own ``fastdds shm clean`` decides too.
    """
    freed = 0
    try:
        names = [name for name in os.listdir(folder) if _SEGMENT.fullmatch(name)]
    except OSError:
        return 0  # another system, or a container without it
    for name in names:
        try:
            freed += _remove_if_dead(folder / name, least_age_s)
        except OSError:
            continue  # it went meanwhile, it is in use, or it is somebody else's
    return freed


def _remove_if_dead(segment: Path, least_age_s: float) -> int:
    found = segment.lstat()
    is_ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
    if not is_ours or time.time() - found.st_ctime < least_age_s:
        return 0
    lock = segment.with_name(f"{segment.name}_el")
    descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        segment.unlink()
        lock.unlink()
    finally:
        os.close(descriptor)
    return found.st_blocks * 512
