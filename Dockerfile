# Two stages: the first has the compiler, the second only the program. Nothing
# here needs BuildKit, so old engines with the classic builder make the same image.

# The base images, by their digests: the same commit gives the same image. To update one,
# look up its digest (docker buildx imagetools inspect debian:bookworm-slim) and change tag
# and digest together; another registry or image is a --build-arg.
ARG RUST_IMAGE=rust:1.95.0-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1
ARG DEBIAN_IMAGE=debian:bookworm-20260824-slim@sha256:88200866dfff7ea7f5cbcb6ec7c8a701889efe6fe859fe64d6990e4b07ea4171

FROM ${RUST_IMAGE} AS build
WORKDIR /build

# The dependencies are built in a layer of their own, which is reused until the
# manifests or the lock file change: empty crates with our manifests are compiled.
# The output of these crates is then removed. Otherwise cargo, which compares
# modification times, could mistake the empty program for a fresh build of the real
# one, because COPY keeps the older times of the sources.
COPY Cargo.toml Cargo.lock ./
COPY .cargo/config.toml .cargo/
COPY crates/protocol/Cargo.toml crates/protocol/
COPY crates/agency/Cargo.toml crates/agency/
COPY tests/faulty_disk/Cargo.toml tests/faulty_disk/
COPY tests/support/Cargo.toml tests/support/
RUN mkdir src bench tests/faults crates/protocol/src crates/agency/src tests/faulty_disk/src tests/support/src \
    && touch tests/faults/main.rs tests/faulty_disk/src/lib.rs tests/support/src/lib.rs \
    && for crate in protocol agency; do echo '#![allow(missing_docs)]' > crates/$crate/src/lib.rs; done \
    && echo '#![allow(missing_docs)] fn main() {}' > bench/sqlite_ceiling.rs \
    && echo '#![allow(missing_docs)]' > src/lib.rs \
    && echo '#![allow(missing_docs)] fn main() {}' > src/main.rs \
    && cargo build --release --locked --package sorteo \
    && cargo clean --release --package sorteo --package sorteo-protocol --package sorteo-agency \
    && rm -r src bench crates tests

# The rest of the build context, which .dockerignore lists.
COPY . .
RUN cargo build --release --locked --package sorteo


# The same Debian as above, since the program is linked against its C library.
FROM ${DEBIAN_IMAGE}

# A fixed uid, so that the owner of a volume's files is known in advance and stays
# the same in every image. /data is created here, because a new named volume takes
# its owner from the directory that it is mounted on; /tokens is for one with tokens.
RUN groupadd --gid 10001 sorteo \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data \
        --shell /usr/sbin/nologin sorteo \
    && install --directory --owner=sorteo --group=sorteo --mode=0750 /data /tokens

COPY --from=build /build/target/release/sorteo /usr/local/bin/sorteo

# SERVER_PORT means all addresses: inside a container, loopback cannot be reached from
# outside. `-e SERVER_PORT=4000` is another port, and `-e SORTEO_LISTEN=…`, which it does
# not override, other addresses. The health check follows both, but no --listen.
ENV SERVER_PORT=12345 \
    SORTEO_DATABASE=/data/sorteo.db
EXPOSE 12345

# Everything that the server must not lose is in this volume. It is declared after
# the directory has its owner, because changes that later layers make in a declared
# volume are lost.
VOLUME /data
WORKDIR /data

# By number, so that a platform that requires a user other than root can verify it
# without reading /etc/passwd.
USER 10001:10001

# On SIGTERM the server finishes requests in progress for up to 8 seconds
# (drain_timeout). Allow more time than that (`docker stop --time 15`): the engine's
# default of 10 seconds leaves little margin.
STOPSIGNAL SIGTERM

# The health check uses the program's own client, so it tests the protocol that
# agencies use, and the image needs neither curl nor a shell. The client finds the
# server by the server's variables. Where it requires TLS or tokens, the check needs them
# too: docker-compose.secured.yaml has one.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/sorteo", "status"]

# The exec form makes the program process 1, so that it receives the signals.
ENTRYPOINT ["/usr/local/bin/sorteo"]
CMD ["serve"]

# Last, because the revision changes with each build.
ARG REVISION=unknown
LABEL org.opencontainers.image.title="sorteo" \
      org.opencontainers.image.description="The central server of a lottery, and its agencies' client" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-20260824-slim" \
      org.opencontainers.image.revision="${REVISION}"
