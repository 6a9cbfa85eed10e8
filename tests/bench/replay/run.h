/* One run: what the parent prepares and its processes share. */
#ifndef REPLAY_RUN_H
#define REPLAY_RUN_H

#include "tests/bench/replay/replay.h"

/* In memory that all processes of the run share. */
struct stage {
	pthread_barrier_t start;
	uint64_t key; /* names the run among others on the same heap */
	struct outcome out[];
};

struct run {
	const struct options *options;
	const struct trace *trace;
	const struct engine *engine;
	enum care care;
	unsigned processes, players_each;
	struct stage *stage;
};

/* In the forked process: plays its part of the run. Does not return where something is missing. */
void process_main(const struct run *run, unsigned process);

#endif
