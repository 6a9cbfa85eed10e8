/* What a thread does from one step to the next. */
#include "tests/stress/kills/kills.h"

#define LONGEST (1u << 20) /* bytes of a block: what the traces ask for beyond is cut */

uint32_t first_entry(uint32_t slot)
{
	return slot * REGION;
}

static uint64_t word_at(uint32_t entry)
{
	return atomic_load_explicit(&campaign.board->entry[entry].word, memory_order_acquire);
}

static bool mine(const struct worker *w, uint64_t word)
{
	return (entry_state(word) == E_LIVE || entry_state(word) == E_FILLING) && entry_owner(word) == w->number;
}

static void free_mine(struct worker *w, uint32_t first, uint32_t n)
{
	for (uint32_t i = first; i < first + n; i++) {
		if (mine(w, word_at(i)))
			journal_free(w, i);
		park(w);
	}
}

/* Every second player checks and frees all that its predecessor left; the others go on with it. */
void inherit(struct worker *w)
{
	if (w->number < PLAYERS * 2) {
		if (test_random_one_in(&w->random, 2))
			free_mine(w, first_entry(w->number), REGION);
		return;
	}
	for (uint32_t slot = PLAYERS * 2; slot < THREADS; slot++)
		if (slot != w->number || test_random_one_in(&w->random, 2))
			free_mine(w, first_entry(slot), MIX_REGION);
}

/* ---- traces ---- */

/* One event. The first event after a start is any: what a window of the trace frees without having allocated is passed
 * over, and what it allocates twice is freed first. */
void play_trace(struct worker *w, const struct trace *trace, uint64_t *at, bool scoped)
{
	const struct event *e = &trace->event[*at];
	uint32_t entry = first_entry(w->number) + e->id % REGION;
	uint32_t size = e->size < LONGEST ? (uint32_t)e->size : LONGEST;
	uint32_t alignment = e->op == OP_MEMALIGN ? 1u << (e->lg_align < 3 ? 3 : e->lg_align) : 0;
	bool there = mine(w, word_at(entry));

	*at = (*at + 1) % trace->events;
	if (e->op == OP_REALLOC && there) {
		journal_realloc(w, entry, size);
		return;
	}
	if (there)
		journal_free(w, entry);
	if (e->op != OP_FREE)
		journal_alloc(w, entry, size, alignment, scoped ? SHMA_SCOPED : 0);
}

/* ---- mix ---- */

static uint32_t some_size(struct worker *w)
{
	struct test_random *random = &w->random;
	uint32_t kind = w->busy && test_random_one_in(random, 4) ? 999 : test_random_below(random, 1000);

	return test_random_length(random, kind < 900 ? 512 : kind < 990 ? 16384 : kind < 998 ? 262144 : LONGEST);
}

static void some_alloc(struct worker *w, uint32_t entry)
{
	static const uint32_t alignments[] = {0, 0, 0, 0, 0, 64, 256, 4096};

	journal_alloc(w, entry, some_size(w), alignments[test_random_below(&w->random, 8)],
	        (test_random_one_in(&w->random, 3) ? SHMA_SCOPED : 0) |
	                (test_random_one_in(&w->random, 3) ? SHMA_LAZY : 0));
}

/* In an entry that is free. */
void ask_for_much(struct worker *w)
{
	for (uint32_t i = first_entry(w->number); i < first_entry(w->number) + MIX_REGION; i++)
		if (!word_at(i)) {
			journal_alloc(w, i, LONGEST, 0, SHMA_LAZY);
			return;
		}
}

static void some_end(struct worker *w, uint32_t entry)
{
	uint32_t kind = test_random_below(&w->random, 20);
	bool scoped = entry_scoped(word_at(entry));

	if (kind < 4)
		journal_realloc(w, entry, some_size(w));
	else if (kind < 11 && !scoped && entry_state(word_at(entry)) == E_LIVE)
		(void)journal_mail(w, entry, test_random_below(&w->random, PLACES));
	else
		journal_free(w, entry);
}

/* A block that another process made, perhaps one that is dead. */
static void open_mail(struct worker *w)
{
	uint32_t entry = journal_take(w, test_random_below(&w->random, PLACES));

	if (entry == UINT32_MAX)
		return;
	if (test_random_one_in(&w->random, 6))
		journal_realloc(w, entry, some_size(w));
	if (!test_random_one_in(&w->random, 4) || !journal_mail(w, entry, test_random_below(&w->random, PLACES)))
		journal_free(w, entry);
}

void mix(struct worker *w)
{
	uint32_t entry = first_entry(w->number) + test_random_below(&w->random, MIX_REGION);
	uint64_t word = word_at(entry);

	if (test_random_one_in(&w->random, 4))
		open_mail(w);
	else if (!word)
		some_alloc(w, entry);
	else if (mine(w, word))
		some_end(w, entry);
	if (test_random_one_in(&w->random, w->busy ? 200 : 5000)) {
		uint32_t stops;
		int64_t before = call_begin(w, &stops);

		if (shma_trim(w->heap) != 0 && !may_give_up(w))
			violation("slot %u: trim failed", w->number);
		call_end(w, before, stops, true);
	}
}
