# The two images of MCP Mesh: one static program each, from scratch, not root. Build each platform on a machine (or an
# emulator) of its own: docs/install.md has the commands.
#   docker buildx build --platform linux/amd64,linux/arm64 --target proxy    -t REGISTRY/mcpmesh-proxy:TAG --push .
#   docker buildx build --platform linux/amd64,linux/arm64 --target operator -t REGISTRY/mcpmesh-operator:TAG --push .
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# --target keeps the flags away from build scripts and macros, which cannot be static.
RUN host="$(rustc -vV | sed -n 's/^host: //p')" && \
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target "$host" \
      -p mcpmesh-proxy -p mcpmesh-operator && \
    mkdir /out && cp "target/$host/release/mcpmesh-proxy" "target/$host/release/mcpmesh-operator" /out/

FROM scratch AS proxy
COPY --from=build /out/mcpmesh-proxy /mcpmesh-proxy
USER 65532:65532
ENTRYPOINT ["/mcpmesh-proxy"]

FROM scratch AS operator
COPY --from=build /out/mcpmesh-operator /mcpmesh-operator
USER 65532:65532
ENTRYPOINT ["/mcpmesh-operator"]
