# The peer of `make bench-peers`: our image with kubeadm, from the same Go module and built in the same way
# (scripts/build-image.sh passes the arguments; the main Dockerfile says what each line is for).
ARG BASE_IMAGE=debian:trixie-slim
ARG P8S_IMAGE=p8s:latest

FROM ${BASE_IMAGE} AS kubeadm
ARG GOPROXY=
ARG GOSUMDB=
RUN --mount=type=cache,id=p8s-apt,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,id=p8s-apt-lists,target=/var/lib/apt/lists,sharing=locked \
    apt-get update -qq && apt-get install -y -qq --no-install-recommends golang-go ca-certificates
ENV CGO_ENABLED=0 GOTOOLCHAIN=auto GOFLAGS=-trimpath GOPROXY=$GOPROXY GOSUMDB=$GOSUMDB GOPATH=/go
WORKDIR /src
ARG KUBERNETES=1.37
COPY image/components/kubernetes/${KUBERNETES}/go.mod image/components/kubernetes/${KUBERNETES}/go.sum ./
RUN --mount=type=cache,id=p8s-gomod,target=/go/pkg/mod \
    --mount=type=cache,id=p8s-gobuild,target=/root/.cache/go-build \
    --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes) && package=k8s.io/component-base/version && \
    go build -o /out/kubeadm -ldflags "-s -w -X $package.gitVersion=$version -X $package.gitMajor=1 \
      -X $package.gitMinor=${KUBERNETES#*.}" k8s.io/kubernetes/cmd/kubeadm

# One image for the node and for all that runs in it: coredns' pod alone has no command of its own.
FROM ${P8S_IMAGE}
COPY --from=kubeadm /out/kubeadm /usr/local/bin/
COPY tests/bench/kubeadm_node.py /usr/local/lib/
ENTRYPOINT ["/usr/local/bin/coredns"]
