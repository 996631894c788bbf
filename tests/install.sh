#!/usr/bin/env bash
# Installs the servers and tools that the lab and the tests run, from Debian's or Ubuntu's own packages; what stands
# for the clouds comes from PyPI into a folder of its own in the user's cache.
# Usage: tests/install.sh demo|test|bench     Repeating it does nothing.
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }

case "${1:-}" in
    demo) wanted=(gcc libc6-dev postgresql protobuf-compiler libprotobuf-dev etcd-server etcd-client) ;;
    test) wanted=(gcc libc6-dev postgresql protobuf-compiler libprotobuf-dev etcd-server etcd-client openssl faketime bind9 bind9-dnsutils knot pdns-server pdns-backend-sqlite3 sqlite3 unbound patch xz-utils python3-venv) ;;
    bench) wanted=(gcc libc6-dev postgresql protobuf-compiler libprotobuf-dev etcd-server etcd-client bind9 knot pdns-server pdns-backend-sqlite3 sqlite3 prometheus-blackbox-exporter pgbackrest) ;;
    *) say "usage: tests/install.sh demo|test|bench"; exit 2 ;;
esac

if ! command -v cargo >/dev/null; then
    say "error: cargo is not installed"
    say "  hint: install Rust 1.95 or newer from https://rustup.rs, then run this again"
    exit 1
fi

missing=()
for package in "${wanted[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
# A server that was installed some other way will do.
if ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then
    missing=("${missing[@]/#postgresql/}")
fi
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sed '/^$/d')

clouds() {
    local list folder
    list=$(dirname "$0")/clouds.txt
    folder=${XDG_CACHE_HOME:-$HOME/.cache}/lifeboat/clouds
    cmp -s "$list" "$folder/complete" && return
    say "installing what stands for the clouds into $folder"
    rm -rf "$folder"
    mkdir -p "$(dirname "$folder")"
    /usr/bin/python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: --no-deps -r "$list"
    cp "$list" "$folder/complete"
}

if [ "${#missing[@]}" -eq 0 ]; then
    [ "$1" = test ] && clouds
    exit 0
fi

if ! command -v apt-get >/dev/null; then
    say "error: these are needed and this is neither Debian nor Ubuntu: ${missing[*]}"
    exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { say "error: run this as root, or install: ${missing[*]}"; exit 1; }
    as_root=(sudo)
fi

# The packages' own services would take ports and memory; only the programs are wanted.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod +x "$policy"
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
fi
say "installing with ${as_root[*]:-root}: ${missing[*]}"
"${as_root[@]}" apt-get update -q >/dev/null
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" >/dev/null
[ "$1" = test ] && clouds
exit 0
