/* replay: plays recorded allocation traces against a heap of the daemon or against the C library's malloc.
 *
 * A run is one trace, in one mode, with one allocator. Every run is made in fresh processes, forked from one that holds the
 * trace: neither heap sees what an earlier run left. Those who take part in a run (processes, or threads in the modes where
 * an allocator cannot be shared otherwise) are players. What they measured comes back through a shared page of outcomes.
 *
 *	main     options
 *	trace    reads a trace file, checks it, and works out which events wait for which (mode threads)
 *	run      forks the processes, with a daemon of their own if wanted; collects what they report
 *	process  a process of a run: its players, started together with all others
 *	player.inc.h  the loops over events; compiled once per allocator, by engine_*.c, so that both pay the same for a call
 *	check    fill patterns, and what -c looks at
 *	ring     the queue of mode handover, which lies in a block of the heap
 *	turn.h   a word that one advances and others wait for
 *	report   the table and the JSON lines
 */
#ifndef REPLAY_H
#define REPLAY_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/bench/replay/turn.h"

enum { OP_MALLOC = 1, OP_CALLOC, OP_REALLOC, OP_FREE, OP_MEMALIGN };

/* As in the file. */
struct event {
	uint8_t op;
	uint8_t lg_align;
	uint16_t thread;
	uint32_t id;
	uint64_t size;
};

/* Marks of an event for mode threads; the rest of the word counts the events before it on the same id. */
#define TURN_WAIT (1u << 30) /* the event before it is another thread's */
#define TURN_PUBLISH (1u << 31) /* the event after it is another thread's */
#define TURN_MASK (TURN_WAIT - 1)

struct trace {
	char name[64];
	uint64_t events;
	uint32_t ids, threads;
	uint64_t peak_bytes;
	const struct event *event;
	void *file; /* the decompressed file */
	size_t file_bytes;
	/* mode threads: events of thread t are order[first[t]] .. order[first[t + 1] - 1] */
	uint32_t *turn, *order, *first;
};

/* Reads, checks and touches it all. On failure prints why and returns false. */
bool trace_load(struct trace *trace, const char *path);
void trace_plan_threads(struct trace *trace);
void trace_free(struct trace *trace);

/* Zeroed memory that no allocator under test knows; never fails (exits). */
void *pages_new(size_t bytes);
void pages_free(void *pages, size_t bytes);

enum mode { MODE_SINGLE, MODE_PROCS, MODE_HANDOVER, MODE_THREADS };
enum allocator { ALLOC_SHMA, ALLOC_MALLOC, ALLOCATORS };

/* What a player does with a block besides allocating and freeing it. */
enum care {
	CARE_TOUCH, /* writes its first byte, as the program would: the timed run */
	CARE_PAGES, /* writes a byte in each of its pages: so that resident memory is what the program would have */
	CARE_CHECK /* fills it and checks each byte */
};

struct options {
	enum mode mode;
	bool use[ALLOCATORS];
	unsigned procs, repeat;
	bool check, json;
	const char *socket, *heap; /* NULL: by environment */
	const char *daemon; /* program to start for each run, or NULL */
	const char *size; /* heap size of that daemon */
	bool elsewhere; /* every second process has the heap at another address */
	uint64_t pause_at; /* UINT64_MAX: never */
};

/* What one player reports. [W that player; R the parent, after its end] */
struct outcome {
	int64_t begin_ns, end_ns;
	uint64_t errors; /* what -c found wrong */
	uint64_t failed; /* allocations that got nothing */
	uint64_t freed_at_end; /* objects that the trace leaves alive */
	uint64_t messages; /* to the daemon, by this player's process */
	uint64_t peak_memory; /* heap: backed bytes; malloc: growth of resident memory */
	uint32_t off_base; /* 1: the heap lies elsewhere in this process */
};

/* One who replays. The arrays are indexed by id; players in one process share them, and an entry belongs to whose turn it
 * is on that id. */
struct player {
	const struct trace *trace;
	const struct options *options;
	struct outcome *out;
	void **block;
	uint64_t *size; /* CARE_CHECK and handover: what was asked for */
	uint32_t *generation; /* CARE_CHECK: how many objects the id has named */
	turn_word *done; /* mode threads: events done on each id */
	struct ring *ring; /* mode handover */
	enum care care;
	unsigned index; /* which player: a process of mode procs, a side, a thread */
	unsigned salt; /* part of the pattern: different for players with different objects */
};

/* A loop over events [from, to), or over places in the order of a thread. */
typedef void play_fn(struct player *p, uint64_t from, uint64_t to);

/* What differs between the allocators. All of it runs inside a player's process. */
struct engine {
	const char *name;
	bool (*open)(const struct options *options, unsigned process);
	void (*close)(struct outcome *out); /* messages, peak_memory, off_base */
	play_fn *play; /* in file order */
	play_fn *play_list; /* places in trace->order: the events of one thread */
	uint64_t (*free_rest)(struct player *p); /* how many objects there were */
	/* Mode handover. `key` names the run. The producer makes the ring, the consumer finds it; NULL: printed why. */
	struct ring *(*ring_make)(uint64_t key);
	struct ring *(*ring_find)(uint64_t key);
	void (*ring_drop)(struct ring *ring, uint64_t key);
	play_fn *produce;
	void (*produce_end)(struct player *p);
	void (*consume)(struct player *p);
};

extern const struct engine engine_shma, engine_malloc;

struct result {
	const struct trace *trace;
	const struct engine *engine;
	double ns_per_event; /* wall clock of all players together, by all their events; 0: not measured */
	uint64_t events, peak_live, peak_memory, messages, freed_at_end, errors, failed;
	unsigned players;
	bool off_base;
};

/* Replays `trace` as often as the options say. False if a run could not be made, did not come to its end, or found errors;
 * the result then tells of the last run. */
bool run_trace(
        const struct options *options, const struct trace *trace, const struct engine *engine, struct result *result);

const char *mode_name(enum mode mode);

/* CLOCK_MONOTONIC: the same for all processes. */
int64_t now_ns(void);

/* By how much the resident memory of this process had grown, at its peak, since resident_begin(). */
void resident_begin(void);
uint64_t resident_growth(void);

void report_head(const struct options *options);
void report_row(const struct options *options, const struct result *result);
void report_foot(const struct options *options);

#endif
