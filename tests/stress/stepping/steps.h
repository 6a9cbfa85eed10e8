/* One variant, stepped from marker to marker, and a death in every state that was not there before. */
#ifndef TESTS_STRESS_STEPPING_STEPS_H
#define TESTS_STRESS_STEPPING_STEPS_H

#include "tests/lib/random.h"
#include "tests/stress/stepping/victim.h"

/* What came of it; the last three are the most that was seen. */
struct tally {
	uint32_t variants, failed;
	uint64_t boundaries, states, deaths, snatched, violations;
	uint32_t most_written_off, most_turns, most_lost;
};

/* `random`: lets the other clients take random slots as well; or NULL. Violations are described on standard error. */
struct tally steps_run(const struct variant *v, struct test_random *random);

#endif
