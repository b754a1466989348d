/* SPDX-License-Identifier: MIT */
/*
 * An edge's UDP socket for a placement session: DF on everything, room for what arrives while
 * nobody reads, connected to one cloud, so that nobody else's datagrams reach it.
 *
 * The socket blocks (io_uring waits for such a one by itself); who sends uses MSG_DONTWAIT.
 */
#ifndef LSLM_NET_UDP_H
#define LSLM_NET_UDP_H

#include <stdint.h>

#include "base/error.h"

/* A new socket of the family that the address (IPv4 or IPv6, no port) is of; not connected yet. */
int udp_open(const char *address, struct lslm_error *err);
/* -EAFNOSUPPORT: the address is of another family. */
int udp_connect(int fd, const char *address, uint16_t port, struct lslm_error *err);
/* UDP payload of the largest datagram that the interface towards the peer takes whole. */
uint32_t udp_largest(int fd);

#endif
