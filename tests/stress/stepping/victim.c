#include "tests/stress/stepping/victim.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <unistd.h>

#include "client/heap.h"
#include "tests/lib/stepper.h"

#define BLOCKS 4096u
#define KIB(n) ((n)*1024u)
#define PAGES(n) ((uint32_t)((n)*SHMI_PAGE_SIZE))

static struct note *note;
static struct shma_heap *heap;
static void *block[BLOCKS]; /* what we have allocated */
static uint32_t n_blocks;

static void failed(const char *what)
{
	(void)snprintf(note->failure, sizeof(note->failure), "%s: %s", what, strerror(errno));
	stepper_mark(MARK_FAILED);
	_exit(1);
}

/* ---- our cache, as it is inside ---- */

static struct shmi_tcache *cache(void)
{
	return shmi_tls[heap->index];
}

static shmi_sclass sclass_of(const struct variant *v)
{
	return shmi_sclass_make(shmi_class_of(v->size), v->flags & (SHMA_SCOPED | SHMA_NOSCAN));
}

static uint32_t top_of(const struct variant *v)
{
	const struct shmi_magazine *mag = cache()->cls[sclass_of(v).c].mag;

	return mag ? shmi_load(&mag->top) : 0;
}

/* Magazines may not grow any more: a full one puts. */
static void no_growth(void)
{
	cache()->limit_bytes = SHMI_TC_BUDGET + 1;
}

static uint64_t off_of(const void *p)
{
	return (uint64_t)(uintptr_t)p - heap->env.base;
}

static void *at(uint64_t off)
{
	return (void *)(uintptr_t)(heap->env.base + off);
}

/* ---- preparations ---- */

static void *alloc(const struct variant *v, uint32_t size)
{
	return v->flags ? shma_heap_alloc(heap, size, 0, v->flags) : shma_malloc(size);
}

static void keep(const struct variant *v, uint32_t size)
{
	void *p = n_blocks < BLOCKS ? alloc(v, size) : NULL;

	if (!p)
		failed("a block");
	world_mark(p, off_of(p), shma_usable_size(p));
	block[n_blocks++] = p;
}

static void keep_all(const struct variant *v)
{
	for (uint32_t i = 0; i < v->n; i++)
		keep(v, v->size);
}

/* Frees block[i] and forgets it. */
static void give_up(uint32_t i)
{
	shma_free(block[i]);
	block[i] = block[--n_blocks];
}

static void drain(const struct variant *v)
{
	keep_all(v);
	while (top_of(v))
		keep(v, v->size);
}

/* The magazines of another kind are there. */
static void warm_other(const struct variant *v)
{
	keep_all(&(struct variant){.size = v->size, .n = v->n});
}

/* No slot is left in any span that we hold. */
static void use_up(const struct variant *v)
{
	drain(v);
	while (top_of(v) || cache()->ready[sclass_of(v).c].head)
		keep(v, v->size);
}

/* Every other slot of the spans is free, and no magazine has any. */
static void make_holes(const struct variant *v)
{
	use_up(v);
	uint32_t n = n_blocks;

	for (uint32_t i = 0; i < n; i += 2)
		shma_free(block[i]);
	for (uint32_t i = 0; i < n / 2; i++)
		block[i] = block[2 * i + 1];
	n_blocks = n / 2;
	if (shma_trim(heap) != 0)
		failed("trim");
}

/* Others put slots back into our spans, all of which are full. */
static void others_free(const struct variant *v)
{
	use_up(v);
	for (uint32_t i = 0; i < n_blocks && i < 8; i++)
		note->own[note->n_own++] = off_of(block[--n_blocks]);
	stepper_mark(MARK_OTHERS_FREE);
	note->n_own = 0;
}

/* Our thread has ended, as it were: its spans are in the process's pool. */
static void leave_to_pool(const struct variant *v)
{
	keep_all(v);
	shmi_thread_leave(heap);
}

static void free_foreign(uint32_t n)
{
	for (uint32_t i = 0; i < n && note->n_foreign > 1; i++) /* the first has a name */
		shma_free(at(note->foreign[--note->n_foreign]));
}

static void free_central(uint32_t n)
{
	for (uint32_t i = 0; i < n && note->n_central; i++)
		shma_free(at(note->central[--note->n_central]));
}

/* A full magazine; the next block that is freed finds no room. `way` says where its blocks come from. */
static void fill_up(const struct variant *v, unsigned way)
{
	keep_all(v);
	no_growth();
	uint32_t limit = cache()->cls[sclass_of(v).c].limit;

	while (n_blocks < limit + 2)
		keep(v, v->size);
	if (way == V_FOREIGN) { /* so many and so old that spans of others become wholly free */
		drain(v);
		free_foreign(limit);
	}
	while (top_of(v) < limit) {
		if (way & V_FOREIGN)
			free_foreign(1);
		if (way & V_CENTRAL && top_of(v) < limit)
			free_central(1);
		if (top_of(v) < limit && n_blocks > 1)
			give_up(v->to ? n_blocks / 2 : 0);
	}
	note->old = off_of(block[n_blocks - 1]);
}

/* The same with a magazine that has grown: 512 blocks or more go at once. */
static void fill_grown(const struct variant *v)
{
	while (n_blocks < 1400)
		keep(v, v->size);
	for (uint32_t i = 0; cache()->cls[sclass_of(v).c].limit < 1024; i++)
		give_up(i * 7 % n_blocks);
	no_growth();
	uint32_t limit = cache()->cls[sclass_of(v).c].limit;

	while (n_blocks < limit + 2)
		keep(v, v->size);
	while (top_of(v) < limit)
		give_up(n_blocks / 2);
	note->old = off_of(block[n_blocks - 1]);
}

static void fill_own(const struct variant *v)
{
	fill_up(v, 0);
}

static void fill_foreign(const struct variant *v)
{
	fill_up(v, V_FOREIGN);
}

static void fill_central(const struct variant *v)
{
	fill_up(v, V_CENTRAL);
}

static void fill_mixed(const struct variant *v)
{
	fill_up(v, V_FOREIGN | V_CENTRAL);
}

static void keep_and_free_last(const struct variant *v)
{
	keep_all(v);
	note->old = off_of(block[n_blocks - 1]);
}

static void warm_and_free_foreign(const struct variant *v)
{
	keep_all(v);
	note->old = note->foreign[1];
}

static void warm_and_free_central(const struct variant *v)
{
	keep_all(v);
	note->old = note->central[0];
}

static void warm_and_free_scoped(const struct variant *v)
{
	keep_all(v);
	note->old = note->foreign_scoped[0];
}

/* Blocks of several classes and kinds, some freed, some of others freed: something is cached everywhere. */
static void live_a_little(const struct variant *v)
{
	static const uint32_t sizes[] = {16, 64, 320, 4096};
	struct variant one = *v;

	for (uint32_t i = 0; i < 4; i++)
		for (one.flags = 0; one.flags <= (v->to ? (unsigned)SHMA_SCOPED : 0u); one.flags++) {
			one.size = sizes[i];
			one.n = v->n;
			keep_all(&one);
		}
	free_foreign(3);
	free_central(3);
	for (uint32_t i = 0; i < n_blocks; i += 2)
		give_up(i);
}

/* All blocks are free again: whole spans can go. */
static void live_and_free(const struct variant *v)
{
	live_a_little(v);
	while (n_blocks)
		give_up(n_blocks - 1);
}

static void keep_big(const struct variant *v)
{
	live_a_little(v);
	struct variant one = {.size = 40 * SHMI_PAGE_SIZE, .n = 3};

	keep_all(&one);
	give_up(n_blocks - 1);
	give_up(n_blocks - 2);
}

/* Three freed large blocks of different lengths, and one that lives. */
static void cache_large(const struct variant *v)
{
	struct variant one = {.n = 1, .flags = v->flags};

	for (one.size = 34 * SHMI_PAGE_SIZE; one.size < 50 * SHMI_PAGE_SIZE; one.size += 5 * SHMI_PAGE_SIZE)
		keep_all(&one);
	while (n_blocks > 1)
		give_up(0);
}

/* v->n of them in the cache, and one more to be freed. */
static void fill_large(const struct variant *v)
{
	struct variant one = {.size = v->size, .n = v->n + 1, .flags = v->flags};

	keep_all(&one);
	while (n_blocks > 1)
		give_up(0);
	note->old = off_of(block[0]);
}

static void name_large(const struct variant *v)
{
	keep_all(v);
	note->old = note->foreign_large;
}

static void name_large_scoped(const struct variant *v)
{
	keep_all(v);
	note->old = note->foreign_large_scoped;
}

static void name_large_central(const struct variant *v)
{
	keep_all(v);
	note->old = note->central_large;
}

static void root_of_own(const struct variant *v)
{
	keep_all(v);
	if (v->to && shma_root_set(heap, "own", block[0]) != 0)
		failed("root");
}

/* No page of the heap is left, and no slot of ours. */
static void exhaust(const struct variant *v)
{
	keep_all(v);
	while (shma_heap_alloc(heap, PAGES(200), 0, SHMA_LAZY))
		;
	while (shma_heap_alloc(heap, PAGES(33), 0, SHMA_LAZY))
		;
	for (void *p; (p = alloc(v, v->size)) != NULL && n_blocks < BLOCKS; block[n_blocks++] = p)
		world_mark(p, off_of(p), shma_usable_size(p));
	give_up(n_blocks / 2);
	drain(&(struct variant){.size = v->size, .flags = v->flags});
}

static void nothing(const struct variant *v)
{
	keep_all(v);
}

/* ---- operations ---- */

static void result(const struct variant *v, void *p)
{
	if (!p)
		failed(v->name);
	note->result = off_of(p);
}

static void do_malloc(const struct variant *v)
{
	result(v, alloc(v, v->to ? v->to : v->size));
}

static void do_fail(const struct variant *v)
{
	if (alloc(v, v->size))
		failed("there was memory");
}

static void do_aligned(const struct variant *v)
{
	result(v, shma_heap_alloc(heap, v->size, v->to, v->flags));
}

static void do_free(const struct variant *v)
{
	(void)v;
	shma_free(at(note->old));
}

static void do_realloc(const struct variant *v)
{
	result(v, shma_realloc(at(note->old), v->to));
}

/* The block stays where it is. */
static void do_resize(const struct variant *v)
{
	if (shma_realloc(block[0], v->to) != block[0])
		failed(v->name);
}

static void do_trim(const struct variant *v)
{
	if (shma_trim(heap) != 0)
		failed(v->name);
}

static void do_leave(const struct variant *v)
{
	(void)v;
	shmi_heaps_hold();
	shmi_thread_leave(heap);
	shmi_heaps_release();
}

/* Of the only thread, so the process ends. */
static void do_exit(const struct variant *v)
{
	(void)v;
	pthread_exit(NULL);
}

static void do_attach(const struct variant *v)
{
	if (!shma_attach(NULL))
		failed(v->name);
}

static void do_detach(const struct variant *v)
{
	if (shma_detach(heap) != 0)
		failed(v->name);
}

static void do_root(const struct variant *v)
{
	if ((v->to ? shma_root_del(heap, "own") : shma_root_set(heap, "own", block[0])) != 0)
		failed(v->name);
}

/* ---- the table ---- */

const struct variant variants[] = {
        /* a block from the magazine */
        {"malloc", "16 B", 16, 0, V_ALLOCATES, nothing, do_malloc, 1, 0},
        {"malloc", "1 KiB, scoped", 1024, SHMA_SCOPED, 0, nothing, do_malloc, 1, 0},
        {"malloc", "3 KiB, noscan", 3072, SHMA_NOSCAN, V_ALLOCATES, nothing, do_malloc, 1, 0},
        {"malloc", "256 KiB", KIB(256), 0, V_ALLOCATES, nothing, do_malloc, 1, 0},
        {"malloc", "zeroed", 256, SHMA_ZERO, V_ALLOCATES, nothing, do_malloc, 1, 0},
        {"malloc", "aligned", 200, 0, V_ALLOCATES | V_FIXED, nothing, do_aligned, 1, 128},
        /* from the bitmaps of held spans */
        {"take", "16 B", 16, 0, V_ALLOCATES, drain, do_malloc, 1, 0},
        {"take", "48 B, scoped", 48, SHMA_SCOPED, 0, drain, do_malloc, 1, 0},
        {"take", "256 B", 256, 0, V_ALLOCATES, drain, do_malloc, 1, 0},
        {"take", "2 KiB", 2048, 0, V_ALLOCATES, drain, do_malloc, 1, 0},
        {"take", "holes, 16 B", 16, 0, V_ALLOCATES, make_holes, do_malloc, 1, 0},
        {"take", "holes, 64 B, scoped", 64, SHMA_SCOPED, 0, make_holes, do_malloc, 1, 0},
        {"take", "holes, 1 KiB", 1024, 0, V_ALLOCATES, make_holes, do_malloc, 1, 0},
        {"take", "holes, 5 KiB", KIB(5), 0, V_ALLOCATES, make_holes, do_malloc, 1, 0},
        {"take", "sweep, 64 B", 64, 0, V_ALLOCATES, others_free, do_malloc, 1, 0},
        {"take", "sweep, 8 KiB", KIB(8), 0, V_ALLOCATES, others_free, do_malloc, 1, 0},
        {"take", "pool, 32 B", 32, 0, V_ALLOCATES, leave_to_pool, do_malloc, 3, 0},
        {"take", "pool, 512 B, scoped", 512, SHMA_SCOPED, 0, leave_to_pool, do_malloc, 3, 0},
        /* from the daemon */
        {"refill", "first, 16 B", 16, 0, V_ALLOCATES, nothing, do_malloc, 0, 0},
        {"refill", "first, scoped", 128, SHMA_SCOPED, 0, nothing, do_malloc, 0, 0},
        {"refill", "another kind", 128, SHMA_SCOPED, 0, warm_other, do_malloc, 1, 0},
        {"refill", "used up, 64 B", 64, 0, V_ALLOCATES | V_GRAB, use_up, do_malloc, 1, 0},
        {"refill", "used up, 64 KiB", KIB(64), 0, V_ALLOCATES, use_up, do_malloc, 1, 0},
        {"refill", "used up, 256 KiB", KIB(256), SHMA_SCOPED, 0, use_up, do_malloc, 1, 0},
        {"refill", "partly used, 64 B", 64, 0, V_ALLOCATES | V_CENTRAL, nothing, do_malloc, 0, 0},
        {"refill", "partly used, 2 KiB", 2048, 0, V_ALLOCATES | V_CENTRAL | V_FOREIGN, nothing, do_malloc, 0, 0},
        {"refill", "in doubt, 64 B", 64, 0, V_ALLOCATES | V_CENTRAL | V_DOUBT, nothing, do_malloc, 0, 0},
        {"refill", "in doubt, 320 B", 320, 0, V_ALLOCATES | V_CENTRAL | V_DOUBT | V_FOREIGN, nothing, do_malloc, 0, 0},
        {"refill", "no memory", 1024, 0, V_FIXED, exhaust, do_fail, 1, 0},
        {"refill", "no memory, scoped", KIB(4), SHMA_SCOPED, V_FIXED, exhaust, do_fail, 1, 0},
        /* a block into the magazine, or straight back */
        {"free", "own, 16 B", 16, 0, 0, keep_and_free_last, do_free, 2, 0},
        {"free", "own, scoped", 1024, SHMA_SCOPED, 0, keep_and_free_last, do_free, 2, 0},
        {"free", "own, 256 KiB", KIB(256), 0, 0, keep_and_free_last, do_free, 1, 0},
        {"free", "foreign", 64, 0, V_FOREIGN, warm_and_free_foreign, do_free, 1, 0},
        {"free", "foreign, first of its class", 320, 0, V_FOREIGN, warm_and_free_foreign, do_free, 0, 0},
        {"free", "foreign, scoped", 64, 0, V_FOREIGN, warm_and_free_scoped, do_free, 1, 0},
        {"free", "nobody's", 64, 0, V_CENTRAL, warm_and_free_central, do_free, 1, 0},
        {"free", "hardened", 64, 0, V_HARDEN, keep_and_free_last, do_free, 2, 0},
        /* a full magazine */
        {"put", "own, 16 B", 16, 0, 0, fill_own, do_free, 2, 0},
        {"put", "own, 64 B, scoped", 64, SHMA_SCOPED, 0, fill_own, do_free, 2, 0},
        {"put", "own, 1 KiB", 1024, 0, 0, fill_own, do_free, 2, 1},
        {"put", "own, 8 KiB", KIB(8), 0, 0, fill_own, do_free, 2, 0},
        {"put", "own, 256 KiB", KIB(256), 0, 0, fill_own, do_free, 2, 0},
        {"put", "foreign, 64 B", 64, 0, V_FOREIGN, fill_foreign, do_free, 2, 0},
        {"put", "foreign, 1 KiB", 1024, 0, V_FOREIGN, fill_foreign, do_free, 2, 0},
        {"put", "nobody's, 64 B", 64, 0, V_CENTRAL, fill_central, do_free, 2, 0},
        {"put", "in doubt, 320 B", 320, 0, V_CENTRAL | V_DOUBT, fill_central, do_free, 2, 0},
        {"put", "mixed, 48 B", 48, 0, V_FOREIGN | V_CENTRAL, fill_mixed, do_free, 2, 1},
        {"put", "mixed, 512 B", 512, 0, V_FOREIGN | V_CENTRAL, fill_mixed, do_free, 2, 0},
        {"put", "mixed, 2 KiB", 2048, 0, V_FOREIGN | V_CENTRAL | V_DOUBT, fill_mixed, do_free, 2, 1},
        {"put", "grown, 16 B", 16, 0, V_FIXED, fill_grown, do_free, 2, 0},
        {"put", "grown, 48 B, scoped", 48, SHMA_SCOPED, V_FIXED, fill_grown, do_free, 2, 0},
        /* realloc */
        {"realloc", "where it is", 100, 0, V_FIXED, nothing, do_resize, 1, 110},
        {"realloc", "16 B to 48 B", 16, 0, V_ALLOCATES, keep_and_free_last, do_realloc, 2, 48},
        {"realloc", "1 KiB to 256 B", 1024, 0, V_ALLOCATES, keep_and_free_last, do_realloc, 2, 256},
        {"realloc", "scoped", 64, SHMA_SCOPED, 0, keep_and_free_last, do_realloc, 2, 320},
        {"realloc", "foreign", 64, 0, V_ALLOCATES | V_FOREIGN, warm_and_free_foreign, do_realloc, 1, 200},
        {"realloc", "small to large", 1024, 0, V_ALLOCATES | V_FIXED, keep_and_free_last, do_realloc, 1, KIB(300)},
        {"realloc", "large to small", KIB(300), 0, V_ALLOCATES | V_FIXED, keep_and_free_last, do_realloc, 1, 64},
        {"realloc", "large to larger", KIB(300), 0, V_ALLOCATES | V_FIXED, keep_and_free_last, do_realloc, 1, KIB(600)},
        /* blocks that are spans */
        {"large alloc", "fresh", PAGES(40), 0, V_ALLOCATES, nothing, do_malloc, 0, 0},
        {"large alloc", "fresh, scoped", PAGES(40), SHMA_SCOPED, V_GRAB, nothing, do_malloc, 0, 0},
        {"large alloc", "lazy", PAGES(40), SHMA_LAZY, V_ALLOCATES, nothing, do_malloc, 0, 0},
        {"large alloc", "3 MiB, aligned", PAGES(400), 0, V_ALLOCATES, nothing, do_aligned, 0, PAGES(2)},
        {"large alloc", "cached, the shortest", 64, 0, V_ALLOCATES, cache_large, do_malloc, 0, PAGES(33)},
        {"large alloc", "cached, between two", 64, 0, V_ALLOCATES, cache_large, do_malloc, 0, PAGES(38)},
        {"large alloc", "cached, scoped", 64, SHMA_SCOPED, 0, cache_large, do_malloc, 0, PAGES(38)},
        {"large alloc", "none of the cached", 64, 0, V_ALLOCATES, cache_large, do_malloc, 0, PAGES(60)},
        {"large free", "into the cache", PAGES(40), 0, 0, fill_large, do_free, 2, 0},
        {"large free", "into the cache, scoped", PAGES(40), SHMA_SCOPED, 0, fill_large, do_free, 2, 0},
        {"large free", "the oldest must go", PAGES(50), 0, V_GRAB, fill_large, do_free, 3, 0},
        {"large free", "all of them must go", PAGES(100), SHMA_SCOPED, V_GRAB, fill_large, do_free, 2, 0},
        {"large free", "too long for the cache", PAGES(520), 0, V_GRAB, fill_large, do_free, 0, 0},
        {"large free", "lazy", PAGES(40), SHMA_LAZY, 0, fill_large, do_free, 0, 0},
        {"large free", "foreign", 64, 0, V_FOREIGN, name_large, do_free, 0, 0},
        {"large free", "foreign, scoped", 64, 0, V_FOREIGN | V_GRAB, name_large_scoped, do_free, 1, 0},
        {"large free", "nobody's", 64, 0, V_FOREIGN | V_CENTRAL, name_large_central, do_free, 1, 0},
        /* giving back */
        {"trim", "little", 64, 0, 0, nothing, do_trim, 1, 0},
        {"trim", "spans stay", 64, 0, V_FOREIGN | V_CENTRAL, live_a_little, do_trim, 3, 1},
        {"trim", "spans go", 64, 0, V_FOREIGN | V_CENTRAL | V_GRAB, live_and_free, do_trim, 3, 1},
        {"trim", "large blocks go", 64, 0, V_GRAB, keep_big, do_trim, 2, 0},
        {"thread exit", "little", 64, 0, 0, nothing, do_leave, 1, 0},
        {"thread exit", "spans stay", 64, 0, V_FOREIGN | V_CENTRAL, live_a_little, do_leave, 3, 1},
        {"thread exit", "spans go", 64, 0, V_FOREIGN | V_GRAB, live_and_free, do_leave, 3, 1},
        {"thread exit", "pthread_exit", 64, 0, V_FOREIGN | V_CENTRAL | V_ENDS, live_a_little, do_exit, 2, 1},
        {"thread exit", "pthread_exit, large", 64, 0, V_ENDS, keep_big, do_exit, 2, 1},
        {"attach", "attach", 64, 0, V_FRESH | V_FOREIGN, NULL, do_attach, 0, 0},
        {"attach", "detach", 64, 0, V_FOREIGN | V_CENTRAL, live_a_little, do_detach, 2, 1},
        {"attach", "detach, large blocks", 64, 0, 0, keep_big, do_detach, 1, 0},
        {"attach", "root set", 64, 0, 0, root_of_own, do_root, 1, 0},
        {"attach", "root deleted", 64, 0, 0, root_of_own, do_root, 1, 1},
};
const uint32_t n_variants = sizeof(variants) / sizeof(variants[0]);

/* What is left of our shared blocks must stay as it is. */
static void note_own(void)
{
	note->n_own = 0;
	for (uint32_t i = 0; i < n_blocks && note->n_own < WORLD_BLOCKS; i++) {
		shmi_sclass sclass = {
		        shmi_load(shmi_page_class_at(&heap->env.img, shmi_off_page((shmi_off){off_of(block[i])})))};

		if (!shmi_sclass_scoped(sclass))
			note->own[note->n_own++] = off_of(block[i]);
	}
}

void victim_main(struct note *shared, const struct variant *v)
{
	note = shared;
	(void)setenv("SHMALLOC_SOCKET", note->socket, 1);
	(void)unsetenv("SHMALLOC_HEAP");
	(void)setenv("SHMALLOC_HARDEN", v->about & V_HARDEN ? "1" : "0", 1);
	if (!(v->about & V_FRESH)) {
		heap = shma_attach(NULL);
		if (!heap)
			failed("attach");
		note->base = heap->env.base;
		v->prepare(v);
		note_own();
	}
	stepper_mark(MARK_BEGIN);
	v->run(v);
	stepper_mark(MARK_END);
}
