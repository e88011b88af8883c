#!/usr/bin/env bash
# A docker engine for a machine that has none: a Debian machine with nothing but its package mirror.
# Does nothing where docker answers. `engine.sh stop` ends what this script started, and nothing else.
set -euo pipefail

RUN=/run/p8s-engine LOG=/var/log/p8s-engine
step() { printf 'engine: %s (%d s)\n' "$1" "$((SECONDS - step_start))"; step_start=$SECONDS; }
die() { printf 'engine: %s\n' "$1" >&2; exit 1; }
answers() { docker info >/dev/null 2>&1; }
step_start=$SECONDS

# Whether what this script started by a name still runs: the pid may be somebody else's by now, or a zombie's that
# nobody waits for.
running() {
  [ -f "$RUN/$1.pid" ] && grep -q "^[0-9]* ($1) [^ZX]" "/proc/$(cat "$RUN/$1.pid")/stat" 2>/dev/null
}

stop() {
  local name
  for name in dockerd containerd; do
    [ -f "$RUN/$name.pid" ] || continue
    if running "$name"; then
      kill "$(cat "$RUN/$name.pid")"
      for _ in $(seq 200); do running "$name" || break; sleep 0.1; done
    fi
    rm -f "$RUN/$name.pid"
    step "$name stopped"
  done
}

# The suite trixie beside the machine's own, from the same mirror, and only for what asks for it.
add_trixie() {
  local mirror
  if apt-get indextargets --format '$(CODENAME)' 'Created-By: Packages' 'Origin: Debian' | grep -x trixie >/dev/null; then return; fi
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | sed -n 1p)
  [ -n "$mirror" ] || die "apt has no Debian source: install Docker 23 or later by hand, then run this again"
  cat > /etc/apt/sources.list.d/p8s-trixie.sources <<EOF
Types: deb
URIs: $mirror
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
EOF
  printf 'Package: *\nPin: release n=trixie\nPin-Priority: 50\n' > /etc/apt/preferences.d/p8s-trixie
  apt-get update -qq
}

install_packages() {
  local want=(docker.io docker-cli docker-compose docker-buildx containerd mmdebstrap iptables) missing=() package
  for package in "${want[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  apt-get update -qq
  add_trixie
  # No service is started: where there is an init system it is asked below.
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -t trixie --no-install-recommends "${missing[@]}" \
    > /var/log/p8s-engine/apt.log 2>&1 || { tail -n 20 /var/log/p8s-engine/apt.log >&2; die "apt-get failed"; }
}

start() {
  if [ -d /run/systemd/system ]; then
    systemctl start containerd docker
  else
    # What an init system would have done for cgroup v1 is done here already, or docker says so.
    # A socket that a killed containerd left would look like one that answers.
    running containerd || rm -f /run/containerd/containerd.sock
    launch containerd containerd
    for _ in $(seq 100); do [ -S /run/containerd/containerd.sock ] && break; sleep 0.1; done
    launch dockerd dockerd --containerd /run/containerd/containerd.sock
  fi
  for _ in $(seq 300); do answers && return; sleep 0.2; done
  tail -n 20 "$LOG"/*.log >&2
  die "dockerd does not answer after 60 s; its log is in $LOG"
}

launch() {
  local name=$1; shift
  if running "$name"; then return; fi
  # A pid file of an engine that was killed would keep the new one from starting.
  [ "$name" != dockerd ] || rm -f /var/run/docker.pid
  setsid "$@" < /dev/null >> "$LOG/$name.log" 2>&1 &
  echo $! > "$RUN/$name.pid"
}

case "${1:-start}" in
  stop) stop; exit ;;
  start) ;;
  *) die "usage: engine.sh [start|stop]" ;;
esac
if answers; then echo "engine: docker $(docker version --format '{{.Server.Version}}') answers: nothing to do"; exit; fi
[ "$(id -u)" = 0 ] || die "docker does not answer: start it, or run this as root to have it installed"
command -v apt-get >/dev/null || die "docker does not answer, and this is no Debian: install Docker 23 or later"
mkdir -p "$RUN" "$LOG"
install_packages; step "packages are installed"
start; step "docker $(docker version --format '{{.Server.Version}}') answers"
