/* A client: attaches and runs two threads until it is killed. A thread ends now and then, and its successor goes on; now and
 * then both stand still while one of them leaves the heap and attaches anew. (Not in the hasty one: where it gives up to leave, its
 * old place stays taken until it ends, as it should.) */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "tests/stress/kills/kills.h"

#define ENDS 30000u /* steps of a thread's life, on average */
#define LEAVES 60000u /* steps between two times that a thread asks its process to leave the heap */
#define BUSY 30u /* so many times sooner in a busy life */

struct client {
	uint32_t number;
	shma_heap *heap;
	atomic_uint leave; /* 1: somebody wants to leave */
	pthread_mutex_t meeting;
	bool waiting; /* one of them for the other */
	pthread_barrier_t both;
};

static struct client self = {.meeting = PTHREAD_MUTEX_INITIALIZER};

struct start {
	uint32_t slot;
	uint64_t seed;
	pthread_t before;
	bool successor;
};

static struct start starts[2];

/* Keeps to a step boundary while an audit runs. Before, the hasty one takes in what the daemon grants to a call that gave up, and gives
 * it back: until then it is nobody's. */
void park(struct worker *w)
{
	struct board *b = campaign.board;

	if (!atomic_load(&b->pause) || w->number >= THREADS)
		return;
	if (w->number / 2 == HASTY)
		ask_for_much(w);
	while ((b->trim || w->number / 2 == HASTY) && shma_trim(w->heap) != 0)
		if (!may_give_up(w)) {
			violation("slot %u: trim: %s", w->number, strerror(errno));
			break;
		}
	atomic_store(&w->slot->parked, 1);
	while (atomic_load(&b->pause))
		futex_wait_ns(&b->pause, 1, 1000000000);
	atomic_store(&w->slot->parked, 0);
}

static void attach(struct worker *w)
{
	struct shma_options options = {.size = sizeof(options),
	        .socket = campaign.socket,
	        .timeout_ms = self.number == HASTY ? HASTY_MS : TIMEOUT_MS};
	struct shma_stats stats = {.size = sizeof(stats)};
	uint32_t stops;
	int64_t before = call_begin(w, &stops);

	self.heap = shma_attach(&options);
	call_end(w, before, stops, true);
	if (!self.heap && self.number == HASTY)
		raise(SIGKILL); /* it may be attached without knowing it, until it ends */
	if (!self.heap || shma_stats_get(self.heap, &stats) != 0) {
		violation("client %u: attach: %s", self.number, strerror(errno));
		_exit(1);
	}
	atomic_store(&campaign.board->client_id[self.number], stats.client + 1);
}

/* Its scoped blocks go; before the call, so that at no moment the journal knows one that is gone. */
static void forget_scoped(uint32_t slot)
{
	for (uint32_t i = first_entry(slot); i < first_entry(slot) + REGION; i++)
		if (entry_scoped(atomic_load_explicit(&campaign.board->entry[i].word, memory_order_relaxed)))
			atomic_store(&campaign.board->entry[i].word, 0);
}

static void leave_and_attach(struct worker *w)
{
	uint32_t stops;

	forget_scoped(self.number * 2);
	forget_scoped(self.number * 2 + 1);
	atomic_store(&campaign.board->client_id[self.number], 0);
	int64_t before = call_begin(w, &stops);

	if (shma_detach(self.heap) != 0)
		violation("client %u: detach: %s", self.number, strerror(errno));
	call_end(w, before, stops, true);
	attach(w);
}

/* Who waits for the other thread touches nothing, and counts as parked until the other comes. */
static void meet(struct worker *w)
{
	(void)pthread_mutex_lock(&self.meeting);
	self.waiting = !self.waiting;
	atomic_store(&campaign.board->slot[self.waiting ? w->number : w->number ^ 1].parked, self.waiting);
	(void)pthread_mutex_unlock(&self.meeting);
	(void)pthread_barrier_wait(&self.both);
}

/* Between the two meetings the heap is left: nobody parks there, as one trims before. */
static void leave_together(struct worker *w)
{
	meet(w);
	if (w->number % 2 == 0) {
		atomic_store(&self.leave, 0);
		leave_and_attach(w);
	}
	meet(w);
	w->heap = self.heap;
	park(w);
}

static void *thread_main(void *arg);

static bool end_here(struct worker *w)
{
	if (!test_random_one_in(&w->random, w->busy ? ENDS / BUSY : ENDS))
		return false;
	pthread_t next;

	starts[w->number % 2] = (struct start){
	        .slot = w->number, .seed = test_random_next(&w->random), .before = pthread_self(), .successor = true};
	return pthread_create(&next, NULL, thread_main, &starts[w->number % 2]) == 0;
}

static void *thread_main(void *arg)
{
	struct start start = *(struct start *)arg;
	struct worker w = {.slot = &campaign.board->slot[start.slot],
	        .number = start.slot,
	        .heap = self.heap,
	        .random = {start.seed | 1}};
	w.busy = start.slot >= PLAYERS * 2 && test_random_one_in(&w.random, 3);
	const struct trace *trace = &campaign.trace[test_random_below(&w.random, campaign.traces)];
	uint64_t at = test_random_next(&w.random) % trace->events;

	if (start.successor)
		(void)pthread_join(start.before, NULL);
	else
		inherit(&w);
	while (!end_here(&w)) {
		if (w.number / 2 != HASTY && test_random_one_in(&w.random, w.busy ? LEAVES / BUSY : LEAVES))
			atomic_store(&self.leave, 1);
		if (atomic_load(&self.leave))
			leave_together(&w);
		park(&w);
		if (w.number < PLAYERS * 2)
			play_trace(&w, trace, &at, w.number % 2);
		else
			mix(&w);
	}
	return NULL;
}

int client_main(uint32_t client, uint64_t seed)
{
	struct worker w = {.slot = &campaign.board->slot[client * 2], .number = client * 2, .random = {seed | 1}};
	pthread_t thread;

	self.number = client;
	(void)pthread_barrier_init(&self.both, NULL, 2);
	attach(&w);
	for (uint32_t i = 0; i < 2; i++) {
		starts[i] = (struct start){.slot = client * 2 + i, .seed = test_random_next(&w.random)};
		if (pthread_create(&thread, NULL, thread_main, &starts[i]) != 0)
			violation("client %u: no thread", client);
	}
	for (;;)
		(void)pause();
}
