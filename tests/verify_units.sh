#!/usr/bin/env bash
# systemd's own checks of the unit, the users and the directories. Exits with 77, which ctest
# counts as skipped, where systemd's tools are missing.
#
#   bash tests/verify_units.sh /path/to/systemd
set -euo pipefail

units="$1"
for tool in systemd-analyze systemd-sysusers systemd-tmpfiles; do
    if ! command -v "$tool" >/dev/null; then
        echo "skipped: $tool is missing (Debian package systemd)"
        exit 77
    fi
done
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

# verify wants the program to exist, which it does only on hosts where bidstore is installed.
sed 's#^ExecStart=/usr/bin/bidstored#ExecStart=/bin/true#' "$units/bidstored.service" \
    >"$scratch/bidstored.service"
grep -q '^ExecStart=/bin/true --config' "$scratch/bidstored.service"
messages="$(SYSTEMD_LOG_LEVEL=warning systemd-analyze verify --man=no \
    "$scratch/bidstored.service" 2>&1)" || { echo "$messages"; exit 1; }
if grep -F bidstored.service <<<"$messages"; then
    echo "systemd-analyze verify is not silent about the unit" >&2
    exit 1
fi

# Both make files for other users, in a root of their own, which needs root.
if [[ $EUID -ne 0 ]]; then
    echo "the unit is clean; users and directories were not tried (not root)"
    exit 0
fi
mkdir -p "$scratch/root/etc"
systemd-sysusers --root="$scratch/root" "$units/bidstore.sysusers" 2>&1
grep -q '^bidstore:' "$scratch/root/etc/passwd"
grep -q '^bidstore-readers:' "$scratch/root/etc/group"
grep -q '^bidstore-writers:' "$scratch/root/etc/group"

systemd-tmpfiles --root="$scratch/root" --create "$units/bidstore.tmpfiles"
[[ "$(stat -c %a "$scratch/root/var/lib/bidstore")" == 700 ]]
[[ "$(stat -c %a "$scratch/root/run/bidstore")" == 755 ]]
echo "unit, users and directories are as systemd wants them"
