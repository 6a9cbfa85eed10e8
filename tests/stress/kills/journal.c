/* Every call into the heap is made here, with the entry's word stored before and after. */
#include <errno.h>
#include <string.h>

#include "tests/stress/kills/kills.h"

#define LARGE 262144u /* bytes: what is longer comes from the daemon, one by one */

/* ---- patterns ---- */

#define DENSE 1024u /* every word up to here */
#define LINES 16384u /* one word of each 64 bytes up to here, and of each page beyond */

static uint32_t next_word(uint32_t at)
{
	return at < DENSE ? at + 8 : at < LINES ? at + 64 : at + 4096;
}

static uint64_t word_of(uint64_t off, uint32_t seq, uint32_t at)
{
	uint64_t z = (off + at) * 0x9e3779b97f4a7c15ull ^ (uint64_t)seq << 17;

	return z ^ z >> 29;
}

void pattern_fill(void *block, uint64_t off, uint32_t size, uint32_t seq)
{
	unsigned char *bytes = block;
	uint64_t last = word_of(off, seq, size);

	for (uint32_t at = 0; at + 8 <= size; at = next_word(at)) {
		uint64_t word = word_of(off, seq, at);

		memcpy(bytes + at, &word, 8);
	}
	memcpy(bytes + (size & ~7u), &last, size & 7);
}

bool pattern_check(const void *block, uint64_t off, uint32_t size, uint32_t seq)
{
	const unsigned char *bytes = block;
	uint64_t last = word_of(off, seq, size);

	for (uint32_t at = 0; at + 8 <= size; at = next_word(at)) {
		uint64_t word = word_of(off, seq, at);

		if (memcmp(bytes + at, &word, 8) != 0)
			return false;
	}
	return memcmp(bytes + (size & ~7u), &last, size & 7) == 0;
}

/* ---- calls ---- */

int64_t call_begin(const struct worker *w, uint32_t *stops)
{
	*stops = w->number < THREADS ? atomic_load(&campaign.board->stops[w->number / 2]) : 0;
	return now_ns();
}

/* A call during which its own process was stopped says nothing. */
void call_end(struct worker *w, int64_t before, uint32_t stops, bool other)
{
	uint64_t took = (uint64_t)(now_ns() - before);
	enum phase phase = (enum phase)atomic_load(&campaign.board->phase);
	uint64_t *longest = other ? &w->slot->longest_other_ns[phase] : &w->slot->longest_ns[phase];

	w->slot->calls++;
	if (w->number < THREADS && stops != atomic_load(&campaign.board->stops[w->number / 2]))
		return;
	if (took > *longest)
		*longest = took;
	if (!other && took > SLOW_NS)
		w->slot->slow[phase]++;
}

static struct entry *begin(struct worker *w, uint32_t number)
{
	atomic_store(&w->slot->current, number + 1);
	return &campaign.board->entry[number];
}

static void set(struct worker *w, struct entry *e, enum entry_state state, bool scoped, uint64_t off)
{
	atomic_store(&e->word, state == E_EMPTY ? 0 : entry_word(state, w->number, scoped, off));
}

/* The block is there and known: fills it. */
static void fill(struct worker *w, struct entry *e, void *block, bool scoped, uint32_t size, uint32_t seq)
{
	uint64_t off = shma_to_off(block);

	e->size = size;
	e->seq = seq;
	set(w, e, E_FILLING, scoped, off);
	if (!off || shma_usable_size(block) < size)
		violation("slot %u: a block at %llx of %u bytes has room for %zu", w->number, (unsigned long long)off,
		        size, shma_usable_size(block));
	pattern_fill(block, off, size, seq);
	set(w, e, E_LIVE, scoped, off);
}

bool may_give_up(struct worker *w)
{
	if (w->number / 2 != HASTY || errno != EAGAIN)
		return false;
	w->slot->gave_up++;
	return true;
}

/* The request for a large block may be carried out nevertheless. The library frees what it brings, unless it is killed. Which
 * of several it was cannot be told: while it is under way, others give up behind it. */
static void note_given_up(struct worker *w, uint32_t size)
{
	if (size > LARGE)
		w->slot->given_up[w->slot->n_given_up++ % GIVEN_UP] = size;
}

void journal_alloc(struct worker *w, uint32_t number, uint32_t size, uint32_t alignment, unsigned flags)
{
	struct entry *e = begin(w, number);
	uint32_t seq = (uint32_t)test_random_next(&w->random), stops;
	bool scoped = flags & SHMA_SCOPED;

	e->size = size;
	e->seq = alignment;
	set(w, e, E_ALLOCATING, scoped, 0);
	int64_t before = call_begin(w, &stops);
	void *block = shma_heap_alloc(w->heap, size, alignment, flags | (seq & 1 ? SHMA_NOSCAN : 0));

	call_end(w, before, stops, false);
	if (block) {
		fill(w, e, block, scoped, size, seq);
		return;
	}
	if (!may_give_up(w))
		violation("slot %u: malloc of %u bytes: %s", w->number, size, strerror(errno));
	note_given_up(w, size);
	set(w, e, E_EMPTY, false, 0);
}

static bool sound(struct worker *w, const struct entry *e, const void *block, uint32_t size)
{
	uint64_t word = atomic_load(&e->word), off = entry_off(word);

	if (entry_state(word) == E_FILLING)
		return true;
	w->slot->checked++;
	return pattern_check(block, off, size, e->seq);
}

void journal_realloc(struct worker *w, uint32_t number, uint32_t size)
{
	struct entry *e = begin(w, number);
	uint64_t word = atomic_load(&e->word), off = entry_off(word);
	bool scoped = entry_scoped(word), filled = entry_state(word) != E_FILLING;
	uint32_t old = e->size, old_seq = e->seq, seq = (uint32_t)test_random_next(&w->random) & ~1u, stops;
	void *block = shma_from_off(w->heap, off);

	if (!sound(w, e, block, old))
		violation("slot %u: block %llx of %u bytes was changed", w->number, (unsigned long long)off, old);
	if (!size)
		size = 1;
	set(w, e, E_RESIZING, scoped, off);
	e->size = size;
	e->seq = 0;
	int64_t before = call_begin(w, &stops);
	void *moved = shma_realloc(block, size);

	call_end(w, before, stops, false);
	if (!moved) {
		if (!may_give_up(w))
			violation("slot %u: realloc to %u bytes: %s", w->number, size, strerror(errno));
		note_given_up(w, size);
		e->size = old;
		e->seq = old_seq;
		atomic_store(&e->word, word);
		return;
	}
	uint32_t kept = (old < size ? old : size) & ~7u; /* the last bytes depend on the length */

	if (filled && !pattern_check(moved, off, kept, old_seq))
		violation("slot %u: block %llx lost bytes when it became %u long", w->number, (unsigned long long)off,
		        size);
	fill(w, e, moved, scoped, size, seq | (old_seq & 1));
}

void journal_free(struct worker *w, uint32_t number)
{
	struct entry *e = begin(w, number);
	uint64_t word = atomic_load(&e->word), off = entry_off(word);
	void *block = shma_from_off(w->heap, off);
	uint32_t stops;

	if (!sound(w, e, block, e->size))
		violation("slot %u: block %llx of %u bytes, entry %u, was changed", w->number, (unsigned long long)off,
		        e->size, number);
	set(w, e, E_FREEING, entry_scoped(word), off);
	int64_t before = call_begin(w, &stops);

	shma_free(block);
	call_end(w, before, stops, false);
	set(w, e, E_EMPTY, false, 0);
}

/* ---- mail ---- */

bool journal_mail(struct worker *w, uint32_t number, uint32_t place)
{
	struct entry *e = &campaign.board->entry[number];
	uint64_t off = entry_off(atomic_load(&e->word));
	uint32_t empty = 0;

	set(w, e, E_MAILED, false, off);
	if (atomic_compare_exchange_strong(&campaign.board->place[place], &empty, number + 1))
		return true;
	set(w, e, E_LIVE, false, off);
	return false;
}

uint32_t journal_take(struct worker *w, uint32_t place)
{
	uint32_t number = atomic_exchange(&campaign.board->place[place], 0) - 1;

	if (number == UINT32_MAX)
		return number;
	struct entry *e = &campaign.board->entry[number];
	uint64_t word = atomic_load(&e->word);

	if (entry_state(word) != E_MAILED)
		violation("entry %u was mailed and is in state %d", number, (int)entry_state(word));
	set(w, e, E_LIVE, false, entry_off(word));
	return number;
}

/* ---- deaths ---- */

static void doubt(uint64_t off, uint32_t size, uint32_t alignment)
{
	struct board *b = campaign.board;

	if (b->n_doubts < DOUBTS)
		b->doubt[b->n_doubts++] = (struct doubt){off, size ? size : 1, alignment};
	else
		violation("more blocks in doubt than there is room for");
}

static void bury_current(uint32_t slot)
{
	struct board *b = campaign.board;
	uint32_t current = atomic_exchange(&b->slot[slot].current, 0);
	struct entry *e = current ? &b->entry[current - 1] : NULL;
	uint64_t word = e ? atomic_load(&e->word) : 0;
	enum entry_state state = entry_state(word);

	if (!e || entry_owner(word) != slot || (state != E_ALLOCATING && state != E_FREEING && state != E_RESIZING))
		return;
	if (!entry_scoped(word)) {
		if (state != E_FREEING)
			doubt(0, e->size, e->seq);
		if (state != E_ALLOCATING)
			doubt(entry_off(word), 1, 0);
	}
	atomic_store(&e->word, 0);
}

void journal_bury(uint32_t slot)
{
	struct board *b = campaign.board;
	struct entry *region = &b->entry[first_entry(slot)];
	uint32_t n = slot < PLAYERS * 2 ? REGION : MIX_REGION;

	bury_current(slot);
	for (uint32_t i = 0; i < GIVEN_UP && i < b->slot[slot].n_given_up; i++)
		doubt(0, b->slot[slot].given_up[i], 0);
	b->slot[slot].n_given_up = 0;
	atomic_store(&b->slot[slot].parked, 0);
	for (uint32_t i = 0; i < n; i++) {
		uint64_t word = atomic_load_explicit(&region[i].word, memory_order_relaxed);

		if (entry_scoped(word) && entry_owner(word) == slot)
			atomic_store(&region[i].word, 0);
	}
}
