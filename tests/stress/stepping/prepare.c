#include "tests/stress/stepping/prepare.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/stepper.h"

struct me me;

_Noreturn void prepare_failed(const char *what)
{
	(void)snprintf(me.note->failure, sizeof(me.note->failure), "%s: %s", what, strerror(errno));
	stepper_mark(MARK_FAILED);
	_exit(1);
}

/* ---- our cache, as it is inside ---- */

static struct shmi_tcache *cache(void)
{
	return shmi_tls[me.heap->index];
}

static shmi_sclass sclass_of(const struct variant *v)
{
	return shmi_sclass_make(shmi_class_of(v->size), v->flags & (SHMA_SCOPED | SHMA_NOSCAN));
}

static uint32_t top_of(const struct variant *v)
{
	const struct shmi_magazine *mag = cache()->mag[sclass_of(v).c];

	return mag ? shmi_load(&mag->top) : 0;
}

/* Magazines may not grow any more: a full one puts. */
static void no_growth(void)
{
	cache()->limit_bytes = SHMI_TC_BUDGET + 1;
}

/* ---- preparations ---- */

static void keep(const struct variant *v, uint32_t size)
{
	void *p = me.n_blocks < PREPARE_BLOCKS ? alloc(v, size) : NULL;

	if (!p)
		prepare_failed("a block");
	world_mark(p, off_of(p), shma_usable_size(p));
	me.block[me.n_blocks++] = p;
}

void prepare_keep_all(const struct variant *v)
{
	for (uint32_t i = 0; i < v->n; i++)
		keep(v, v->size);
}

/* Frees block[i] and forgets it. */
static void give_up(uint32_t i)
{
	shma_free(me.block[i]);
	me.block[i] = me.block[--me.n_blocks];
}

void prepare_drain(const struct variant *v)
{
	prepare_keep_all(v);
	while (top_of(v))
		keep(v, v->size);
}

/* The magazines of another kind are there. */
void prepare_warm_other(const struct variant *v)
{
	prepare_keep_all(&(struct variant){.size = v->size, .n = v->n});
}

/* No slot is left in any span that we hold. */
void prepare_use_up(const struct variant *v)
{
	prepare_drain(v);
	while (top_of(v) || cache()->ready[sclass_of(v).c].head)
		keep(v, v->size);
}

/* Every other slot of the spans is free, and no magazine has any. */
void prepare_make_holes(const struct variant *v)
{
	prepare_use_up(v);
	uint32_t n = me.n_blocks;

	for (uint32_t i = 0; i < n; i += 2)
		shma_free(me.block[i]);
	for (uint32_t i = 0; i < n / 2; i++)
		me.block[i] = me.block[2 * i + 1];
	me.n_blocks = n / 2;
	if (shma_trim(me.heap) != 0)
		prepare_failed("trim");
}

/* Others put slots back into our spans, all of which are full. */
void prepare_others_free(const struct variant *v)
{
	prepare_use_up(v);
	for (uint32_t i = 0; i < me.n_blocks && i < 8; i++)
		me.note->own[me.note->n_own++] = off_of(me.block[--me.n_blocks]);
	stepper_mark(MARK_OTHERS_FREE);
	me.note->n_own = 0;
}

/* Our thread has ended, as it were: its spans are in the process's pool. */
void prepare_leave_to_pool(const struct variant *v)
{
	prepare_keep_all(v);
	shmi_thread_leave(me.heap);
}

static void free_foreign(uint32_t n)
{
	for (uint32_t i = 0; i < n && me.note->n_foreign > 1; i++) /* the first has a name */
		shma_free(at(me.note->foreign[--me.note->n_foreign]));
}

static void free_central(uint32_t n)
{
	for (uint32_t i = 0; i < n && me.note->n_central; i++)
		shma_free(at(me.note->central[--me.note->n_central]));
}

/* A full magazine; the next block that is freed finds no room. `way` says where its blocks come from. */
static void fill_up(const struct variant *v, unsigned way)
{
	prepare_keep_all(v);
	no_growth();
	uint32_t limit = cache()->limit[sclass_of(v).c];

	while (me.n_blocks < limit + 2)
		keep(v, v->size);
	if (way == V_FOREIGN) { /* so many and so old that spans of others become wholly free */
		prepare_drain(v);
		free_foreign(limit);
	}
	while (top_of(v) < limit) {
		if (way & V_FOREIGN)
			free_foreign(1);
		if (way & V_CENTRAL && top_of(v) < limit)
			free_central(1);
		if (top_of(v) < limit && me.n_blocks > 1)
			give_up(v->to ? me.n_blocks / 2 : 0);
	}
	me.note->old = off_of(me.block[me.n_blocks - 1]);
}

/* The same with a magazine that has grown: 512 blocks or more go at once. */
void prepare_fill_grown(const struct variant *v)
{
	while (me.n_blocks < 1400)
		keep(v, v->size);
	for (uint32_t i = 0; cache()->limit[sclass_of(v).c] < 1024; i++)
		give_up(i * 7 % me.n_blocks);
	no_growth();
	uint32_t limit = cache()->limit[sclass_of(v).c];

	while (me.n_blocks < limit + 2)
		keep(v, v->size);
	while (top_of(v) < limit)
		give_up(me.n_blocks / 2);
	me.note->old = off_of(me.block[me.n_blocks - 1]);
}

void prepare_fill_own(const struct variant *v)
{
	fill_up(v, 0);
}

void prepare_fill_foreign(const struct variant *v)
{
	fill_up(v, V_FOREIGN);
}

void prepare_fill_central(const struct variant *v)
{
	fill_up(v, V_CENTRAL);
}

void prepare_fill_mixed(const struct variant *v)
{
	fill_up(v, V_FOREIGN | V_CENTRAL);
}

void prepare_keep_and_free_last(const struct variant *v)
{
	prepare_keep_all(v);
	me.note->old = off_of(me.block[me.n_blocks - 1]);
}

void prepare_warm_and_free_foreign(const struct variant *v)
{
	prepare_keep_all(v);
	me.note->old = me.note->foreign[1];
}

void prepare_warm_and_free_central(const struct variant *v)
{
	prepare_keep_all(v);
	me.note->old = me.note->central[0];
}

void prepare_warm_and_free_scoped(const struct variant *v)
{
	prepare_keep_all(v);
	me.note->old = me.note->foreign_scoped[0];
}

/* Blocks of several classes and kinds, some freed, some of others freed: something is cached everywhere. */
void prepare_live_a_little(const struct variant *v)
{
	static const uint32_t sizes[] = {16, 64, 320, 4096};
	struct variant one = *v;

	for (uint32_t i = 0; i < 4; i++)
		for (one.flags = 0; one.flags <= (v->to ? (unsigned)SHMA_SCOPED : 0u); one.flags++) {
			one.size = sizes[i];
			one.n = v->n;
			prepare_keep_all(&one);
		}
	free_foreign(3);
	free_central(3);
	for (uint32_t i = 0; i < me.n_blocks; i += 2)
		give_up(i);
}

/* All blocks are free again: whole spans can go. */
void prepare_live_and_free(const struct variant *v)
{
	prepare_live_a_little(v);
	while (me.n_blocks)
		give_up(me.n_blocks - 1);
}

void prepare_keep_big(const struct variant *v)
{
	prepare_live_a_little(v);
	struct variant one = {.size = 40 * SHMI_PAGE_SIZE, .n = 3};

	prepare_keep_all(&one);
	give_up(me.n_blocks - 1);
	give_up(me.n_blocks - 2);
}

/* Three freed large blocks of different lengths, and one that lives. */
void prepare_cache_large(const struct variant *v)
{
	struct variant one = {.n = 1, .flags = v->flags};

	for (one.size = 34 * SHMI_PAGE_SIZE; one.size < 50 * SHMI_PAGE_SIZE; one.size += 5 * SHMI_PAGE_SIZE)
		prepare_keep_all(&one);
	while (me.n_blocks > 1)
		give_up(0);
}

/* v->n of them in the cache, and one more to be freed. */
void prepare_fill_large(const struct variant *v)
{
	struct variant one = {.size = v->size, .n = v->n + 1, .flags = v->flags};

	prepare_keep_all(&one);
	while (me.n_blocks > 1)
		give_up(0);
	me.note->old = off_of(me.block[0]);
}

void prepare_name_large(const struct variant *v)
{
	prepare_keep_all(v);
	me.note->old = me.note->foreign_large;
}

void prepare_name_large_scoped(const struct variant *v)
{
	prepare_keep_all(v);
	me.note->old = me.note->foreign_large_scoped;
}

void prepare_name_large_central(const struct variant *v)
{
	prepare_keep_all(v);
	me.note->old = me.note->central_large;
}

void prepare_root_of_own(const struct variant *v)
{
	prepare_keep_all(v);
	if (v->to && shma_root_set(me.heap, "own", me.block[0]) != 0)
		prepare_failed("root");
}

/* No page of the heap is left, and no slot of ours. */
void prepare_exhaust(const struct variant *v)
{
	prepare_keep_all(v);
	while (shma_heap_alloc(me.heap, PAGES(200), 0, SHMA_LAZY))
		;
	while (shma_heap_alloc(me.heap, PAGES(33), 0, SHMA_LAZY))
		;
	for (void *p; (p = alloc(v, v->size)) != NULL && me.n_blocks < PREPARE_BLOCKS; me.block[me.n_blocks++] = p)
		world_mark(p, off_of(p), shma_usable_size(p));
	give_up(me.n_blocks / 2);
	prepare_drain(&(struct variant){.size = v->size, .flags = v->flags});
}

void prepare_nothing(const struct variant *v)
{
	prepare_keep_all(v);
}
