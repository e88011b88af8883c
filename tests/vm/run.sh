#!/usr/bin/env bash
# Tests the images on a stock Debian with systemd and cgroup v2, in a virtual machine: run.sh [check.sh's TESTS].
# All of the machine is in a container of an image that is made here; nothing is installed on the host.
set -euo pipefail
cd "$(dirname "$0")/../.."

export IMAGE=${IMAGE:-p8s:latest} FULL_IMAGE=${FULL_IMAGE:-p8s:full}
IMAGE=p8s-vm scripts/build-image.sh --file tests/vm/Dockerfile
share=$(mktemp -d) name=p8s-vm-$$
trap 'docker rm --force --volumes $name >/dev/null 2>&1 || true; rm -rf "$share"' EXIT
# The smoke has no use for the other one, which takes a minute to load.
images=("$IMAGE"); [ "$*" = none ] || images+=("$FULL_IMAGE")
docker save --output "$share/images.tar" "${images[@]}"
mkdir "$share/p8s"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents --target-directory="$share/p8s"
devices=(); [ -z "${KVM:-}" ] || devices=(--device=/dev/kvm)
# Not `exec`: the trap cleans up.
docker run --rm --name "$name" "${devices[@]}" --env=TESTS="$*" --env=SMOKE --env=IMAGE --env=FULL_IMAGE \
  --env=MINUTES --env=MEMORY --env=KVM --volume="$share:/share:ro" p8s-vm
