#include "tests/stress/stepping/victim.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/lib/stepper.h"
#include "tests/stress/stepping/prepare.h"

/* ---- operations ---- */

static void result(const struct variant *v, void *p)
{
	if (!p)
		prepare_failed(v->name);
	me.note->result = off_of(p);
}

static void do_malloc(const struct variant *v)
{
	result(v, alloc(v, v->to ? v->to : v->size));
}

static void do_fail(const struct variant *v)
{
	if (alloc(v, v->size))
		prepare_failed("there was memory");
}

static void do_aligned(const struct variant *v)
{
	result(v, shma_heap_alloc(me.heap, v->size, v->to, v->flags));
}

static void do_free(const struct variant *v)
{
	(void)v;
	shma_free(at(me.note->old));
}

static void do_realloc(const struct variant *v)
{
	result(v, shma_realloc(at(me.note->old), v->to));
}

/* The block stays where it is. */
static void do_resize(const struct variant *v)
{
	if (shma_realloc(me.block[0], v->to) != me.block[0])
		prepare_failed(v->name);
}

static void do_trim(const struct variant *v)
{
	if (shma_trim(me.heap) != 0)
		prepare_failed(v->name);
}

static void do_leave(const struct variant *v)
{
	(void)v;
	shmi_heaps_hold();
	shmi_thread_leave(me.heap);
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
		prepare_failed(v->name);
}

static void do_detach(const struct variant *v)
{
	if (shma_detach(me.heap) != 0)
		prepare_failed(v->name);
}

static void do_root(const struct variant *v)
{
	if ((v->to ? shma_root_del(me.heap, "own") : shma_root_set(me.heap, "own", me.block[0])) != 0)
		prepare_failed(v->name);
}

/* ---- the table ---- */

const struct variant variants[] = {
        /* a block from the magazine */
        {"malloc", "16 B", 16, 0, V_ALLOCATES, prepare_nothing, do_malloc, 1, 0},
        {"malloc", "1 KiB, scoped", 1024, SHMA_SCOPED, 0, prepare_nothing, do_malloc, 1, 0},
        {"malloc", "3 KiB, noscan", 3072, SHMA_NOSCAN, V_ALLOCATES, prepare_nothing, do_malloc, 1, 0},
        {"malloc", "256 KiB", KIB(256), 0, V_ALLOCATES, prepare_nothing, do_malloc, 1, 0},
        {"malloc", "zeroed", 256, SHMA_ZERO, V_ALLOCATES, prepare_nothing, do_malloc, 1, 0},
        {"malloc", "aligned", 200, 0, V_ALLOCATES | V_FIXED, prepare_nothing, do_aligned, 1, 128},
        /* from the bitmaps of held spans */
        {"take", "16 B", 16, 0, V_ALLOCATES, prepare_drain, do_malloc, 1, 0},
        {"take", "48 B, scoped", 48, SHMA_SCOPED, 0, prepare_drain, do_malloc, 1, 0},
        {"take", "256 B", 256, 0, V_ALLOCATES, prepare_drain, do_malloc, 1, 0},
        {"take", "2 KiB", 2048, 0, V_ALLOCATES, prepare_drain, do_malloc, 1, 0},
        {"take", "holes, 16 B", 16, 0, V_ALLOCATES, prepare_make_holes, do_malloc, 1, 0},
        {"take", "holes, 64 B, scoped", 64, SHMA_SCOPED, 0, prepare_make_holes, do_malloc, 1, 0},
        {"take", "holes, 1 KiB", 1024, 0, V_ALLOCATES, prepare_make_holes, do_malloc, 1, 0},
        {"take", "holes, 5 KiB", KIB(5), 0, V_ALLOCATES, prepare_make_holes, do_malloc, 1, 0},
        {"take", "sweep, 64 B", 64, 0, V_ALLOCATES, prepare_others_free, do_malloc, 1, 0},
        {"take", "sweep, 8 KiB", KIB(8), 0, V_ALLOCATES, prepare_others_free, do_malloc, 1, 0},
        {"take", "pool, 32 B", 32, 0, V_ALLOCATES, prepare_leave_to_pool, do_malloc, 3, 0},
        {"take", "pool, 512 B, scoped", 512, SHMA_SCOPED, 0, prepare_leave_to_pool, do_malloc, 3, 0},
        /* from the daemon */
        {"refill", "first, 16 B", 16, 0, V_ALLOCATES, prepare_nothing, do_malloc, 0, 0},
        {"refill", "first, scoped", 128, SHMA_SCOPED, 0, prepare_nothing, do_malloc, 0, 0},
        {"refill", "another kind", 128, SHMA_SCOPED, 0, prepare_warm_other, do_malloc, 1, 0},
        {"refill", "used up, 64 B", 64, 0, V_ALLOCATES | V_GRAB, prepare_use_up, do_malloc, 1, 0},
        {"refill", "used up, 64 KiB", KIB(64), 0, V_ALLOCATES, prepare_use_up, do_malloc, 1, 0},
        {"refill", "used up, 256 KiB", KIB(256), SHMA_SCOPED, 0, prepare_use_up, do_malloc, 1, 0},
        {"refill", "partly used, 64 B", 64, 0, V_ALLOCATES | V_CENTRAL, prepare_nothing, do_malloc, 0, 0},
        {"refill", "partly used, 2 KiB", 2048, 0, V_ALLOCATES | V_CENTRAL | V_FOREIGN, prepare_nothing, do_malloc, 0,
                0},
        {"refill", "in doubt, 64 B", 64, 0, V_ALLOCATES | V_CENTRAL | V_DOUBT, prepare_nothing, do_malloc, 0, 0},
        {"refill", "in doubt, 320 B", 320, 0, V_ALLOCATES | V_CENTRAL | V_DOUBT | V_FOREIGN, prepare_nothing, do_malloc,
                0, 0},
        {"refill", "no memory", 1024, 0, V_FIXED, prepare_exhaust, do_fail, 1, 0},
        {"refill", "no memory, scoped", KIB(4), SHMA_SCOPED, V_FIXED, prepare_exhaust, do_fail, 1, 0},
        /* a block into the magazine, or straight back */
        {"free", "own, 16 B", 16, 0, 0, prepare_keep_and_free_last, do_free, 2, 0},
        {"free", "own, scoped", 1024, SHMA_SCOPED, 0, prepare_keep_and_free_last, do_free, 2, 0},
        {"free", "own, 256 KiB", KIB(256), 0, 0, prepare_keep_and_free_last, do_free, 1, 0},
        {"free", "foreign", 64, 0, V_FOREIGN, prepare_warm_and_free_foreign, do_free, 1, 0},
        {"free", "foreign, first of its class", 320, 0, V_FOREIGN, prepare_warm_and_free_foreign, do_free, 0, 0},
        {"free", "foreign, scoped", 64, 0, V_FOREIGN, prepare_warm_and_free_scoped, do_free, 1, 0},
        {"free", "nobody's", 64, 0, V_CENTRAL, prepare_warm_and_free_central, do_free, 1, 0},
        {"free", "hardened", 64, 0, V_HARDEN, prepare_keep_and_free_last, do_free, 2, 0},
        /* a full magazine */
        {"put", "own, 16 B", 16, 0, 0, prepare_fill_own, do_free, 2, 0},
        {"put", "own, 64 B, scoped", 64, SHMA_SCOPED, 0, prepare_fill_own, do_free, 2, 0},
        {"put", "own, 1 KiB", 1024, 0, 0, prepare_fill_own, do_free, 2, 1},
        {"put", "own, 8 KiB", KIB(8), 0, 0, prepare_fill_own, do_free, 2, 0},
        {"put", "own, 256 KiB", KIB(256), 0, 0, prepare_fill_own, do_free, 2, 0},
        {"put", "foreign, 64 B", 64, 0, V_FOREIGN, prepare_fill_foreign, do_free, 2, 0},
        {"put", "foreign, 1 KiB", 1024, 0, V_FOREIGN, prepare_fill_foreign, do_free, 2, 0},
        {"put", "nobody's, 64 B", 64, 0, V_CENTRAL, prepare_fill_central, do_free, 2, 0},
        {"put", "in doubt, 320 B", 320, 0, V_CENTRAL | V_DOUBT, prepare_fill_central, do_free, 2, 0},
        {"put", "mixed, 48 B", 48, 0, V_FOREIGN | V_CENTRAL, prepare_fill_mixed, do_free, 2, 1},
        {"put", "mixed, 512 B", 512, 0, V_FOREIGN | V_CENTRAL, prepare_fill_mixed, do_free, 2, 0},
        {"put", "mixed, 2 KiB", 2048, 0, V_FOREIGN | V_CENTRAL | V_DOUBT, prepare_fill_mixed, do_free, 2, 1},
        {"put", "grown, 16 B", 16, 0, V_FIXED, prepare_fill_grown, do_free, 2, 0},
        {"put", "grown, 48 B, scoped", 48, SHMA_SCOPED, V_FIXED, prepare_fill_grown, do_free, 2, 0},
        /* realloc */
        {"realloc", "where it is", 100, 0, V_FIXED, prepare_nothing, do_resize, 1, 110},
        {"realloc", "16 B to 48 B", 16, 0, V_ALLOCATES, prepare_keep_and_free_last, do_realloc, 2, 48},
        {"realloc", "1 KiB to 256 B", 1024, 0, V_ALLOCATES, prepare_keep_and_free_last, do_realloc, 2, 256},
        {"realloc", "scoped", 64, SHMA_SCOPED, 0, prepare_keep_and_free_last, do_realloc, 2, 320},
        {"realloc", "foreign", 64, 0, V_ALLOCATES | V_FOREIGN, prepare_warm_and_free_foreign, do_realloc, 1, 200},
        {"realloc", "small to large", 1024, 0, V_ALLOCATES | V_FIXED, prepare_keep_and_free_last, do_realloc, 1,
                KIB(300)},
        {"realloc", "large to small", KIB(300), 0, V_ALLOCATES | V_FIXED, prepare_keep_and_free_last, do_realloc, 1,
                64},
        {"realloc", "large to larger", KIB(300), 0, V_ALLOCATES | V_FIXED, prepare_keep_and_free_last, do_realloc, 1,
                KIB(600)},
        /* blocks that are spans */
        {"large alloc", "fresh", PAGES(40), 0, V_ALLOCATES, prepare_nothing, do_malloc, 0, 0},
        {"large alloc", "fresh, scoped", PAGES(40), SHMA_SCOPED, V_GRAB, prepare_nothing, do_malloc, 0, 0},
        {"large alloc", "lazy", PAGES(40), SHMA_LAZY, V_ALLOCATES, prepare_nothing, do_malloc, 0, 0},
        {"large alloc", "3 MiB, aligned", PAGES(400), 0, V_ALLOCATES, prepare_nothing, do_aligned, 0, PAGES(2)},
        {"large alloc", "cached, the shortest", 64, 0, V_ALLOCATES, prepare_cache_large, do_malloc, 0, PAGES(33)},
        {"large alloc", "cached, between two", 64, 0, V_ALLOCATES, prepare_cache_large, do_malloc, 0, PAGES(38)},
        {"large alloc", "cached, scoped", 64, SHMA_SCOPED, 0, prepare_cache_large, do_malloc, 0, PAGES(38)},
        {"large alloc", "none of the cached", 64, 0, V_ALLOCATES, prepare_cache_large, do_malloc, 0, PAGES(60)},
        {"large free", "into the cache", PAGES(40), 0, 0, prepare_fill_large, do_free, 2, 0},
        {"large free", "into the cache, scoped", PAGES(40), SHMA_SCOPED, 0, prepare_fill_large, do_free, 2, 0},
        {"large free", "the oldest must go", PAGES(50), 0, V_GRAB, prepare_fill_large, do_free, 3, 0},
        {"large free", "all of them must go", PAGES(100), SHMA_SCOPED, V_GRAB, prepare_fill_large, do_free, 2, 0},
        {"large free", "too long for the cache", PAGES(520), 0, V_GRAB, prepare_fill_large, do_free, 0, 0},
        {"large free", "lazy", PAGES(40), SHMA_LAZY, 0, prepare_fill_large, do_free, 0, 0},
        {"large free", "foreign", 64, 0, V_FOREIGN, prepare_name_large, do_free, 0, 0},
        {"large free", "foreign, scoped", 64, 0, V_FOREIGN | V_GRAB, prepare_name_large_scoped, do_free, 1, 0},
        {"large free", "nobody's", 64, 0, V_FOREIGN | V_CENTRAL, prepare_name_large_central, do_free, 1, 0},
        /* giving back */
        {"trim", "little", 64, 0, 0, prepare_nothing, do_trim, 1, 0},
        {"trim", "spans stay", 64, 0, V_FOREIGN | V_CENTRAL, prepare_live_a_little, do_trim, 3, 1},
        {"trim", "spans go", 64, 0, V_FOREIGN | V_CENTRAL | V_GRAB, prepare_live_and_free, do_trim, 3, 1},
        {"trim", "large blocks go", 64, 0, V_GRAB, prepare_keep_big, do_trim, 2, 0},
        {"thread exit", "little", 64, 0, 0, prepare_nothing, do_leave, 1, 0},
        {"thread exit", "spans stay", 64, 0, V_FOREIGN | V_CENTRAL, prepare_live_a_little, do_leave, 3, 1},
        {"thread exit", "spans go", 64, 0, V_FOREIGN | V_GRAB, prepare_live_and_free, do_leave, 3, 1},
        {"thread exit", "pthread_exit", 64, 0, V_FOREIGN | V_CENTRAL | V_ENDS, prepare_live_a_little, do_exit, 2, 1},
        {"thread exit", "pthread_exit, large", 64, 0, V_ENDS, prepare_keep_big, do_exit, 2, 1},
        {"attach", "attach", 64, 0, V_FRESH | V_FOREIGN, NULL, do_attach, 0, 0},
        {"attach", "detach", 64, 0, V_FOREIGN | V_CENTRAL, prepare_live_a_little, do_detach, 2, 1},
        {"attach", "detach, large blocks", 64, 0, 0, prepare_keep_big, do_detach, 1, 0},
        {"attach", "root set", 64, 0, 0, prepare_root_of_own, do_root, 1, 0},
        {"attach", "root deleted", 64, 0, 0, prepare_root_of_own, do_root, 1, 1},
};
const uint32_t n_variants = sizeof(variants) / sizeof(variants[0]);

/* What is left of our shared blocks must stay as it is. */
static void note_own(void)
{
	me.note->n_own = 0;
	for (uint32_t i = 0; i < me.n_blocks && me.note->n_own < WORLD_BLOCKS; i++) {
		shmi_sclass sclass = {shmi_load(
		        shmi_page_class_at(&me.heap->env.img, shmi_off_page((shmi_off){off_of(me.block[i])})))};

		if (!shmi_sclass_scoped(sclass))
			me.note->own[me.note->n_own++] = off_of(me.block[i]);
	}
}

void victim_main(struct note *shared, const struct variant *v)
{
	me.note = shared;
	(void)setenv("SHMALLOC_SOCKET", me.note->socket, 1);
	(void)unsetenv("SHMALLOC_HEAP");
	(void)setenv("SHMALLOC_HARDEN", v->about & V_HARDEN ? "1" : "0", 1);
	if (!(v->about & V_FRESH)) {
		me.heap = shma_attach(NULL);
		if (!me.heap)
			prepare_failed("attach");
		me.note->base = me.heap->env.base;
		v->prepare(v);
		note_own();
	}
	stepper_mark(MARK_BEGIN);
	v->run(v);
	stepper_mark(MARK_END);
}
