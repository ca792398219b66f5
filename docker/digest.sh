#!/usr/bin/env bash
# Prints an image with the digest that its tag has now, as the build argument BASE takes it:
#   docker build -f docker/Dockerfile.desktop --build-arg BASE="$(docker/digest.sh ros:kilted-ros-base)" .
set -euo pipefail
if [ $# -ne 1 ]; then
    echo "usage: docker/digest.sh NAME:TAG" >&2
    exit 2
fi
image=${1%%@*}
digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$image")
if [[ ! $digest =~ ^sha256:[0-9a-f]{64}$ ]]; then
    echo "the registry answers '$digest' for $image, expected sha256: and 64 hexadecimal digits" >&2
    exit 1
fi
echo "$image@$digest"
