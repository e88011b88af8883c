#!/bin/sh
# Build the application, load it into the cluster, and roll it out; after each edit again. docs/dev-loop.md
#   P8S_NAME=dev: a cluster with another name than `default`
#   BASE=my/python:3: another image with a python3 than the Dockerfile's
set -eu
cd "$(dirname "$0")"
export P8S_NAME="${P8S_NAME:-default}"
kubectl() { command kubectl --context="p8s-$P8S_NAME" "$@"; }

docker build --quiet ${BASE:+--build-arg=BASE="$BASE"} --tag=app:dev . > /dev/null
# A tag for each content: pods keep what they run, and where nothing was edited nothing is rolled out.
image=app:$(docker inspect --format='{{.Id}}' app:dev | cut -c8-19)
docker tag app:dev "$image"
p8s load "$image"
docker image rm "$image" > /dev/null # the name alone
sed "s|image: app:dev|image: $image|" manifests.yaml | kubectl apply --filename=-
kubectl rollout status deployment/app --timeout=90s
