#!/usr/bin/env bash
# Installs the Debian packages of daemon/packages.txt that are missing; touches nothing when none
# is. Needs root, or sudo, only when something is missing. Asks no questions and reads no input.
#
#   bash daemon/install_packages.sh           install what is missing
#   bash daemon/install_packages.sh --check   only say what is missing; exit 1 if anything is
set -euo pipefail

list="$(dirname "${BASH_SOURCE[0]}")/packages.txt"

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "install_packages: this is not a Debian system: install the equivalents of $list" \
        "by hand" >&2
    exit 2
fi

missing=()
while read -r package; do
    # Debian renames and virtual packages do not occur in the list, so the exact name decides.
    status="$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)"
    [[ "$status" == installed ]] || missing+=("$package")
done < <(sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$list")

if [[ ${#missing[@]} -eq 0 ]]; then
    echo "install_packages: all packages are there"
    exit 0
fi
echo "install_packages: missing: ${missing[*]}"
if [[ "${1:-}" == --check ]]; then
    exit 1
fi

as_root=()
if [[ $EUID -ne 0 ]]; then
    if ! command -v sudo >/dev/null; then
        echo "install_packages: not root and no sudo. As root: apt-get install ${missing[*]}" >&2
        exit 2
    fi
    as_root=(sudo)
    # Without a terminal a password cannot be asked for: better to fail now than to hang.
    [[ -t 0 ]] || as_root=(sudo -n)
fi

install_missing() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
        --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" </dev/null
}

# The package lists may be absent (fresh container) or old: refreshed only when that is in the way.
if ! install_missing; then
    echo "install_packages: refreshing the package lists (apt-get update)"
    "${as_root[@]}" apt-get update -q </dev/null
    install_missing
fi
echo "install_packages: installed ${#missing[@]} packages"
