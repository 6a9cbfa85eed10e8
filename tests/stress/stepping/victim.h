/* What the victim does: a table of variants, each a way to prepare it and one operation. */
#ifndef TESTS_STRESS_STEPPING_VICTIM_H
#define TESTS_STRESS_STEPPING_VICTIM_H

#include "tests/stress/stepping/world.h"

enum { MARK_BEGIN = 1, MARK_END, MARK_OTHERS_FREE, MARK_FAILED };

/* What a variant is about, beside its operation. */
enum {
	V_ALLOCATES = 1, /* may leave one block that nobody was told of */
	V_FOREIGN = 2, /* others hold spans of the class, and at each boundary take what they can from them */
	V_CENTRAL = 4, /* there are spans of the class that nobody holds, with live blocks in them */
	V_DOUBT = 8, /* ... and slots that an earlier death has left in doubt */
	V_GRAB = 16, /* another client asks for memory as soon as the daemon has answered the victim */
	V_FRESH = 32, /* the operation begins without a heap */
	V_HARDEN = 64, /* SHMALLOC_HARDEN=1 */
	V_ENDS = 128, /* the process ends by it */
	V_FIXED = 256 /* about these sizes and no others */
};

struct variant {
	const char *group, *name;
	uint32_t size; /* of the blocks that it is about */
	unsigned flags; /* SHMA_... */
	unsigned about; /* V_... */
	void (*prepare)(const struct variant *v);
	void (*run)(const struct variant *v);
	uint32_t n; /* of the preparation */
	uint32_t to; /* of the operation: a size, or a number */
};

extern const struct variant variants[];
extern const uint32_t n_variants;

/* The child: prepares, marks, runs, marks. */
void victim_main(struct note *note, const struct variant *v);

#endif
