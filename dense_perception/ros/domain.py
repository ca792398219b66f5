"""A ROS domain of one's own, so that a demo or a test meets no other robot."""

from __future__ import annotations

import fcntl
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dense_perception.core.errors import InputError

# Above 101 the ports of a domain overlap the ephemeral ones of Linux; 0 is everybody's.
_DOMAINS = range(1, 102)


@contextmanager
def reserved_domain() -> Iterator[int]:
    """A ROS_DOMAIN_ID that no other caller on this machine holds, until the block ends.

    :raises InputError: if all are held.
    """
    folder = Path(tempfile.gettempdir()) / f"dense_perception_domains_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for domain in random.sample(_DOMAINS, len(_DOMAINS)):
        with open(folder / str(domain), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield domain
            return
    raise InputError(f"all {len(_DOMAINS)} ROS domains are in use here: end other demos or tests")


def local_environment(domain: int) -> dict[str, str]:
    """Variables that keep a process in ``domain`` and on this machine."""
    return {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
