#include "tests/bench/replay/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SHOWN 10 /* findings that are printed; the others are counted */

static uint64_t pattern_key(const struct player *p, uint32_t id)
{
	return (id + 1) * 0x9e3779b97f4a7c15ull ^ p->generation[id] * 0xc2b2ae3d27d4eb4full ^ (uint64_t)p->salt << 56;
}

/* The byte at `at` is byte at % 8 of the word key + at / 8. */
static unsigned char pattern_byte(uint64_t key, uint64_t at)
{
	return (unsigned char)((key + at / 8) >> at % 8 * 8);
}

static void fill(unsigned char *block, uint64_t from, uint64_t to, uint64_t key)
{
	for (; from < to && from % 8; from++)
		block[from] = pattern_byte(key, from);
	for (; from + 8 <= to; from += 8) {
		uint64_t word = key + from / 8;

		memcpy(block + from, &word, 8);
	}
	for (; from < to; from++)
		block[from] = pattern_byte(key, from);
}

/* The first byte that is not as filled, or `to`. */
static uint64_t first_wrong(const unsigned char *block, uint64_t from, uint64_t to, uint64_t key)
{
	for (; from < to && from % 8; from++)
		if (block[from] != pattern_byte(key, from))
			return from;
	for (; from + 8 <= to; from += 8) {
		uint64_t word;

		memcpy(&word, block + from, 8);
		if (word != key + from / 8)
			break;
	}
	for (; from < to; from++)
		if (block[from] != pattern_byte(key, from))
			return from;
	return to;
}

static bool all_zero(const unsigned char *block, uint64_t size)
{
	return size == 0 || (block[0] == 0 && memcmp(block, block + 1, size - 1) == 0);
}

__attribute__((format(printf, 3, 4))) static void finding(struct player *p, uint64_t at, const char *format, ...)
{
	const struct event *e = &p->trace->event[at];
	char text[160];
	va_list args;

	if (p->out->errors++ >= SHOWN)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fprintf(stderr, "replay: %s: player %u, event %llu (op %u, id %u, size %llu): %s\n", p->trace->name, p->index,
	        (unsigned long long)at, e->op, e->id, (unsigned long long)e->size, text);
}

static void check_bytes(struct player *p, uint64_t at, const void *block, uint64_t from, uint64_t to)
{
	uint64_t wrong = first_wrong(block, from, to, pattern_key(p, p->trace->event[at].id));

	if (wrong < to)
		finding(p, at, "byte %llu of %llu at %p is %#x and not what was written", (unsigned long long)wrong,
		        (unsigned long long)to, block, ((const unsigned char *)block)[wrong]);
}

static void check_shape(struct player *p, uint64_t at, const void *block, size_t usable)
{
	const struct event *e = &p->trace->event[at];
	uint64_t align = e->op == OP_MEMALIGN ? 1ull << e->lg_align : 16;

	if ((uintptr_t)block % align)
		finding(p, at, "%p is not aligned to %llu", block, (unsigned long long)align);
	if (usable < e->size)
		finding(p, at, "usable size %zu", usable);
}

void check_new(struct player *p, uint64_t at, void *block, size_t usable)
{
	const struct event *e = &p->trace->event[at];

	p->generation[e->id]++;
	p->size[e->id] = block ? e->size : 0;
	if (!block) {
		if (e->size)
			finding(p, at, "no memory: %s", strerror(errno));
		return;
	}
	check_shape(p, at, block, usable);
	if (e->op == OP_CALLOC && !all_zero(block, e->size))
		finding(p, at, "calloc: %p is not zero", block);
	fill(block, 0, e->size, pattern_key(p, e->id));
}

void check_old(struct player *p, uint64_t at, const void *block)
{
	if (block)
		check_bytes(p, at, block, 0, p->size[p->trace->event[at].id]);
}

void check_before_realloc(struct player *p, uint64_t at, const void *block)
{
	const struct event *e = &p->trace->event[at];

	if (block && e->size < p->size[e->id])
		check_bytes(p, at, block, e->size, p->size[e->id]);
}

void check_after_realloc(struct player *p, uint64_t at, void *block, size_t usable)
{
	const struct event *e = &p->trace->event[at];
	uint64_t old = p->size[e->id];

	if (!block) {
		finding(p, at, "realloc: %s", strerror(errno));
		return;
	}
	check_shape(p, at, block, usable);
	check_bytes(p, at, block, 0, old < e->size ? old : e->size);
	fill(block, old, e->size, pattern_key(p, e->id));
	p->size[e->id] = e->size;
}
