#!/bin/bash
# SPDX-License-Identifier: MIT
# Of what runs inside the virtual machine and prints TAP. One numbering over all programs is not needed, their plans add up.
set -u
export PATH=$PATH:/usr/sbin OPENBLAS_CORETYPE=Core2 XDG_CACHE_HOME=/tmp/cache XDG_CONFIG_HOME=/tmp/config
case=0
ok() { # NAME: passed if the last command succeeded
	if [ $? = 0 ]; then echo "ok $((++case)) - $1"; else echo "not ok $((++case)) - $1"; fi
}
