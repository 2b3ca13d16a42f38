# syntax=docker/dockerfile:1

# One image for the gateway, the sandbox and the command line: `serve` is only the default.
FROM rust:1.95-slim-trixie AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist --bin tollgate \
    && cp target/dist/tollgate /tollgate \
    && mkdir /data

# No shell and no package manager; runs as user 65532.
FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=build /tollgate /usr/local/bin/tollgate
COPY --from=build --chown=65532:65532 /data /data
ENV TOLLGATE_DATA=/data
VOLUME /data
EXPOSE 7400 7401 7402
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["/usr/local/bin/tollgate", "health"]
ENTRYPOINT ["/usr/local/bin/tollgate"]
CMD ["serve"]
