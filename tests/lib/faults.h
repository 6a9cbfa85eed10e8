/* What a hostile client can leave in ctl, or do to it: kinds of fault, done to the client HAVOC_HOSTILE of tests/lib/havoc.h.
 *
 * Crafted values stand in tables: each field of a thread record gets each of its edge values, in combinations that chance picks.
 */
#ifndef TESTS_LIB_FAULTS_H
#define TESTS_LIB_FAULTS_H

#include "tests/lib/havoc.h"

#define FAULT_KINDS 16u

struct fault_kind {
	const char *name;
	void (*fault)(struct havoc *h);
	bool ends; /* the heap is fenced by it, at once or a little later */
};

extern const struct fault_kind fault_kinds[FAULT_KINDS];

/* Those that are used for themselves. */
void fault_all_of_record(struct havoc *h);
void fault_bitmaps(struct havoc *h);
void fault_flips(struct havoc *h);

/* A thread record of the hostile client, and its parts; NULL: it has none. */
struct shmi_threadrec *fault_record(struct havoc *h, uint32_t *parts);

#endif
