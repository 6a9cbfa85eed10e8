/* The loops over events, as text: each engine_*.c defines what the allocator's calls are named and includes this, so that
 * they are direct calls in both and the loops are otherwise the same machine code.
 *
 *	A_MALLOC(size) A_CALLOC(count, size) A_REALLOC(block, size) A_ALIGNED(alignment, size) A_FREE(block)
 *	A_USABLE(block)
 *	A_REF(block, raw) A_BLOCK(ref, raw)     references of mode handover
 *
 * `care` is a constant wherever `step` is expanded: the timed loop bears none of the checks.
 */
#include "tests/bench/replay/check.h"
#include "tests/bench/replay/ring.h"

#define TOUCH_STEP 4096u

static inline void touch(void *block, uint64_t from, uint64_t size, enum care care)
{
	volatile char *byte = block;

	if (size == 0)
		return;
	byte[0] = 1;
	if (care == CARE_PAGES)
		for (uint64_t at = from; at < size; at += TOUCH_STEP)
			byte[at] = 1;
}

static inline void *allocate(const struct event *e)
{
	if (e->op == OP_MALLOC)
		return A_MALLOC(e->size);
	if (e->op == OP_CALLOC)
		return A_CALLOC(1, e->size);
	return A_ALIGNED((size_t)1 << (e->lg_align < 3 ? 3 : e->lg_align), e->size);
}

__attribute__((always_inline)) static inline void step_new(struct player *p, uint64_t at, enum care care)
{
	const struct event *e = &p->trace->event[at];
	void *block = allocate(e);

	p->block[e->id] = block;
	if (__builtin_expect(!block && e->size, 0))
		p->out->failed++;
	if (care == CARE_CHECK)
		check_new(p, at, block, A_USABLE(block));
	else if (block)
		touch(block, 0, e->size, care);
}

__attribute__((always_inline)) static inline void step_realloc(struct player *p, uint64_t at, enum care care)
{
	const struct event *e = &p->trace->event[at];
	void *old = p->block[e->id];

	if (care == CARE_CHECK)
		check_before_realloc(p, at, old);
	void *block = A_REALLOC(old, e->size);

	if (__builtin_expect(!block, 0))
		p->out->failed++;
	else
		p->block[e->id] = block;
	if (care == CARE_CHECK)
		check_after_realloc(p, at, block, A_USABLE(block));
	else if (block)
		touch(block, 0, e->size, care);
}

__attribute__((always_inline)) static inline void step_free(struct player *p, uint64_t at, enum care care)
{
	const struct event *e = &p->trace->event[at];
	void *block = p->block[e->id];

	p->block[e->id] = NULL;
	if (care == CARE_CHECK)
		check_old(p, at, block);
	A_FREE(block);
}

__attribute__((always_inline)) static inline void step(struct player *p, uint64_t at, enum care care)
{
	uint8_t op = p->trace->event[at].op;

	if (op == OP_FREE)
		step_free(p, at, care);
	else if (op == OP_REALLOC)
		step_realloc(p, at, care);
	else
		step_new(p, at, care);
}

/* Calls fn(..., care) with a constant care. */
#define WITH_CARE(fn, ...)                                                                                             \
	do {                                                                                                           \
		if (p->care == CARE_CHECK)                                                                             \
			fn(__VA_ARGS__, CARE_CHECK);                                                                   \
		else if (p->care == CARE_PAGES)                                                                        \
			fn(__VA_ARGS__, CARE_PAGES);                                                                   \
		else                                                                                                   \
			fn(__VA_ARGS__, CARE_TOUCH);                                                                   \
	} while (0)

/* ---- in file order ---- */

__attribute__((always_inline)) static inline void play_range(
        struct player *p, uint64_t from, uint64_t to, enum care care)
{
	for (uint64_t at = from; at < to; at++)
		step(p, at, care);
}

static void play(struct player *p, uint64_t from, uint64_t to)
{
	WITH_CARE(play_range, p, from, to);
}

static uint64_t free_rest(struct player *p)
{
	uint64_t freed = 0;

	for (uint32_t id = 0; id < p->trace->ids; id++) {
		freed += p->block[id] != NULL;
		A_FREE(p->block[id]);
		p->block[id] = NULL;
	}
	return freed;
}

/* ---- with the trace's own threads ---- */

__attribute__((always_inline)) static inline void play_places(
        struct player *p, uint64_t from, uint64_t to, enum care care)
{
	const struct trace *trace = p->trace;

	for (uint64_t i = from; i < to; i++) {
		uint32_t at = trace->order[i], id = trace->event[at].id, turn = trace->turn[at];

		if (turn & TURN_WAIT)
			turn_wait(&p->done[id], turn & TURN_MASK);
		step(p, at, care);
		if (turn & TURN_PUBLISH)
			turn_set(&p->done[id], (turn & TURN_MASK) + 1);
	}
}

static void play_list(struct player *p, uint64_t from, uint64_t to)
{
	WITH_CARE(play_places, p, from, to);
}

/* ---- hand-over ---- */

static void push(struct player *p, uint32_t event, uint32_t id)
{
	struct ring_entry entry = {.event = event,
	        .id = id,
	        .ref = A_REF(p->block[id], ring_raw(p->ring)),
	        .size = p->size[id],
	        .generation = p->generation[id]};

	p->block[id] = NULL;
	ring_push(p->ring, &entry);
}

__attribute__((always_inline)) static inline void produce_range(
        struct player *p, uint64_t from, uint64_t to, enum care care)
{
	for (uint64_t at = from; at < to; at++) {
		const struct event *e = &p->trace->event[at];

		if (e->op == OP_FREE || e->op == OP_REALLOC) {
			push(p, (uint32_t)at, e->id);
		} else {
			step_new(p, at, care);
			p->size[e->id] = e->size;
		}
	}
}

static void produce(struct player *p, uint64_t from, uint64_t to)
{
	WITH_CARE(produce_range, p, from, to);
}

static void produce_end(struct player *p)
{
	ring_push(p->ring, &(struct ring_entry){.event = RING_MARK});
	for (uint32_t id = 0; id < p->trace->ids; id++)
		if (p->block[id])
			push(p, RING_REST, id);
	ring_push(p->ring, &(struct ring_entry){.event = RING_STOP});
}

/* The consumer reads a block before it does anything with it, as a program would. */
__attribute__((always_inline)) static inline void consume_event(
        struct player *p, const struct ring_entry *entry, bool raw, enum care care)
{
	if (entry->ref) {
		void *block = A_BLOCK(entry->ref, raw);

		p->block[entry->id] = block;
		p->size[entry->id] = entry->size;
		p->generation[entry->id] = entry->generation;
		if (care != CARE_CHECK && entry->size)
			(void)*(volatile char *)block;
	}
	if (entry->event != RING_REST) {
		step(p, entry->event, care);
		return;
	}
	A_FREE(p->block[entry->id]);
	p->block[entry->id] = NULL;
	p->out->freed_at_end++;
}

__attribute__((always_inline)) static inline void consume_all(struct player *p, enum care care)
{
	bool raw = ring_raw(p->ring);

	for (;;) {
		struct ring_entry entry = ring_pop(p->ring);

		if (entry.event == RING_STOP)
			return;
		if (entry.event == RING_MARK)
			p->out->end_ns = now_ns();
		else
			consume_event(p, &entry, raw, care);
	}
}

static void consume(struct player *p)
{
	WITH_CARE(consume_all, p);
	p->out->freed_at_end += free_rest(p);
}
