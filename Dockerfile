# The Task API for a cluster with Dapr: docker build -t task-api:latest .
#
# Nothing but the Dapr backend is in it: no client of Redis, Kafka or another store, and no shell.

FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
# The caches are the builder's own, so the program is copied to where the next stage finds it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --release --locked --package task-server --no-default-features --features dapr \
    && cp target/release/task-server /task-server

# Has certificates and no shell; its user is 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /task-server /task-server
USER 65532:65532
EXPOSE 8000
ENTRYPOINT ["/task-server"]
# Every address: the kubelet's probes come from outside of the pod.
CMD ["serve", "--backend", "dapr", "--listen", "0.0.0.0:8000"]
