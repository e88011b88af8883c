#!/usr/bin/env bash
# Prints the base image to build on. Where debian:trixie-slim can be had, that is it; where no container registry
# answers, an image of the same kind is made from Debian's packages. Its own lines go to stderr.
set -euo pipefail

PUBLISHED=debian:trixie-slim LOCAL=p8s-base:trixie
say() { printf 'base image: %s\n' "$1" >&2; }
exists() { docker image inspect "$1" >/dev/null 2>&1; }

if [ -n "${BASE_IMAGE:-}" ]; then echo "$BASE_IMAGE"; exit; fi
for image in $PUBLISHED $LOCAL; do
  if exists $image; then echo $image; exit; fi
done
# A look at the manifest tells within seconds whether a registry answers; a pull may take its time.
if timeout 10 docker buildx imagetools inspect $PUBLISHED >/dev/null 2>&1 && docker pull --quiet $PUBLISHED >&2; then
  echo $PUBLISHED; exit
fi

command -v mmdebstrap >/dev/null || {
  say "$PUBLISHED cannot be pulled; to make a base image from Debian's packages: apt-get install mmdebstrap"; exit 1; }
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: trixie' 'Origin: Debian' | sed -n 1p)
SECONDS=0
mmdebstrap --quiet --variant=minbase --include=ca-certificates \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-include=/usr/share/doc/*/copyright' --dpkgopt='path-exclude=/usr/share/locale/*' \
  trixie - ${mirror:+"$mirror"} | docker import - $LOCAL >/dev/null
say "$LOCAL made from Debian's packages in $SECONDS s"
echo $LOCAL
