/* Seeded random numbers for tests. The seed comes from the environment's SEED, else from the clock, and is printed once per
 * test, so that what failed can be run again. */
#ifndef TESTS_LIB_RANDOM_H
#define TESTS_LIB_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct test_random {
	uint64_t state;
};

/* Prints `what` and the seed on standard error. */
struct test_random test_random_init(const char *what);

uint64_t test_random_next(struct test_random *random);

/* 0 <= result < bound; bound is at least 1. */
uint32_t test_random_below(struct test_random *random, uint32_t bound);

/* True one time in `times`. */
bool test_random_one_in(struct test_random *random, uint32_t times);

/* From 1 to `most`, with short ones as likely as long ones by order of magnitude: 1 to 2 as often as 512 to 1,024. */
uint32_t test_random_length(struct test_random *random, uint32_t most);

#endif
