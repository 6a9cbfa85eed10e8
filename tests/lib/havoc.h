/* A heap with clients that behave and one that does not, over the daemon's core in memory: for campaigns of damage.
 *
 *	struct havoc *h = havoc_new(HAVOC_PAGES, &random);
 *
 *	havoc_live(h);                     clients, spans, caches, large blocks, roots
 *	... overwrite what lies in h->memory.ctl ...
 *	havoc_die(h, HAVOC_HOSTILE);
 *	wrong = havoc_run(h);              the reclaim
 *	wrong = wrong ? wrong : havoc_judge(h);
 *
 * No Criterion, so that a fuzz target can use it; functions return NULL, or what is wrong in words. Requests go past the codec.
 *
 * What havoc_judge looks at: meta is whole (shm/check.h without ctl); what must be backed is; spans that clients who behave
 * hold are untouched; and what a fresh client is granted lies in no span that is in use, and no two grants overlap.
 */
#ifndef TESTS_LIB_HAVOC_H
#define TESTS_LIB_HAVOC_H

#include "daemon/core.h"
#include "tests/lib/random.h"

#define HAVOC_PAGES 1024u /* of a heap that is quickly checked */
#define HAVOC_CLIENTS 4u /* slots for callers */
#define HAVOC_HOSTILE 0u
#define HAVOC_FRESH 3u /* the caller who comes when all is over */
#define HAVOC_HELD 96u /* spans of blocks of one client that the model knows of */
#define HAVOC_THREADS 2u
#define HAVOC_STEPS 20000u /* more turns than a reclaim can take */

struct havoc_client {
	bool attached;
	struct caller caller;
	uint64_t serial;
	uint32_t threads, thread[HAVOC_THREADS], parts;
	uint32_t n_held;
	struct wire_span held[HAVOC_HELD];
};

struct havoc {
	struct heap heap;
	struct core core;
	struct heap_memory memory;
	struct test_random *random;
	uint8_t *backed; /* by page of data */
	uint64_t cut[HEAP_OBJECTS]; /* bytes that the floor says are missing at the end */
	bool torn; /* snapshots fail */
	void (*meddle)(struct havoc *h); /* called between any two turns of havoc_run; NULL: nothing is */
	uint32_t steps; /* of the last havoc_run */
	struct havoc_client client[HAVOC_CLIENTS];
	bool answered;
	struct wire_msg reply; /* to the last request */
	char wrong[256];
};

/* NULL when there is no memory. */
struct havoc *havoc_new(uint32_t pages, struct test_random *random);
void havoc_free(struct havoc *h);

/* The kind of the answer, WIRE_NONE if there was none (which is wrong). */
enum wire_kind havoc_ask(struct havoc *h, uint32_t client, struct wire_msg *req);

bool havoc_attach(struct havoc *h, uint32_t client, uint32_t threads, uint32_t parts);
uint32_t havoc_refill(struct havoc *h, uint32_t client, uint32_t sclass, uint32_t spans);
uint32_t havoc_large(struct havoc *h, uint32_t client, uint32_t pages, uint32_t attrs, bool lazy);

/* All callers but HAVOC_FRESH are attached (if they are not) and hold and cache something of everything. */
void havoc_live(struct havoc *h);

/* The process of the client dies, its socket with it. */
void havoc_die(struct havoc *h, uint32_t client);

/* Runs all jobs. */
const char *havoc_run(struct havoc *h);

const char *havoc_judge(struct havoc *h);

/* True if the heap has been used up and a new one is due. */
bool havoc_spent(const struct havoc *h);

/* The daemon ends and another takes over: NULL, or its words when it refuses; nobody is attached then. */
const char *havoc_restart(struct havoc *h);

#endif
