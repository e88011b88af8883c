#!/usr/bin/env bash
# A cluster on this host from its start to what is left of it, with nothing but docker and curl: for hosts of other
# kinds than the developer's own, such as a virtual machine with systemd and cgroup v2.
# usage: smoke.sh [more options for docker run]; IMAGE (p8s:latest), SLOW (1; how much slower than usual the host is),
# CLOCK (0; with 1 the host's clock is set a day ahead under the cluster, and back: only on a machine of your own)
set -euo pipefail

IMAGE=${IMAGE:-p8s:latest} SLOW=${SLOW:-1} CLOCK=${CLOCK:-0} NAME=p8s-smoke WATCH=150
step() { printf '%7.1f s  %s\n' "$(($(date +%s%N) / 1000000 - started))e-3" "$1"; }
started=$(($(date +%s%N) / 1000000))
die() { step "FAILED: $1"; docker logs $NAME 2>&1 | tail -n 40; exit 1; }
kubectl() { docker exec -i $NAME kubectl --kubeconfig /etc/kubernetes/admin.conf "$@"; }
picture() {
  echo "mounts"; cut -d' ' -f1-3 /proc/self/mounts | sort
  echo "cgroups"; find /sys/fs/cgroup -type d \( -path '*docker*' -o -path '*kubepods*' -o -path '*p8s*' \) | sort
  echo "interfaces"; ls /sys/class/net
  echo "rules"; iptables-save | grep -v '^[#:]' | sort; { nft --stateless list ruleset 2>/dev/null || true; } | sort
  echo "volumes"; docker volume ls -q | sort
  echo "containers"; docker ps -aq | sort
  echo "processes"; ps -eo comm= | grep -E '^(etcd|containerd-shim|kubelet|kube-|coredns|pause|python3|crun)' | sort || true
  echo "sysctls"
  (cd /proc/sys && grep . kernel/panic kernel/panic_on_oops vm/overcommit_memory vm/panic_on_oom kernel/keys/root_max*)
}
await_ready() {
  local _
  for _ in $(seq $((1200 * SLOW))); do
    if [ "$(curl -s -o /tmp/p8s-ready -w '%{http_code}' http://127.0.0.1:8989/ready)" = 200 ]; then return; fi
    [ "$(docker inspect -f '{{.State.Running}}' $NAME)" = true ] || die "it has ended"
    sleep 0.1
  done
  cat /tmp/p8s-ready; die "not ready"
}

# What is made now runs, is found by its name, and is reached by way of kubelet; so every certificate and token is good.
check_works() {
  kubectl run "$1" --image=p8s.local/pause:1 --port=8080 --expose
  kubectl wait --for=condition=Ready "pod/$1" --timeout=$((60 * SLOW))s
  kubectl exec limited -- python3 -c 'import socket, sys; print(socket.gethostbyname(sys.argv[1]))' "$1.default.svc.cluster.local"
  kubectl delete "pod/$1" "service/$1" --now
}
# Longer than a node's lease is waited for; each second, since a red one comes and goes.
watch_ready() {
  local red=0 looks=0 until=$((SECONDS + WATCH))
  while ((SECONDS < until)); do
    looks=$((looks + 1))
    [ "$(curl -s -o /tmp/p8s-ready -w '%{http_code}' http://127.0.0.1:8989/ready)" = 200 ] ||
      { red=$((red + 1)); cat /tmp/p8s-ready; }
    sleep 1
  done
  await_ready; step "$1: red for $red of $looks looks"
}
# The step of the clock itself is not in the seconds that are told after it.
jump() {
  local before after
  before=$(date +%s%N); date -s "$1" >/dev/null; after=$(date +%s%N)
  started=$((started + (after - before) / 1000000))
}

docker rm -fv $NAME >/dev/null 2>&1 || true
picture > /tmp/p8s-before
docker run -d --privileged --name $NAME -p 127.0.0.1:8989:8989 -p 127.0.0.1:6443:6443 "$@" "$IMAGE" \
  --start-timeout=$((120 * SLOW))s >/dev/null
await_ready; step "ready"; docker logs $NAME
# It comes after ready.
kubectl wait --namespace=p8s-storage --for=create deployment/provisioner --timeout=$((60 * SLOW))s
kubectl rollout status --namespace=p8s-storage deployment/provisioner --timeout=$((60 * SLOW))s
kubectl get pods -A
[ "$(kubectl get pods -A --no-headers | awk '$4 != "Running"' | wc -l)" = 0 ] || die "a pod does not run"

kubectl apply -f - <<'YAML'
apiVersion: v1
kind: Pod
metadata: {name: limited}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: p8s.local/node:1
    command: [sleep, infinity]
    resources: {limits: {memory: 64Mi, cpu: 200m}}
    volumeMounts: [{name: usr, mountPath: /usr, readOnly: true}]
  volumes: [{name: usr, hostPath: {path: /usr}}]
---
apiVersion: v1
kind: Pod
metadata: {name: eater}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: p8s.local/node:1
    command: [python3, -c, "print(len(bytearray(200 << 20)))"]
    resources: {limits: {memory: 64Mi}}
    volumeMounts: [{name: usr, mountPath: /usr, readOnly: true}]
  volumes: [{name: usr, hostPath: {path: /usr}}]
YAML
kubectl wait --for=condition=Ready pod/limited --timeout=$((60 * SLOW))s
kubectl wait --for=jsonpath='{.status.phase}'=Failed pod/eater --timeout=$((60 * SLOW))s
reason=$(kubectl get pod eater -o jsonpath='{.status.containerStatuses[0].state.terminated.reason}')
[ "$reason" = OOMKilled ] || die "the pod over its limit ended with $reason, not OOMKilled"
id=$(kubectl get pod limited -o jsonpath='{.status.containerStatuses[0].containerID}')
limit=$(find /sys/fs/cgroup -path "*${id#containerd://}*" \( -name memory.max -o -name memory.limit_in_bytes \) -exec cat {} + | head -n 1)
[ "$limit" = $((64 << 20)) ] || die "the limit seen from the host is '$limit'"
step "a pod's limits hold"

if [ "$CLOCK" = 1 ]; then
  jump '+1 day'; check_works tomorrow; watch_ready "a day ahead"
  docker restart -t 60 $NAME >/dev/null; await_ready; step "started a day ahead"
  kubectl wait --for=condition=Ready pod/limited --timeout=$((60 * SLOW))s
  # All certificates are of tomorrow now.
  jump '-1 day'; check_works today; watch_ready "a day back"
fi

docker restart -t 60 $NAME >/dev/null; await_ready; step "ready after a restart"
kubectl wait --for=condition=Ready pod/limited --timeout=$((60 * SLOW))s

curl -s -X POST http://127.0.0.1:8989/stop
code=$(docker wait $NAME); step "stopped with $code"
[ "$code" = 0 ] || die "exit code $code"
docker rm -v $NAME >/dev/null
sleep 2
picture > /tmp/p8s-after
diff /tmp/p8s-before /tmp/p8s-after || die "this is left on the host"
step "nothing is left on the host"
