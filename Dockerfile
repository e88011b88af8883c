# p8s: a complete Kubernetes in one container. Stages: go → one for each component → python, pause, os → facts → seed →
# node → latest, and full, which has every add-on.
# Everything but the base image comes from package registries: Go modules, Debian's packages, PyPI.
# `make image` passes the arguments and, behind a TLS-inspecting proxy, the host's CA bundle (secret `ca`).
ARG BASE_IMAGE=debian:trixie-slim
ARG KUBERNETES=1.37

# --- go: Debian's Go, which fetches the exact toolchain that a go.mod names, as a checked module.
FROM --platform=$BUILDPLATFORM ${BASE_IMAGE} AS go
# Empty: Go's own defaults.
ARG GOPROXY=
ARG GOSUMDB=
RUN --mount=type=cache,id=p8s-apt,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,id=p8s-apt-lists,target=/var/lib/apt/lists,sharing=locked \
    apt-get update -qq && apt-get install -y -qq --no-install-recommends golang-go ca-certificates
ENV CGO_ENABLED=0 GOTOOLCHAIN=auto GOFLAGS=-trimpath GOPROXY=$GOPROXY GOSUMDB=$GOSUMDB GOPATH=/go
ARG TARGETARCH
ENV GOARCH=$TARGETARCH
WORKDIR /src

# --- Kubernetes: one multi-call binary. A minor's directory may have a main.go of its own.
FROM go AS kubernetes
ARG KUBERNETES
COPY image/components/settle.go image/components/kubernetes/main.go image/components/kubernetes/${KUBERNETES}/ ./
RUN --mount=type=cache,id=p8s-gomod,target=/go/pkg/mod \
    --mount=type=cache,id=p8s-gobuild,target=/root/.cache/go-build \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes) && \
    minor=${version#v*.} && minor=${minor%%.*} && \
    set -- && for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do \
      set -- "$@" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$minor \
        -X $package.gitCommit=k8s.io/kubernetes@$version -X $package.gitTreeState=archive \
        -X $package.buildDate=$(go list -m -f '{{.Time.Format "2006-01-02T15:04:05Z07:00"}}' k8s.io/kubernetes); \
    done && \
    go build -ldflags "-s -w $*" -o /out/usr/local/bin/hyperkube . && \
    for name in kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do \
      ln -s hyperkube /out/usr/local/bin/$name; \
    done && \
    mkdir -p /out/versions && echo $version > /out/versions/kubernetes

# --- etcd, with etcdctl and etcdutl in the same binary.
FROM go AS etcd
COPY image/components/settle.go image/components/etcd/ ./
RUN --mount=type=cache,id=p8s-gomod,target=/go/pkg/mod \
    --mount=type=cache,id=p8s-gobuild,target=/root/.cache/go-build \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    go build -ldflags '-s -w' -o /out/usr/local/bin/etcd . && \
    ln -s etcd /out/usr/local/bin/etcdctl && ln -s etcd /out/usr/local/bin/etcdutl && \
    mkdir -p /out/versions && go list -m -f '{{.Version}}' go.etcd.io/etcd/server/v3 > /out/versions/etcd

# --- containerd, with ctr in the same binary. The shim, of which each pod has one, stays small: a binary of its own
# and, as in containerd's own Makefile, without gRPC.
FROM go AS containerd
COPY image/components/containerd/ ./
RUN --mount=type=cache,id=p8s-gomod,target=/go/pkg/mod \
    --mount=type=cache,id=p8s-gobuild,target=/root/.cache/go-build \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    version=$(go list -m -f '{{.Version}}' github.com/containerd/containerd/v2) && \
    flags="-s -w -X github.com/containerd/containerd/v2/version.Version=$version" && \
    tags=no_btrfs,no_devmapper,no_zfs,no_tracing,urfave_cli_no_docs && \
    go build -tags $tags -ldflags "$flags" -o /out/usr/local/bin/containerd . && \
    go build -tags $tags,no_grpc -ldflags "$flags" -o /out/usr/local/bin/ \
      github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2 && \
    ln -s containerd /out/usr/local/bin/ctr && \
    mkdir -p /out/versions && echo $version > /out/versions/containerd

# --- coredns.
FROM go AS coredns
COPY image/components/settle.go image/components/coredns/ ./
RUN --mount=type=cache,id=p8s-gomod,target=/go/pkg/mod \
    --mount=type=cache,id=p8s-gobuild,target=/root/.cache/go-build \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    go build -ldflags '-s -w' -o /out/usr/local/bin/coredns . && \
    mkdir -p /out/versions && go list -m -f '{{.Version}}' github.com/coredns/coredns > /out/versions/coredns

# --- CNI plugins: the `tool` lines of their go.mod.
FROM go AS cni
COPY image/components/cni/ ./
RUN --mount=type=cache,id=p8s-gomod,target=/go/pkg/mod \
    --mount=type=cache,id=p8s-gobuild,target=/root/.cache/go-build \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    mkdir -p /out/opt/cni/bin /out/versions && \
    version=$(go list -m -f '{{.Version}}' github.com/containernetworking/plugins) && \
    go build -ldflags "-s -w -X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=$version" \
      -o /out/opt/cni/bin/ tool && \
    echo $version > /out/versions/cni

# --- add-ons: a binary of each, which its pods find in the node's /usr. What is not in /out/usr/local/bin is manifests.
# Less than half of upstream's 43 MB: the sources are vendored to be cut; see the .sed files.
FROM go AS storage
COPY image/components/settle.go image/components/storage/ ./
RUN --mount=type=cache,id=p8s-gomod,target=/go/pkg/mod \
    --mount=type=cache,id=p8s-gobuild,target=/root/.cache/go-build \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    upstream=github.com/rancher/local-path-provisioner && go mod vendor && \
    sed -f cut.sed vendor/$upstream/provisioner.go > provisioner.go && \
    (cd vendor/k8s.io/client-go && sed -i -f /src/client-go.sed kubernetes/clientset.go kubernetes/scheme/register.go \
      informers/factory.go informers/generic.go tools/leaderelection/resourcelock/interface.go) && \
    go build -ldflags '-s -w' -o /out/usr/local/bin/local-path-provisioner . && \
    mkdir -p /out/versions && go list -m -f '{{.Version}}' $upstream > /out/versions/local-path-provisioner

FROM go AS metrics
COPY image/components/metrics/ ./
RUN --mount=type=cache,id=p8s-gomod,target=/go/pkg/mod \
    --mount=type=cache,id=p8s-gobuild,target=/root/.cache/go-build \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    version=$(go list -m -f '{{.Version}}' sigs.k8s.io/metrics-server) && \
    go build -ldflags "-s -w -X k8s.io/client-go/pkg/version.gitVersion=$version" \
      -o /out/usr/local/bin/metrics-server sigs.k8s.io/metrics-server/cmd/metrics-server && \
    mkdir -p /out/versions && echo $version > /out/versions/metrics-server

FROM go AS ingress
COPY image/components/ingress/ ./
RUN --mount=type=cache,id=p8s-gomod,target=/go/pkg/mod \
    --mount=type=cache,id=p8s-gobuild,target=/root/.cache/go-build \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    version=$(go list -m -f '{{.Version}}' github.com/traefik/traefik/v3) && \
    own=github.com/traefik/traefik/v3/pkg/version && \
    date=$(go list -m -f '{{.Time.Format "2006-01-02T15:04:05Z07:00"}}' github.com/traefik/traefik/v3) && \
    go build -ldflags "-s -w -X $own.Version=${version#v} -X $own.BuildDate=$date" \
      -o /out/usr/local/bin/traefik github.com/traefik/traefik/v3/cmd/traefik && \
    crds=$(go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)/config/crd/standard && \
    mkdir -p /out/usr/share/p8s/add-ons/ingress /out/versions && \
    for crd in $crds/*.yaml; do echo ---; cat $crd; done > /out/usr/share/p8s/add-ons/ingress/10-crds.yaml && \
    echo $version > /out/versions/traefik

FROM go AS registry
COPY image/components/settle.go image/components/registry/ ./
RUN --mount=type=cache,id=p8s-gomod,target=/go/pkg/mod \
    --mount=type=cache,id=p8s-gobuild,target=/root/.cache/go-build \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    go build -ldflags '-s -w' -o /out/usr/local/bin/registry . && \
    mkdir -p /out/versions && go list -m -f '{{.Version}}' github.com/distribution/distribution/v3 \
      > /out/versions/registry

# --- python: PyPI's packages by their hashes, compiled; pip goes no further.
FROM ${BASE_IMAGE} AS python
RUN --mount=type=cache,id=p8s-apt,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,id=p8s-apt-lists,target=/var/lib/apt/lists,sharing=locked \
    apt-get update -qq && apt-get install -y -qq --no-install-recommends ca-certificates python3 python3-pip
# Empty: pip's own default.
ARG PIP_INDEX_URL=
COPY image/requirements.txt /src/
RUN --mount=type=cache,id=p8s-pip,target=/root/.cache/pip \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    packages=/out/usr/local/lib/python3.13/dist-packages && \
    if [ -z "$PIP_INDEX_URL" ]; then unset PIP_INDEX_URL; fi && \
    pip install -q --disable-pip-version-check --root-user-action=ignore --no-compile --only-binary :all: \
      --cert /etc/ssl/certs/ca-certificates.crt --require-hashes --target $packages -r /src/requirements.txt && \
    rm -rf $packages/bin $packages/supervisor/tests && find $packages -name '*.pyi' -delete && \
    python3 -m compileall -q -s /out -p / $packages

# --- pause: the process that holds a pod's namespaces. musl makes it 13 KB; glibc, 650.
FROM ${BASE_IMAGE} AS pause
RUN --mount=type=cache,id=p8s-apt,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,id=p8s-apt-lists,target=/var/lib/apt/lists,sharing=locked \
    apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils musl-tools
COPY image/pause/ /src/
RUN musl-gcc -Os -Wall -Werror -static -s -o /pause /src/pause.c

# --- os: Debian's part of the node. What a node never reads goes; licences stay.
FROM ${BASE_IMAGE} AS os
RUN --mount=type=cache,id=p8s-apt,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,id=p8s-apt-lists,target=/var/lib/apt/lists,sharing=locked \
    apt-get update -qq && apt-get install -y -qq --no-install-recommends \
      ca-certificates conntrack crun iproute2 iptables kmod mount nftables python3 && \
    rm -rf /usr/share/man/* /usr/share/info/* /usr/share/locale/* /usr/share/lintian /usr/share/bug \
      /usr/share/bash-completion /usr/share/zsh /usr/share/pixmaps /var/log/* /var/cache/debconf/*-old \
      /usr/lib/*-linux-gnu*/gconv /usr/lib/python3*/ensurepip /usr/lib/python3*/pydoc_data && \
    find /usr/share/doc -type f ! -name copyright -delete && find /usr/share/doc -type d -empty -delete && \
    python3 -m compileall -q /usr/lib/python3.13

# --- facts: what the node is made of, and its two own images.
FROM os AS facts
ARG TARGETARCH
COPY image/oci/ /src/
RUN --mount=type=bind,from=kubernetes,source=/out/versions,target=/versions/kubernetes \
    --mount=type=bind,from=etcd,source=/out/versions,target=/versions/etcd \
    --mount=type=bind,from=containerd,source=/out/versions,target=/versions/containerd \
    --mount=type=bind,from=coredns,source=/out/versions,target=/versions/coredns \
    --mount=type=bind,from=cni,source=/out/versions,target=/versions/cni \
    --mount=type=bind,from=storage,source=/out/versions,target=/versions/storage \
    mkdir /versions/os && dpkg-query -W -f '${source:Upstream-Version}\n' crun > /versions/os/crun && \
    python3 /src/write_versions.py /facts/versions.json /versions/*
RUN --mount=type=bind,from=pause,source=/pause,target=/pause \
    mkdir /facts/images && python3 /src/make_images.py /pause "$TARGETARCH" /facts/images/node.tar

# --- seed: what a new cluster's etcd begins with, made by the real components. The modules are those that it imports:
# an edit of others makes no new seed.
FROM os AS seed
COPY --from=kubernetes /out/usr /usr
COPY --from=etcd /out/usr /usr
COPY --from=python /out/usr /usr
COPY --from=facts /facts /usr/share/p8s
WORKDIR /usr/local/lib/python3.13/dist-packages/p8s_supervisor
COPY p8s_supervisor/manifests/static-pods/ manifests/static-pods/
COPY p8s_supervisor/manifests/system/ manifests/system/
COPY p8s_supervisor/__init__.py p8s_supervisor/audit.py p8s_supervisor/commands.py p8s_supervisor/component_files.py \
     p8s_supervisor/components.py p8s_supervisor/credentials.py \
     p8s_supervisor/dns.py p8s_supervisor/errors.py p8s_supervisor/etcd.py p8s_supervisor/files.py \
     p8s_supervisor/kube.py p8s_supervisor/kubeconfig.py p8s_supervisor/make_seed.py p8s_supervisor/manifests.py \
     p8s_supervisor/node.py p8s_supervisor/origins.py p8s_supervisor/overrides.py p8s_supervisor/parsers.py p8s_supervisor/paths.py p8s_supervisor/pki.py \
     p8s_supervisor/probes.py p8s_supervisor/processes.py p8s_supervisor/reserved.py p8s_supervisor/seed.py p8s_supervisor/settings.py p8s_supervisor/sources.py \
     p8s_supervisor/wait.py ./
RUN python3 -P -s -m p8s_supervisor.make_seed /seed.json

# --- node: what runs. One layer of Debian, so that what was removed is in none; one of each component.
FROM scratch AS node
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 LANG=C.UTF-8
# For `docker exec NODE kubectl`; components are given their own.
ENV KUBECONFIG=/etc/kubernetes/admin.conf
COPY --from=os / /
COPY --from=kubernetes /out/usr /usr
COPY --from=etcd /out/usr /usr
COPY --from=containerd /out/usr /usr
COPY --from=coredns /out/usr /usr
COPY --from=cni /out/opt /opt
COPY --from=storage /out/usr /usr
COPY --from=python /out/usr /usr
COPY --from=facts /facts /usr/share/p8s
COPY --from=seed /seed.json /usr/share/p8s/
# State: etcd, images and snapshots, kubelet's pods, the CAs. overlayfs cannot lie on the container's own overlayfs.
VOLUME /var/lib/p8s
EXPOSE 8989 6443
STOPSIGNAL SIGTERM
# No start period: while it lasts, newer engines look only every 5 s. The check itself waits for a start's end.
HEALTHCHECK --interval=2s --timeout=60s --retries=6 CMD ["/usr/local/bin/p8s-healthcheck"]
ENTRYPOINT ["/usr/local/bin/p8s-init"]
COPY image/rootfs/ /
# Compiled where it lies: an edit costs the seconds of this step.
RUN --mount=type=bind,source=p8s_supervisor,target=/src \
    cp -r /src /usr/local/lib/python3.13/dist-packages/p8s_supervisor && \
    python3 -m compileall -q /usr/local/lib/python3.13/dist-packages/p8s_supervisor
# Last: they change with each commit, and make no layer.
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=
LABEL org.opencontainers.image.title=p8s \
      org.opencontainers.image.description="A complete, real Kubernetes in one privileged container" \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.created=$CREATED

# --- full: with every add-on.
FROM facts AS full-facts
RUN --mount=type=bind,from=metrics,source=/out/versions,target=/versions/metrics \
    --mount=type=bind,from=ingress,source=/out/versions,target=/versions/ingress \
    --mount=type=bind,from=registry,source=/out/versions,target=/versions/registry \
    python3 /src/write_versions.py /facts/versions.json /versions/metrics /versions/ingress /versions/registry

FROM node AS full
COPY --from=metrics /out/usr /usr
COPY --from=ingress /out/usr /usr
COPY --from=registry /out/usr /usr
COPY --from=full-facts /facts/versions.json /usr/share/p8s/

# --- latest: what is built unless another target is asked for.
FROM node AS latest
