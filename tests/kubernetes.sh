#!/usr/bin/env bash
# Builds the Kubernetes API server that the tests run, from Debian 12's own source package, with Debian's Go.
# Nothing is installed on the machine: what is unpacked and built lives in a scratch folder, the program in a cache.
# Usage: tests/kubernetes.sh     Prints the program's path. Repeating it does nothing. First time: see DURATION below.
set -euo pipefail

# DURATION: 4 min 34 s on two cores (4 minutes of processor time), 140 MB from the mirror, some GB of scratch space.
version=1.20.2
program=${XDG_CACHE_HOME:-$HOME/.cache}/lifeboat/kube-apiserver-$version
if [ -x "$program" ]; then
    printf '%s\n' "$program"
    exit 0
fi

say() { printf '%s\n' "$*" >&2; }
for tool in apt-get dpkg tar patch flock xz; do
    command -v "$tool" >/dev/null || { say "error: $tool is not installed"; say "  hint: tests/install.sh test"; exit 1; }
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$keyring" ] || { say "error: Debian's keyring is missing"; say "  hint: apt-get install debian-archive-keyring"; exit 1; }

mkdir -p "$(dirname "$program")"
# Two test runs at once build it once.
exec 9>"$program.lock"
flock 9
if [ -x "$program" ]; then
    printf '%s\n' "$program"
    exit 0
fi
say "building kube-apiserver $version from Debian's source package, once: this takes some minutes"
scratch=$(mktemp -d "${TMPDIR:-/tmp}/lifeboat-kube.XXXXXX")
trap 'chmod -R u+w "$scratch"; rm -rf "$scratch"' EXIT
cd "$scratch"

# An index of its own: the machine's list of sources stays as it is, its mirror and its proxy are used.
mirror=$(apt-get indextargets --format '$(SITE)|$(RELEASE)' 'Created-By: Packages' 2>/dev/null | sed -n 's/|bookworm$//p' | grep -v security | head -n 1 || true)
mirror=${mirror:-http://deb.debian.org/debian}
mkdir -p lists/partial archives/partial got
for kind in deb deb-src; do
    printf '%s [signed-by=%s] %s bookworm main\n' "$kind" "$keyring" "$mirror"
done >sources.list
apt() {
    apt-get -q -o "Dir::State::Lists=$scratch/lists" -o "Dir::Cache=$scratch" -o Dir::Cache::archives=archives \
        -o "Dir::Etc::SourceList=$scratch/sources.list" -o Dir::Etc::SourceParts=/dev/null -o APT::Sandbox::User=root "$@" >&2
}
apt update
(cd got && apt download golang-1.19-go golang-1.19-src && apt source --download-only kubernetes)

for package in got/*.deb; do dpkg -x "$package" .; done
tree=$scratch/gopath/src/k8s.io/kubernetes
mkdir -p "$tree" debian
tar -xf got/kubernetes_*.orig.tar.* -C "$tree" --strip-components=1
tar -xf got/kubernetes_*.debian.tar.* -C debian --strip-components=1
while read -r change; do
    patch -s -d "$tree" -p1 <"debian/patches/$change"
done <debian/patches/series

export GOROOT=$scratch/usr/lib/go-1.19 GOPATH=$scratch/gopath GOCACHE=$scratch/gocache GOTMPDIR=$scratch
export GO111MODULE=off GOFLAGS= GOPROXY=off CGO_ENABLED=0 PATH=$scratch/usr/lib/go-1.19/bin:$PATH
cd "$tree"

# What the server says of its own types is generated, and not part of the package.
go build -o "$scratch/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
mapfile -t tagged < <(
    { grep -rl --include='*.go' '+k8s:openapi-gen=' pkg cmd plugin || true
      (cd staging/src && grep -rl --include='*.go' '+k8s:openapi-gen=' k8s.io) | sed 's,^,vendor/,'
    } | xargs -n 1 dirname | sort -u | grep -v -e /code-generator -e /sample-apiserver)
inputs=$(printf 'k8s.io/kubernetes/%s,' "${tagged[@]}")
"$scratch/openapi-gen" -i "${inputs%,}" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -h hack/boilerplate/boilerplate.generatego.txt -r "$scratch/violations"

go build -o "$scratch/kube-apiserver" -ldflags '-s -w' ./cmd/kube-apiserver
mv "$scratch/kube-apiserver" "$program"
say "built: $program"
printf '%s\n' "$program"
