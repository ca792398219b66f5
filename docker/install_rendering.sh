#!/usr/bin/env bash
# System packages that only rendering of the training corpora needs: headless OpenGL for MuJoCo and
# the furniture models (CC0 and CC-BY 3.0). Debian 12 and later, Ubuntu 22.04 and later.
set -euo pipefail
packages=(libegl1 libgl1-mesa-dri libosmesa6 sweethome3d-furniture)
if dpkg -s "${packages[@]}" >/dev/null 2>&1; then exit 0; fi
sudo=""
[ "$(id -u)" = 0 ] || sudo="sudo"
$sudo apt-get update -q
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q "${packages[@]}"
