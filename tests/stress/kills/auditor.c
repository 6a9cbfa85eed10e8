/* A client that is never killed. Between the commands of the nemesis it allocates and frees a little, as a survivor whose calls
 * are timed, and looks for its mail. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "tests/stress/kills/kills.h"

#define IDLE_NS 1000000
#define PROBE_NAME "probe"

uint32_t auditor_ask(enum command command)
{
	struct board *b = campaign.board;
	uint32_t number = atomic_load(&b->ask) + 1;

	atomic_store(&b->command, command);
	atomic_store(&b->ask, number);
	futex_wake(&b->ask);
	return number;
}

bool auditor_wait(uint32_t number, int64_t deadline_ns)
{
	struct board *b = campaign.board;

	for (;;) {
		uint32_t done = atomic_load(&b->done);

		if (done == number)
			return true;
		if (now_ns() >= deadline_ns)
			return false;
		futex_wait_ns(&b->done, done, 10000000);
	}
}

static void probe(struct worker *w, const void *block)
{
	if (shma_root_set(w->heap, PROBE_NAME, block) != 0)
		violation("the auditor: a root: %s", strerror(errno));
	campaign.board->probed_ns = now_ns();
}

static void carry_out(struct worker *w, enum command command, const void *block)
{
	if (command == DO_PROBE)
		probe(w, block);
	if (command == DO_AUDIT || command == DO_CLOSE) {
		if (campaign.board->trim && shma_trim(w->heap) != 0)
			violation("the auditor: trim: %s", strerror(errno));
		audit(w, command == DO_CLOSE);
	}
}

static void attach(struct worker *w)
{
	struct shma_options options = {.size = sizeof(options), .socket = campaign.socket, .timeout_ms = TIMEOUT_MS};
	struct shma_stats stats = {.size = sizeof(stats)};

	w->heap = shma_attach(&options);
	if (!w->heap || shma_stats_get(w->heap, &stats) != 0) {
		violation("the auditor: attach: %s", strerror(errno));
		_exit(1);
	}
	atomic_store(&campaign.board->client_id[CLIENTS], stats.client + 1);
}

/* Gives all back, and leaves. */
static int leave(struct worker *w, uint32_t number)
{
	int bad = shma_root_del(w->heap, PROBE_NAME) != 0 && errno != ENOENT;

	bad |= shma_trim(w->heap) != 0;
	bad |= shma_detach(w->heap) != 0;
	atomic_store(&campaign.board->done, number);
	futex_wake(&campaign.board->done);
	return bad;
}

int auditor_main(uint64_t seed)
{
	struct board *b = campaign.board;
	struct worker w = {.slot = &b->slot[AUDITOR], .number = AUDITOR, .random = {seed | 1}};
	uint32_t probe_entry = first_entry(AUDITOR) + MIX_REGION, done = 0;

	attach(&w);
	journal_alloc(&w, probe_entry, 64, 0, false);
	for (;;) {
		uint32_t ask = atomic_load(&b->ask);

		if (ask != done) {
			enum command command = (enum command)atomic_load(&b->command);

			carry_out(&w, command,
			        shma_from_off(w.heap, entry_off(atomic_load(&b->entry[probe_entry].word))));
			done = ask;
			if (command == DO_CLOSE)
				return leave(&w, done);
			atomic_store(&b->done, done);
			futex_wake(&b->done);
		} else if (!atomic_load(&b->pause)) {
			for (uint32_t i = 0; i < 20; i++)
				mix(&w);
		}
		futex_wait_ns(&b->ask, done, IDLE_NS);
	}
}
