# syntax=docker/dockerfile:1

# One image for the gateway, the sandbox and the command line: `serve` is only the default.
FROM rust:1.95.0-slim-trixie AS build
# As in rust-toolchain.toml, without the linter and the formatter that it names.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --locked --profile dist --bin tollgate \
    && cp target/dist/tollgate /tollgate \
    && mkdir /data

# No shell and no package manager; the C library of the same Debian, and authorities' certificates.
FROM gcr.io/distroless/cc-debian13:nonroot
LABEL org.opencontainers.image.title="Tollgate" \
      org.opencontainers.image.description="A self-hosted gRPC gateway in front of Stripe" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /tollgate /usr/local/bin/tollgate
COPY --from=build --chown=65532:65532 /data /data
USER 65532:65532
ENV TOLLGATE_DATA=/data
VOLUME /data
EXPOSE 7400 7401 7402
# Plain gRPC on the loopback address; with TLS, TOLLGATE_ADDRESS and TOLLGATE_TLS_CA say how to ask.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["/usr/local/bin/tollgate", "health"]
ENTRYPOINT ["/usr/local/bin/tollgate"]
CMD ["serve"]
