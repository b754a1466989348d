// SPDX-License-Identifier: MIT
#include "serve/clouds.h"

#include <string.h>

#include "net/breaker.h"

void clouds_begin(struct clouds *c)
{
	*c = (struct clouds){ 0 };
}

int clouds_take(struct clouds *c, struct board_cloud rows[BOARD_CLOUDS],
		const struct channel_message *m)
{
	uint32_t i = 0;

	while (i < BOARD_CLOUDS && *rows[i].name && strcmp(rows[i].name, m->text))
		i++;
	/* A count that has fallen is none. */
	if (!*m->text || m->value >= BREAKER_STATES ||
	    (i < BOARD_CLOUDS && (m->opened < c->opened[i] || m->probes < c->probes[i])))
		return -EPROTO;
	if (i == BOARD_CLOUDS)
		return 0;
	memcpy(rows[i].name, m->text, sizeof(rows[i].name));
	rows[i].state = m->value;
	rows[i].opened += m->opened - c->opened[i];
	rows[i].probes += m->probes - c->probes[i];
	c->opened[i] = m->opened;
	c->probes[i] = m->probes;
	return 0;
}
