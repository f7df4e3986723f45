# The application: Spin with the two components and spin.toml. `docker build .` builds it.
#
# The components are in the image, so a pod needs no registry of Wasm components and no volume. The
# sidecar has an image of its own: sidecar/Dockerfile.

# The version of rust-toolchain.toml; a test compares them.
ARG RUST_VERSION=1.95.0
# The oldest release that runs the components. deploy/check.py compares the files that name it.
ARG SPIN_VERSION=v4.1.0

# Wasm is the same for every platform, so the builder's own compiles it.
FROM --platform=$BUILDPLATFORM rust:${RUST_VERSION}-bookworm AS build
# The image's own toolchain. With rust-toolchain.toml, rustup would also fetch the lints.
ARG RUST_VERSION
ENV RUSTUP_TOOLCHAIN=${RUST_VERSION}
RUN rustup target add wasm32-wasip2
WORKDIR /repository
COPY . .
# The caches make a second build short. They are no part of the image, hence the copies. The sidecar
# is built at the same time, and has a cache of its own so that neither waits for the other.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,id=task-api,target=/repository/target \
    cargo build --locked --profile guest --target wasm32-wasip2 -p task-api \
    && cargo build --locked --profile guest --target wasm32-wasip2 -p api-docs \
    && install -D --mode=644 --target-directory=/app/target/wasm32-wasip2/guest \
        target/wasm32-wasip2/guest/task_api.wasm target/wasm32-wasip2/guest/api_docs.wasm \
    && install -D --mode=644 --target-directory=/app spin.toml deploy/spin/runtime-config.toml

# What a release attaches for hosts without containers: docker build --target files --output DIR .
FROM scratch AS files
COPY --from=build /app /

FROM ghcr.io/spinframework/spin:${SPIN_VERSION}
COPY --from=build /app /app
# Spin writes below /tmp alone. All else may be read-only.
ENV HOME=/tmp
ENV DISABLE_WASMTIME_CACHE=true
ENV RUNTIME_CONFIG_FILE=/app/runtime-config.toml
ENV SPIN_HTTP_LISTEN_ADDR=0.0.0.0:3000
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
EXPOSE 3000
# This image has no curl, but bash, which speaks TCP. Spin compiles the components at its start.
HEALTHCHECK --start-period=60s --interval=2s --timeout=5s --retries=30 CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/3000 && printf 'GET /readyz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && head --lines=1 <&3 | grep --quiet ' 200 '"]
# The entry point is `spin`.
CMD ["up", "--from", "/app/spin.toml"]
