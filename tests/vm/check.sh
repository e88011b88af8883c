#!/usr/bin/env bash
# In the guest: a cluster with a cgroup namespace of its own and with the host's, from the start to what is left, and
# then the cluster tests. TESTS: what pytest is given (TELLING below); `none` leaves them out. SMOKE=0 leaves out the rest.
set -euo pipefail

# What depends on the host's kernel, systemd and cgroups; `run.sh tests/cluster tests/faults` is all of them.
TELLING="tests/cluster/test_life.py tests/cluster/test_workloads.py tests/cluster/test_limits_pods.py
  tests/cluster/test_net_services.py tests/cluster/test_net_docker.py tests/cluster/test_quiet.py
  tests/cluster/test_addon_storage.py tests/faults/test_left.py tests/faults/test_memory.py"
. /share/settings
say() { printf 'vm: %6.0f s  %s\n' "$(cut -d' ' -f1 /proc/uptime)" "$1"; }

say "$(uname -r), $(systemctl --version | head -n 1), $(docker info --format 'docker {{.ServerVersion}}, {{.CgroupDriver}}, cgroup v{{.CgroupVersion}}')"
SLOW=$(python3 -c "import math; print(max(1, math.ceil($(python3 /share/work.py) / $(cat /share/host-seconds))))")
export IMAGE FULL_IMAGE SLOW
say "$(systemd-detect-virt): work takes $SLOW times as long as on the host, and so long is waited"
docker load --quiet --input /share/images.tar
say "the images are loaded"
smoke() { bash tests/vm/smoke.sh --cgroupns="$1"; say "smoke with --cgroupns=$1 passed"; }
# The clock is the same in both.
[ "$SMOKE" = 0 ] || { CLOCK=1 smoke private; smoke host; }
[ "${TESTS:-}" != none ] || exit 0
/opt/venv/bin/python -m pytest -p tests.vm.slow -p no:cacheprovider -o timeout=$((300 * SLOW)) ${TESTS:-$TELLING}
