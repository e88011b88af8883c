#!/usr/bin/env bash
# Builds the image: build-image.sh [docker build's options]. Its settings: KUBERNETES, a minor (the newest), IMAGE
# (p8s:MINOR; of the newest p8s:latest, which is p8s:MINOR too), and FULL=1: with every add-on, p8s:full.
# Mirrors and the CA bundle are this machine's own: nothing of them stays in the image.
set -euo pipefail
cd "$(dirname "$0")/.."

minors=$(cd image/components/kubernetes && ls -d [0-9]* | sort -V)
newest=${minors##*$'\n'} KUBERNETES=${KUBERNETES:-${minors##*$'\n'}}
[ -d "image/components/kubernetes/$KUBERNETES" ] || {
  echo "image: there is no Kubernetes $KUBERNETES here, but ${minors//$'\n'/, }; make bump KUBERNETES=$KUBERNETES adds it" >&2
  exit 2; }
if [ -n "${FULL:-}" ]; then
  suffix=; [ "$KUBERNETES" = "$newest" ] || suffix=-$KUBERNETES
  IMAGE=p8s:full$suffix; set -- --target full "$@"
elif [ "$KUBERNETES" = "$newest" ]; then IMAGE=${IMAGE:-p8s:latest}; else IMAGE=${IMAGE:-p8s:$KUBERNETES}; fi
base=$(scripts/base-image.sh)
arguments=(--build-arg "BASE_IMAGE=$base" --build-arg "KUBERNETES=$KUBERNETES")
# Given by value only where the machine differs from the default.
for name in GOPROXY GOSUMDB; do
  value=$(go env $name 2>/dev/null || true); value=${value:-${!name:-}}
  [ -z "$value" ] || arguments+=(--build-arg "$name=$value")
done
pip_index=${PIP_INDEX_URL:-$(pip config get global.index-url 2>/dev/null || true)}
[ -z "$pip_index" ] || arguments+=(--build-arg "PIP_INDEX_URL=$pip_index")
for name in http_proxy https_proxy no_proxy; do
  [ -z "${!name:-}" ] || arguments+=(--build-arg "$name=${!name}")
done
bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
[ ! -r "$bundle" ] || arguments+=(--secret "id=ca,src=$bundle")
[ "$IMAGE" != p8s:latest ] || arguments+=(--tag "p8s:$KUBERNETES")
[ -z "${VERSION:-}" ] || arguments+=(--build-arg "VERSION=$VERSION")
arguments+=(--build-arg "REVISION=$(git rev-parse --verify -q HEAD 2>/dev/null || echo unknown)"
  --build-arg "CREATED=$(git log -1 --format=%cI 2>/dev/null || true)")
[ -t 1 ] || arguments+=(--progress plain)
SECONDS=0
before=$(docker image inspect --format '{{.Id}}' "$IMAGE" 2>/dev/null || true)
docker buildx build --load "${arguments[@]}" --tag "$IMAGE" "$@" .
# What has lost its only name by this goes, unless something still runs on it; its layers stay in the build cache.
if [ -n "$before" ] && [ "$(docker image inspect --format '{{len .RepoTags}}' "$before" 2>/dev/null)" = 0 ]; then
  docker image rm "$before" >/dev/null 2>&1 || true
fi
echo "image: $IMAGE is built ($SECONDS s)"
