/* Ways to prepare a victim: what it holds, caches and has given away when its operation begins.
 *
 * The blocks that stay allocated are in me.block; each bears a pattern. The block that the operation will free is in
 * me.note->old. A preparation goes through the public functions; where a magazine must be full or empty it looks at the cache
 * from the inside.
 */
#ifndef TESTS_STRESS_STEPPING_PREPARE_H
#define TESTS_STRESS_STEPPING_PREPARE_H

#include "client/heap.h"
#include "tests/stress/stepping/victim.h"

#define PREPARE_BLOCKS 4096u
#define KIB(n) ((n)*1024u)
#define PAGES(n) ((uint32_t)((n)*SHMI_PAGE_SIZE))

/* The victim. */
struct me {
	struct note *note;
	struct shma_heap *heap;
	void *block[PREPARE_BLOCKS]; /* what it has allocated */
	uint32_t n_blocks;
};

extern struct me me;

static inline uint64_t off_of(const void *p)
{
	return (uint64_t)(uintptr_t)p - me.heap->env.base;
}

static inline void *at(uint64_t off)
{
	return (void *)(uintptr_t)(me.heap->env.base + off);
}

static inline void *alloc(const struct variant *v, uint32_t size)
{
	return v->flags ? shma_heap_alloc(me.heap, size, 0, v->flags) : shma_malloc(size);
}

/* The variant cannot be prepared, or its operation has failed. */
_Noreturn void prepare_failed(const char *what);

void prepare_keep_all(const struct variant *v);
void prepare_drain(const struct variant *v);
void prepare_warm_other(const struct variant *v);
void prepare_use_up(const struct variant *v);
void prepare_make_holes(const struct variant *v);
void prepare_others_free(const struct variant *v);
void prepare_leave_to_pool(const struct variant *v);
void prepare_fill_grown(const struct variant *v);
void prepare_fill_own(const struct variant *v);
void prepare_fill_foreign(const struct variant *v);
void prepare_fill_central(const struct variant *v);
void prepare_fill_mixed(const struct variant *v);
void prepare_keep_and_free_last(const struct variant *v);
void prepare_warm_and_free_foreign(const struct variant *v);
void prepare_warm_and_free_central(const struct variant *v);
void prepare_warm_and_free_scoped(const struct variant *v);
void prepare_live_a_little(const struct variant *v);
void prepare_live_and_free(const struct variant *v);
void prepare_keep_big(const struct variant *v);
void prepare_cache_large(const struct variant *v);
void prepare_fill_large(const struct variant *v);
void prepare_name_large(const struct variant *v);
void prepare_name_large_scoped(const struct variant *v);
void prepare_name_large_central(const struct variant *v);
void prepare_root_of_own(const struct variant *v);
void prepare_exhaust(const struct variant *v);
void prepare_nothing(const struct variant *v);

#endif
