/* The heaps of the daemon by name, and what is asked of the daemon before a heap, or of none.
 *
 *	HELLO           answered here
 *	QUERY of heaps  likewise: a row for each, with what the asker may do
 *	ATTACH          to the core of the heap that it names, if the peer may attach to that (daemon/access.h)
 *	TRIM, EVICT, other queries
 *	                to the core of the heap that they name; an empty name is the only heap, else the one called `default`; from a
 *	                client, its own heap
 *	what only a client may send
 *	                to the core that it is attached to
 *
 * A connection that is attached sends its requests to its heap alone. A heap that could not be opened has no core: who asks for it
 * is told why.
 */
#ifndef DAEMON_HEAPS_H
#define DAEMON_HEAPS_H

#include "daemon/config.h"
#include "daemon/core.h"

struct heaps_entry {
	const struct config_heap *config;
	struct core *core; /* NULL: it could not be opened */
	const char *why; /* then: the reason in words */
	bool sealed; /* it is of memfds, whatever the configuration says */
	uint64_t refused; /* attaches that were refused for access */
};

struct heaps {
	uint32_t uid; /* the daemon's */
	uint32_t n;
	struct heaps_entry entry[CONFIG_HEAPS_MAX];
	struct wire_msg reply;
	struct codec_scratch scratch;
	unsigned char out[WIRE_MAX];
};

/* Carries out `req`, which has been decoded and is a request in order, for the caller. *core: the heap that the caller has to do
 * with, NULL at first; it becomes the one that the request is for. */
void heaps_run(struct heaps *heaps, struct core **core, struct caller *caller, const struct wire_msg *req,
        struct answer *answer);

/* Answers with an error in place of a request that cannot be read or is out of order. */
void heaps_refuse(
        struct heaps *heaps, uint64_t serial, enum wire_error_code code, const char *text, struct answer *answer);

#endif
