#!/usr/bin/env bash
#
# Provides the base images that the Dockerfile names.
#
#   base-images.sh                pull or make the missing ones
#   base-images.sh --build-args   print the arguments of `docker build` for stand-ins
#   base-images.sh --remove       remove the ones that this script made
#
# An image that is present stays as it is, and one that can be pulled is pulled.
# Only where no registry answers, stand-ins are made on this machine, under the
# names that the Dockerfile uses, without their digests, which a stand-in cannot have:
#
#   debian:SUITE-DATE-slim   debootstrap's minimal system of that suite
#   rust:VERSION-SUITE       the same with gcc, and this machine's own Rust toolchain
#
# The stand-ins have a label, so that they are not mistaken for the public images
# and --remove finds them. They also trust the certificates that this machine
# trusts, so that cargo reaches crates.io through a proxy of the machine. Making
# them needs root, debootstrap, a Debian mirror and, for rust, a toolchain of the
# wanted version.

set -euo pipefail

readonly label=sorteo.stand-in
readonly mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
readonly certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
dockerfile=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)/Dockerfile
readonly dockerfile

say() { printf 'base-images: %s\n' "$*"; }
die() {
    say "$*" >&2
    exit 1
}

present() { docker image inspect "$1" >/dev/null 2>&1; }

# The time limit is for a registry that accepts the connection and never answers.
pull() { timeout 600 docker pull --quiet "$1" >/dev/null 2>&1; }

# Prints the base images, each with the argument that names it: RUST_IMAGE=rust:…@sha256:…
base_images() { sed -n 's/^ARG \([A-Z]*_IMAGE=\)/\1/p' "$dockerfile"; }

# Prints an argument of `docker build` for each image that is here only as a stand-in.
build_args() {
    local line image
    base_images | while IFS== read -r line image; do
        present "$image" || printf -- '--build-arg=%s=%s\n' "$line" "${image%@*}"
    done
}

# make_debian IMAGE, for debian:SUITE-slim and debian:SUITE-DATE-slim
make_debian() {
    local image=$1 tag=${1#*:} root=$work/root
    local suite=${tag%%-*}

    ((EUID == 0)) || die "$image can't be pulled, and making it needs root"
    command -v debootstrap >/dev/null || die "$image can't be pulled, and debootstrap is not installed"

    say "$image: making it with debootstrap from $mirror"
    debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$work/debootstrap.log" 2>&1 || {
        tail -n 20 "$work/debootstrap.log" >&2
        die "debootstrap of $suite failed"
    }
    # The package cache and lists are half of the image and of no use in it.
    rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
    tar --create --directory "$root" --one-file-system . |
        docker import --change "LABEL $label=true" --change 'CMD ["bash"]' - "$image" >/dev/null
    rm -rf "$root"
}

# make_rust IMAGE, for rust:VERSION-SUITE
make_rust() {
    local image=$1 tag=${1#*:} toolchain triple installed debian
    local version=${tag%%-*} context=$work/rust

    command -v rustc >/dev/null || die "$image can't be pulled, and there is no Rust toolchain here"
    installed=$(rustc --version | awk '{ print $2 }')
    case $installed. in
    "$version".*) ;;
    *) die "$image can't be pulled, and the toolchain here is $installed" ;;
    esac
    debian=$(base_images | sed -n 's/^DEBIAN_IMAGE=//p')
    ensure "$debian"
    present "$debian" || debian=${debian%@*}

    say "$image: making it from $debian and the toolchain $installed"
    toolchain=$(rustc --print sysroot)
    triple=$(rustc --version --verbose | awk '$1 == "host:" { print $2 }')
    mkdir -p "$context/toolchain/bin" "$context/toolchain/lib/rustlib"
    # Hard links where they work: half a gigabyte need not be copied twice.
    copy() { cp --archive --link "$@" 2>/dev/null || cp --archive "$@"; }
    copy "$toolchain"/bin/{cargo,rustc} "$context/toolchain/bin/"
    copy "$toolchain"/lib/*.so* "$context/toolchain/lib/"
    copy "$toolchain/lib/rustlib/$triple" "$context/toolchain/lib/rustlib/"
    cp "$certificates" "$context/certificates.crt"

    # The public image has its toolchain below /usr/local too. The packages are those
    # that building crates with C code needs.
    cat >"$context/Dockerfile" <<END
FROM $debian
RUN apt-get update \\
    && apt-get install --yes --no-install-recommends \\
        ca-certificates gcc libc6-dev make pkg-config \\
    && rm -rf /var/lib/apt/lists/*
COPY certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY toolchain /usr/local
ENV CARGO_HOME=/usr/local/cargo
LABEL $label=true
END
    docker build --quiet --tag "$image" "$context" >"$work/build.log" 2>&1 || {
        tail -n 20 "$work/build.log" >&2
        die "the build of $image failed"
    }
    rm -rf "$context"
}

ensure() {
    local image=$1
    if present "$image"; then
        say "$image: present"
        return
    fi
    if pull "$image"; then
        say "$image: pulled"
        return
    fi
    image=${image%@*}
    if present "$image"; then
        say "$image: present, as a stand-in"
        return
    fi
    case $image in
    debian:*-slim) make_debian "$image" ;;
    rust:*-*) make_rust "$image" ;;
    *) die "$image can't be pulled, and this script cannot make it" ;;
    esac
}

remove() {
    local image
    docker image ls --filter "label=$label=true" --format '{{.Repository}}:{{.Tag}}' |
        while read -r image; do
            # An image built on a stand-in inherits its label, but not its name.
            case $image in
            debian:* | rust:*)
                docker image rm "$image" >/dev/null
                say "$image: removed"
                ;;
            esac
        done
}

case ${1-} in
--remove) remove ;;
--build-args) build_args ;;
'')
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    # Read into a list first: the commands in the loop must not read its input.
    mapfile -t images < <(base_images | cut --delimiter== --fields=2-)
    for image in "${images[@]}"; do
        ensure "$image"
    done
    ;;
*) die "usage: ${0##*/} [--remove]" ;;
esac
