#!/bin/bash
# SPDX-License-Identifier: MIT
# Of what runs inside the virtual machine and prints TAP. One numbering over all programs is not needed, their plans add up.
set -u
export PATH=$PATH:/usr/sbin OPENBLAS_CORETYPE=Core2 XDG_CACHE_HOME=/tmp/cache XDG_CONFIG_HOME=/tmp/config
case=0
ok() { # NAME: passed if the last command succeeded
	if [ $? = 0 ]; then echo "ok $((++case)) - $1"; else echo "not ok $((++case)) - $1"; fi
}
# The kernel patches its code when the first socket of UDP_ENCAP comes and when the last one goes. An emulated processor that had packets meanwhile
# once ran into the breakpoint of that after it had been taken back (int3 at udp_queue_rcv_one_skb+0x57), and died. One stays open here.
if [ ! -e /tmp/held ]; then
	/usr/bin/python3 -c 'import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_UDP, 100, 3)  # UDP_ENCAP, UDP_ENCAP_L2TPINUDP
open("/tmp/held", "w").close()
time.sleep(1 << 30)' </dev/null >/dev/null 2>&1 &
	while [ ! -e /tmp/held ]; do
		kill -0 $! || { echo "not ok 998 - a socket of UDP_ENCAP"; break; }
		sleep 0.1
	done
fi
