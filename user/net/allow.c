// SPDX-License-Identifier: MIT
#include "net/allow.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "net/steer.h"

struct sender {
	struct sender *next;
	uint32_t sessions; /* that receive from it, at least one */
	char address[];
};

struct allow {
	struct steer *steer;
	uint64_t rate, burst;
	pthread_mutex_t lock; /* of what follows, and for steer_peer() */
	struct sender *senders;
};

int allow_open(struct allow **out, struct steer *steer, uint64_t rate, uint64_t burst,
	       struct lslm_error *err)
{
	struct allow *a = calloc(1, sizeof(*a));

	if (!a)
		return error_sys(err, -ENOMEM, "allow list");
	a->steer = steer;
	a->rate = rate;
	a->burst = burst;
	pthread_mutex_init(&a->lock, NULL);
	*out = a;
	return 0;
}

void allow_close(struct allow *a)
{
	struct sender *s;

	if (!a)
		return;
	while ((s = a->senders)) {
		a->senders = s->next;
		free(s);
	}
	pthread_mutex_destroy(&a->lock);
	free(a);
}

/* Where the sender hangs, or a new one would. Under the lock. */
static struct sender **find(struct allow *a, const char *address)
{
	struct sender **at = &a->senders;

	while (*at && strcmp((*at)->address, address))
		at = &(*at)->next;
	return at;
}

static int add_first(struct allow *a, struct sender **at, const char *address,
		     struct lslm_error *err)
{
	struct sender *s = calloc(1, sizeof(*s) + strlen(address) + 1);
	int ret;

	if (!s)
		return error_sys(err, -ENOMEM, "allow list");
	ret = steer_peer(a->steer, address, a->rate, a->burst, err);
	if (ret < 0) {
		free(s);
		return ret;
	}
	strcpy(s->address, address);
	s->sessions = 1;
	*at = s;
	return 0;
}

int allow_add(struct allow *a, const char *address, struct lslm_error *err)
{
	struct sender **at;
	int ret = 0;

	if (!a)
		return 0;
	pthread_mutex_lock(&a->lock);
	at = find(a, address);
	/* Not anew: its bucket would be full again. */
	if (*at)
		(*at)->sessions++;
	else
		ret = add_first(a, at, address, err);
	pthread_mutex_unlock(&a->lock);
	return ret;
}

void allow_remove(struct allow *a, const char *address)
{
	struct sender **at, *s;

	if (!a)
		return;
	pthread_mutex_lock(&a->lock);
	at = find(a, address);
	s = *at;
	if (s && !--s->sessions) {
		*at = s->next;
		steer_peer_remove(a->steer, address, NULL);
		free(s);
	}
	pthread_mutex_unlock(&a->lock);
}
