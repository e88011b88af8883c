#!/usr/bin/env bash
# Runs the default cluster of docker-compose.yml and waits until it is ready.
set -euo pipefail
cd "$(dirname "$0")/.."

port=${P8S_HTTP_PORT:-8989} SECONDS=0
docker compose up --detach --wait || { docker compose logs --no-log-prefix --tail 40 p8s >&2; exit 1; }
echo "cluster: ready ($SECONDS s)"
echo "  curl -s http://127.0.0.1:$port/kubeconfig > p8s.kubeconfig"
echo "  kubectl --kubeconfig p8s.kubeconfig get pods -A"
