#!/usr/bin/env bash
# Raises minors of Kubernetes to their newest patch releases, or adds one: bump.sh [MINOR...], such as 1.38; without
# any, all that there are. A minor's go.mod and go.sum are made anew, from what k8s.io/kubernetes itself requires.
set -euo pipefail
cd "$(dirname "$0")/.."
KUBERNETES=$PWD/image/components/kubernetes
# The toolchain is one for all components; `make outdated` says when there is a newer one.
toolchain=$(sed -n 's/^toolchain //p' image/components/etcd/go.mod)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The go.mod of a version, before `go mod tidy`: main.go's own needs, and the staging modules at the same version.
write_module() {
  local version=$1 upstream staging
  upstream=$(go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
  staging=$(sed -n 's|^[[:space:]]*\(k8s\.io/[a-z-]*\) => \./staging.*|\1|p' "$upstream" | sort -u)
  echo "module p8s/kubernetes"
  grep -E '^(go|godebug) ' "$upstream"
  echo "replace ("
  for module in $staging; do echo "$module => $module v0${version#v1}"; done
  echo ")"
  echo "require k8s.io/kubernetes $version"
  echo "tool k8s.io/kubernetes/cmd/kubeadm"
}

bump() {
  local minor=$1 version before go
  version=$(go list -m -versions k8s.io/kubernetes | tr ' ' '\n' | grep -E "^v${minor//./\\.}\.[0-9]+$" | sort -V | tail -n 1) || true
  [ -n "$version" ] || { echo "bump: there is no release of Kubernetes $minor" >&2; exit 1; }
  before=$(sed -n 's/^\(require\)\?[[:space:]]*k8s\.io\/kubernetes \(v[^ ]*\).*/\2/p' "$KUBERNETES/$minor/go.mod" 2>/dev/null || true)
  rm -f "$work"/*
  cp "$KUBERNETES/main.go" image/components/settle.go "$work/"
  # What a minor has of its own in place of the files of all.
  find "$KUBERNETES/$minor" -name '*.go' -exec cp {} "$work/" \; 2>/dev/null || true
  write_module "$version" > "$work/go.mod"
  (cd "$work" && go mod tidy)
  go=$(sed -n 's/^go //p' "$work/go.mod")
  # A minor that needs a newer Go is built with the first of that line, until the others' toolchain is as new.
  if [ "$(printf '%s\n' "${toolchain#go}" "$go" | sort -V | tail -n 1)" != "$go" ]; then
    (cd "$work" && go mod edit "-toolchain=$toolchain")
  fi
  mkdir -p "$KUBERNETES/$minor"
  cp "$work/go.mod" "$work/go.sum" "$KUBERNETES/$minor/"
  echo "bump: Kubernetes $minor: ${before:-new} → $version"
}

[ $# -gt 0 ] || set -- $(cd "$KUBERNETES" && ls -d [0-9]*)
for minor in "$@"; do
  [[ $minor =~ ^1\.[0-9]+$ ]] || { echo "bump: $minor is no minor, such as 1.38" >&2; exit 2; }
  bump "$minor"
done
