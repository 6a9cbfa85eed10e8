#include "tests/lib/random.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Every seed is a good one after this (splitmix64). */
static uint64_t scramble(uint64_t z)
{
	z += 0x9e3779b97f4a7c15ull;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

struct test_random test_random_init(const char *what)
{
	const char *given = getenv("SEED");
	struct timespec now;
	uint64_t seed;

	if (given) {
		seed = strtoull(given, NULL, 0);
	} else {
		clock_gettime(CLOCK_MONOTONIC, &now);
		seed = scramble((uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 30 ^ (uint64_t)getpid() << 48) >> 32;
	}
	fprintf(stderr, "%s: SEED=%" PRIu64 "\n", what, seed);
	return (struct test_random){scramble(seed) | 1};
}

uint64_t test_random_next(struct test_random *random)
{
	random->state ^= random->state << 13;
	random->state ^= random->state >> 7;
	random->state ^= random->state << 17;
	return random->state;
}

uint32_t test_random_below(struct test_random *random, uint32_t bound)
{
	return (uint32_t)((test_random_next(random) >> 32) * bound >> 32);
}

bool test_random_one_in(struct test_random *random, uint32_t times)
{
	return test_random_below(random, times) == 0;
}

uint32_t test_random_length(struct test_random *random, uint32_t most)
{
	uint32_t bits = test_random_below(random, 33 - (uint32_t)__builtin_clz(most | 1));
	uint32_t length = 1 + test_random_below(random, 1u << bits);

	return length < most ? length : most;
}
