"""The environment in which processes meet: a domain of their own, Fast DDS for camera images."""

from __future__ import annotations

import fcntl
import os
import random
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dense_perception.core.errors import InputError
from dense_perception.core.storage import cache_dir, make_own_folder

PROFILE_NAME = "fastdds_large_images.xml"
# Fast DDS 2 (ROS 2 up to Jazzy) reads the older name, Fast DDS 3 the newer and warns of the older.
_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
_OLD_DISTRIBUTIONS = ("foxy", "galactic", "humble", "iron", "jazzy")
# Above 101 the ports of a domain overlap the ephemeral ones of Linux; 0 is everybody's.
_DOMAINS = range(1, 102)


def default_profile() -> Path:
    """The installed ``config/fastdds_large_images.xml``, or that of the source checkout.

    :raises InputError: if the package is installed without its ``config`` folder.
    """
    for folder in _config_folders():
        if (folder / PROFILE_NAME).is_file():
            return folder / PROFILE_NAME
    raise InputError(
        f"{PROFILE_NAME} is not installed, expected it in share/dense_perception/config: install "
        "the package with pip or colcon"
    )


def transport_environment(
    profile: str | Path | None = None, environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Variables for the processes that exchange images; the user's own settings win.

    ``profile`` is a Fast DDS XML file, ``None`` the package's, an empty text none at all.
    ``environment`` is what is set already, by default in this process.

    :raises InputError: if there is no such file.
    """
    known = os.environ if environment is None else environment
    if profile == "" or any(known.get(name) for name in _VARIABLES):
        return {}
    path = default_profile() if profile is None else Path(profile)
    if not path.is_file():
        raise InputError(
            f"there is no transport profile {path}, expected a Fast DDS XML file: leave it empty "
            "for none"
        )
    old = known.get("ROS_DISTRO", "") in _OLD_DISTRIBUTIONS
    return {_VARIABLES[0 if old else 1]: str(path.resolve())}


def _config_folders() -> Iterator[Path]:
    yield Path(__file__).resolve().parents[2] / "config"
    prefixes = [sys.prefix, *os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)]
    for prefix in filter(None, prefixes):
        yield Path(prefix) / "share" / "dense_perception" / "config"


@contextmanager
def reserved_domain() -> Iterator[int]:
    """A ROS_DOMAIN_ID that no other caller on this machine holds, until the block ends.

    :raises InputError: if all are held, or there is no folder of ours for the locks.
    """
    folder = _locks_folder()
    for domain in random.sample(_DOMAINS, len(_DOMAINS)):
        # Nothing is followed or cut: in a folder under /tmp a name may lead anywhere.
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            lock = os.open(folder / str(domain), flags, 0o600)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            continue
        try:
            yield domain
        finally:
            os.close(lock)
        return
    raise InputError(f"all {len(_DOMAINS)} ROS domains are in use here: end other demos or tests")


def _locks_folder() -> Path:
    """Where domains are locked: a folder that is ours, elsewhere if somebody has put one there."""
    name = f"dense_perception_domains_{os.getuid()}"
    for folder in (Path(tempfile.gettempdir()) / name, cache_dir() / "domains"):
        try:
            make_own_folder(folder)
        except OSError:
            continue
        return folder
    raise InputError(
        f"no folder for locks is ours alone, expected {Path(tempfile.gettempdir()) / name} or "
        f"{cache_dir() / 'domains'}: remove what is there, or set TMPDIR"
    )


def local_environment(domain: int) -> dict[str, str]:
    """Variables that keep a process in ``domain`` and on this machine."""
    return {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
