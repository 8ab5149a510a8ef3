# Builds the gateway, and keeps the program alone: docker build -t sigver .
FROM rust:1-bookworm AS build
WORKDIR /build
COPY . .
RUN cargo build --release --locked --features bridge --bin sigver

FROM debian:bookworm-slim
# The authorities that a program behind `--auth callout:https:…` and a Redis behind TLS are checked with.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /build/target/release/sigver /usr/local/bin/sigver
# Called by this name, it reads the flags of signallerd.
RUN ln -s sigver /usr/local/bin/signallerd
USER 65534:65534
EXPOSE 8000
STOPSIGNAL SIGTERM
# The port is that of SIGVER_PORT, or 8000.
HEALTHCHECK --interval=30s --timeout=6s --start-period=5s CMD ["sigver", "healthcheck"]
CMD ["sigver"]
