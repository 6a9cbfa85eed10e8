/* The heap check: every invariant of README.md as executable code.
 *
 * Facts about meta are checked once: the daemon, its only writer, calls this between two requests. Facts about ctl are
 * checked while clients run, so a finding counts only if it is found again, for the same place, on every one of
 * `passes` looks; what a stopped or killed client left in the middle of an operation is explained by its intent. A daemon
 * makes three passes; one is enough for a saved image or a heap at rest.
 *
 * Takes memory (malloc) for the time of the call, in proportion to the published pages and the cached blocks. Cost: O(pages
 * + cached blocks) for each pass. Not to be called while shmi_central or shmi_pageheap functions run.
 */
#ifndef SHM_CHECK_H
#define SHM_CHECK_H

#include "shm/image.h"

struct shmi_violation {
	uint32_t invariant; /* number in README.md; 0: there was no memory to check with */
	uint32_t page; /* the span or page it is about, else 0 */
	uint64_t detail; /* slot, word, thread or the wrong value: the text says which */
	char text[120];
};

/* What the checker cannot see in the image; NULL fields are not checked. */
struct shmi_check_env {
	void *ctx;
	bool (*client_lives)(void *ctx, uint32_t client); /* live, detached or being reclaimed */
	bool (*reclaiming)(
	        void *ctx, uint32_t thread); /* what this record holds is being put back: it is not looked at */
};

/* Returns the number of violations, of which the first `room` are described in `out`. */
uint32_t shmi_check(const struct shmi_image *img, const struct shmi_check_env *env, uint32_t passes,
        struct shmi_violation *out, uint32_t room);

/* What the invariant says, as in README.md; NULL if there is none of that number. */
const char *shmi_check_sentence(uint32_t invariant);

#endif
