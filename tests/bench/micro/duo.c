/* Two at once: threads where an allocator's blocks cannot leave the process, processes where they can. They start together, at a
 * barrier, and run for a stated time; what they counted is added up. */
#include "tests/bench/micro/micro.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define RUN_MS 200
#define LINE 128 /* two cache lines: the processor fetches them in pairs */

/* The ring: cells of many blocks, so that what is measured is the allocator and not the way from core to core. A cell is full, and the
 * taker's, or empty, and the giver's; who is done with it says so. */
#define CELLS 16u
#define CELL_BLOCKS 64u

struct cell {
	_Alignas(LINE) _Atomic uint32_t full;
	uint32_t count; /* 0: the last one */
	_Alignas(LINE) void *block[CELL_BLOCKS];
};

struct stage {
	pthread_barrier_t start;
	_Alignas(LINE) double rate[2]; /* operations per second, of each */
	struct cell cell[CELLS];
};

typedef void part_fn(struct stage *stage, unsigned who);

/* ---- starting the two ---- */

struct seat {
	struct stage *stage;
	part_fn *part;
	unsigned who;
};

static void *take_seat(void *arg)
{
	struct seat *seat = arg;

	seat->part(seat->stage, seat->who);
	return NULL;
}

static void as_threads(struct seat seat[2])
{
	pthread_t thread[2];

	for (int i = 0; i < 2; i++)
		if (pthread_create(&thread[i], NULL, take_seat, &seat[i]) != 0)
			give_up("no thread");
	for (int i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
}

static pid_t start_process(struct seat *seat)
{
	fflush(NULL);
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		heap_join();
		take_seat(seat);
		_exit(0);
	}
	return pid;
}

static void as_processes(struct seat seat[2])
{
	pid_t pid[2] = {start_process(&seat[0]), start_process(&seat[1])};
	bool well = true;

	for (int i = 0; i < 2; i++) {
		int status = 0;
		pid_t ended = wait(&status);

		if (status && well)
			kill(ended == pid[0] ? pid[1] : pid[0], SIGKILL);
		well = well && status == 0;
	}
	if (!well)
		give_up("a process failed");
}

/* The two rates, added up. */
static double play(bool processes, part_fn *first, part_fn *second)
{
	struct stage *stage = pages_new(sizeof(*stage));
	struct seat seat[2] = {{stage, first, 0}, {stage, second, 1}};
	pthread_barrierattr_t shared;

	pthread_barrierattr_init(&shared);
	pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
	pthread_barrier_init(&stage->start, &shared, 2);
	if (processes)
		as_processes(seat);
	else
		as_threads(seat);
	double rate = stage->rate[0] + stage->rate[1];

	munmap(stage, sizeof(*stage));
	return rate / 1e6;
}

/* ---- two working sets ---- */

#define WORKING_SET 100000u
#define CHUNK 64 /* operations between two looks at the clock */

static void work(struct stage *stage, unsigned who)
{
	struct set set;
	long done = 0;
	int64_t begin, now;

	set_open(&set, WORKING_SET, 1 + who);
	for (begin = now_ns(); done < (long)WORKING_SET && now_ns() - begin < RUN_MS * 1000000ll; done += CHUNK)
		set_replace(&set, CHUNK);
	pthread_barrier_wait(&stage->start);
	done = 0;
	begin = now_ns();
	do {
		set_replace(&set, CHUNK);
		done += CHUNK;
	} while ((now = now_ns()) - begin < RUN_MS * 1000000ll);
	stage->rate[who] = (double)done * 1e9 / (double)(now - begin);
	pthread_barrier_wait(&stage->start);
}

/* ---- from one to the other ---- */

static size_t ring_size;

static void wait_until(struct cell *cell, uint32_t full)
{
	for (unsigned turns = 1; atomic_load_explicit(&cell->full, memory_order_acquire) != full; turns++)
		if (turns % 256 == 0)
			sched_yield();
		else
			__builtin_ia32_pause();
}

static void fill(struct cell *cell, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		cell->block[i] = heap_alloc(ring_size);
		touch(cell->block[i]);
	}
	cell->count = count;
}

static void give(struct stage *stage, unsigned who)
{
	(void)who;
	pthread_barrier_wait(&stage->start);
	int64_t begin = now_ns();
	uint32_t at = 0;

	for (uint32_t count = CELL_BLOCKS; count; at = (at + 1) % CELLS) {
		if (now_ns() - begin > RUN_MS * 1000000ll)
			count = 0;
		wait_until(&stage->cell[at], 0);
		fill(&stage->cell[at], count);
		atomic_store_explicit(&stage->cell[at].full, 1, memory_order_release);
	}
}

static void take(struct stage *stage, unsigned who)
{
	long done = 0;
	int64_t begin;
	bool last = false;

	pthread_barrier_wait(&stage->start);
	begin = now_ns();
	for (uint32_t at = 0; !last; at = (at + 1) % CELLS) {
		struct cell *cell = &stage->cell[at];

		wait_until(cell, 1);
		for (uint32_t i = 0; i < cell->count; i++)
			heap_free(cell->block[i]);
		done += cell->count;
		last = cell->count == 0;
		atomic_store_explicit(&cell->full, 0, memory_order_release);
	}
	stage->rate[who] = (double)done * 1e9 / (double)(now_ns() - begin);
}

/* ---- rows ---- */

static void duo(bool processes)
{
	static const size_t size[] = {64, KIB};
	const char *by = processes ? "processes" : "threads";
	char name[48];

	for (int i = 0; i < 2; i++) {
		ring_size = size[i];
		snprintf(name, sizeof(name), "ring%zu_%s", size[i], by);
		say(name, play(processes, give, take), "Mops/s");
	}
	snprintf(name, sizeof(name), "set100k_%s", by);
	say(name, play(processes, work, work), "Mops/s");
}

void row_threads(void)
{
	duo(false);
}

void row_processes(void)
{
	if (heap_is_shared())
		duo(true);
}
