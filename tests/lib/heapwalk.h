/* A random walk over a page heap: takes runs, cuts them, opens and closes spans on them, gives them to clients, returns memory,
 * fails now and then, and keeps a model of what ought to be. Each step compares what the page heap chose with what it should
 * have chosen. For the suites of the page heap and of adoption.
 */
#ifndef TESTS_LIB_HEAPWALK_H
#define TESTS_LIB_HEAPWALK_H

#include "tests/lib/image.h"
#include "tests/lib/pagemodel.h"
#include "tests/lib/random.h"

struct heapwalk {
	struct test_image *t;
	struct pagemodel *model;
	struct test_random *random;
	struct shmi_run *runs; /* MOVING runs and spans in use */
	uint32_t count;
	uint32_t now;
	uint32_t fill; /* percent of the heap that should be in use */
	uint32_t longest; /* of what is asked for */
	bool faults; /* the floor fails now and then */

	/* how often the rare things came about, for a test to see that it tests them */
	uint32_t refused, mixed, aligned, failed_commits, failed_publishes, picked;
	char wrong[200];
};

void heapwalk_init(struct heapwalk *walk, struct test_image *t, struct test_random *random);
void heapwalk_deinit(struct heapwalk *walk);

/* One operation. NULL, or what went wrong. Does not compare the image with the model. */
const char *heapwalk_step(struct heapwalk *walk);

/* Gives everything back. */
void heapwalk_drain(struct heapwalk *walk);

#endif
