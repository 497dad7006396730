# Two stages: the first has the compiler, the second only the program. Nothing
# here needs BuildKit, so that an old engine with the classic builder gives the
# same image.

FROM rust:1.95-bookworm AS build
WORKDIR /build

# The dependencies get a layer of their own, which stays valid until the
# manifest or the lock file changes: they are compiled for an empty crate with
# our manifest. That crate's own output is then cleaned away. Otherwise cargo,
# which compares modification times, could take the empty crate's program for a
# fresh build of the real one, because COPY keeps the older times of the sources.
COPY Cargo.toml Cargo.lock ./
COPY .cargo/config.toml .cargo/
COPY tests/faulty_disk/Cargo.toml tests/faulty_disk/
RUN mkdir src bench tests/faults tests/faulty_disk/src \
    && touch tests/faulty_disk/src/lib.rs tests/faults/main.rs \
    && echo '#![allow(missing_docs)] fn main() {}' > bench/sqlite_ceiling.rs \
    && echo '#![allow(missing_docs)]' > src/lib.rs \
    && echo '#![allow(missing_docs)] fn main() {}' > src/main.rs \
    && cargo build --release --locked \
    && cargo clean --release --package sorteo \
    && rm -r src bench tests

# What else the build reads: .dockerignore lists it.
COPY . .
RUN cargo build --release --locked


# The same Debian as above, since the program is linked against its C library.
FROM debian:bookworm-slim

# A fixed uid, so that the owner of a volume's files is known beforehand and
# stays the same from one image to the next. /data is made here, because a new
# named volume takes its owner from the directory it is mounted on.
RUN groupadd --gid 10001 sorteo \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data \
        --shell /usr/sbin/nologin sorteo \
    && install --directory --owner=sorteo --group=sorteo --mode=0750 /data

COPY --from=build /build/target/release/sorteo /usr/local/bin/sorteo

# All addresses: inside a container, loopback can't be reached from outside.
# To serve another port, publish this one elsewhere: the health check asks here.
ENV SORTEO_LISTEN=0.0.0.0:12345 \
    SORTEO_DATABASE=/data/sorteo.db
EXPOSE 12345

# After the directory got its owner: what a later layer changes below a declared
# volume is lost. Everything the server must not lose is in it.
VOLUME /data
WORKDIR /data

# By number, so that a platform that demands a user other than root can check it
# without reading /etc/passwd.
USER 10001:10001

# The server drains on SIGTERM. Give it more than its drain limit of 8 seconds
# (`docker stop --time 15`), since the engine's default of 10 leaves it little.
STOPSIGNAL SIGTERM

# The program asks itself: it speaks the protocol, so an answer means that a
# client would get one too, and the image needs neither curl nor a shell.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/sorteo", "status", "--server", "127.0.0.1:12345"]

# The exec form makes the program process 1, so that it gets the signals itself.
ENTRYPOINT ["/usr/local/bin/sorteo"]
CMD ["serve"]

# Last, because the revision is another one at each build.
ARG REVISION=unknown
LABEL org.opencontainers.image.title="sorteo" \
      org.opencontainers.image.description="The central server of a lottery, and its agencies' client" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim" \
      org.opencontainers.image.revision="${REVISION}"
