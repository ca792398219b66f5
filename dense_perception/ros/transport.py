"""The environment in which Fast DDS carries camera images between processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from dense_perception.core.errors import InputError

PROFILE_NAME = "fastdds_large_images.xml"
# Fast DDS 2 (ROS 2 up to Jazzy) reads the older name, Fast DDS 3 the newer and warns of the older.
_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
_OLD_DISTRIBUTIONS = ("foxy", "galactic", "humble", "iron", "jazzy")


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
