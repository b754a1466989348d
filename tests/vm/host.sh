#!/bin/bash
# SPDX-License-Identifier: MIT
# Of what boots one kernel series (its first argument) and runs something in it: the module for that kernel, a place for what the
# guest is to find, and TAP on standard output.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
series=$1
fail() {
	echo "not ok 1 - $series: $1"
	echo "1..1"
	exit 1
}
read -r _ kver _ kdir < <(scripts/vm/kernels "$series") || fail "no kernel"
scripts/kmod-build "$kdir" >/dev/null || fail "the module does not build for $kver"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_CONFIG_HOME=$work/config XDG_CACHE_HOME=$work/cache

publish() { # WHAT MODEL TEXT [OPTION...]: WHAT.lskv, WHAT.key, and who signed it: trust
	build/lslm publish -m "$2" -f "$3" -o "$work/$1.lskv" "${@:4}" >"$work/published" || fail "publish $1"
	awk '/^publisher/ { print $2 }' "$work/published" >"$work/trust"
	awk '/^key/ { print $2 }' "$work/published" >"$work/$1.key"
}
# Ends this script. $work is the guest's /run/work.
in_guest() { # SECONDS [OPTION OF scripts/vm/run...] -- COMMAND
	VM_IN=$work scripts/vm/run -t "${VM_SECONDS:-$1}" -k "$series" "${@:2}" >"$work/tap" 2>"$work/err"
	local rc=$?
	cat "$work/tap"
	sed 's/^/# /' "$work/err"
	# A complaint in the kernel's log, or a machine that died; that a case failed makes no exit code.
	if [ $rc != 0 ]; then
		echo "not ok 999 - $kver: exit code $rc"
	else
		echo "ok 999 - $kver: the kernel's log is clean"
	fi
	echo "1..1"
	exit $rc
}
