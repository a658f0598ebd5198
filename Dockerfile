# The images of MCP Mesh. `make images` builds those of the operator and the proxy on a machine without a registry;
# docs/install.md has the commands for one with docker and a registry. Each of the two is one static program, from
# scratch, not root; the proxy's has the public roots besides. A platform is built natively or under emulation: nothing
# here names one.
#   docker buildx build --platform linux/amd64,linux/arm64 --target proxy -t REGISTRY/mcpmesh-proxy:TAG --push .
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# jemalloc is built for pages of one size: on arm64 a kernel may have larger ones than the kernel here.
# --target keeps the flags away from build scripts and macros, which cannot be static.
RUN host="$(rustc -vV | sed -n 's/^host: //p')" && \
    case "$host" in aarch64*) export JEMALLOC_SYS_WITH_LG_PAGE=16 ;; esac && \
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target "$host" \
      -p mcpmesh-proxy -p mcpmesh-operator && \
    mkdir /out && cp "target/$host/release/mcpmesh-proxy" "target/$host/release/mcpmesh-operator" /out/

FROM scratch AS proxy
COPY --from=build /out/mcpmesh-proxy /mcpmesh-proxy
# Without roots no server behind an https URL would be trusted.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
ENTRYPOINT ["/mcpmesh-proxy"]

FROM scratch AS operator
COPY --from=build /out/mcpmesh-operator /mcpmesh-operator
USER 65532:65532
ENTRYPOINT ["/mcpmesh-operator"]

# What npm packages run in: the chart's default, as a user of its own. Add what your packages need besides.
FROM docker.io/library/node:24-slim AS npm-runner
ENV HOME=/tmp npm_config_update_notifier=false
USER 65532:65532
ENTRYPOINT ["npx"]

# What PyPI packages run in, in the same way.
FROM ghcr.io/astral-sh/uv:python3.13-bookworm-slim AS pypi-runner
ENV HOME=/tmp UV_CACHE_DIR=/tmp/uv UV_PYTHON_DOWNLOADS=never
USER 65532:65532
ENTRYPOINT ["uvx"]
