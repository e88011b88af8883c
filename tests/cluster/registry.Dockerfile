# Registries and a proxy for tests, of Debian's packages: what tests/cluster/registry.py runs.
ARG BASE_IMAGE=debian:trixie-slim
FROM ${BASE_IMAGE}
RUN --mount=type=cache,id=p8s-apt,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,id=p8s-apt-lists,target=/var/lib/apt/lists,sharing=locked \
    apt-get update -qq && apt-get install -y -qq --no-install-recommends docker-registry tinyproxy-bin
RUN printf 'version: 0.1\nlog: {accesslog: {disabled: false}}\nstorage: {filesystem: {rootdirectory: /srv}}\n' > /etc/registry.yml && \
    printf 'Port 8888\nTimeout 60\nLogLevel Connect\n' > /etc/tinyproxy.conf
