#include "tests/interleave/machine.h"

#include <stdlib.h>
#include <string.h>

#define REGIONS 400u
#define WATCHES 64u
#define JOIN 64 /* bytes between two regions */

struct region {
	unsigned char *at;
	size_t len;
	uint32_t owner;
	bool hashed;
	unsigned char *pristine;
};

struct watch {
	unsigned char *at, *pristine;
	size_t len;
};

struct states_seen *states_table;
uint64_t states_room, states_used;

static struct region regions[REGIONS];
static struct watch watches[WATCHES];
static uint32_t n_regions, n_watches;

void explore_reset(void)
{
	for (uint32_t i = 0; i < n_regions; i++)
		free(regions[i].pristine);
	for (uint32_t i = 0; i < n_watches; i++)
		free(watches[i].pristine);
	n_regions = n_watches = 0;
	memset(explore_actor, 0, sizeof(explore_actor));
}

void explore_region(void *at, size_t len, uint32_t owner, bool hashed)
{
	machine_must(n_regions < REGIONS, "too many regions");
	regions[n_regions++] = (struct region){.at = at, .len = len, .owner = owner, .hashed = hashed};
}

void explore_watch(void *at, size_t len)
{
	machine_must(n_watches < WATCHES, "too many watches");
	watches[n_watches++] = (struct watch){.at = at, .len = len};
}

static void *copy_of(const void *at, size_t len)
{
	void *copy = malloc(len);

	machine_must(copy != NULL, "no memory");
	return memcpy(copy, at, len);
}

static int by_address(const void *a, const void *b)
{
	const struct region *x = a, *y = b;

	return (x->at > y->at) - (x->at < y->at);
}

/* Regions that lie close together become one: what is between them does not change. */
static void join_regions(void)
{
	uint32_t n = 0;

	qsort(regions, n_regions, sizeof(regions[0]), by_address);
	for (uint32_t i = 1; i < n_regions; i++) {
		struct region *last = &regions[n], *next = &regions[i];
		unsigned char *end = next->at + next->len;

		if (next->at - (last->at + last->len) > JOIN || next->owner != last->owner ||
		        next->hashed != last->hashed)
			regions[++n] = *next;
		else if (end > last->at + last->len)
			last->len = (size_t)(end - last->at);
	}
	n_regions = n + 1;
}

static void keep_pristine(void)
{
	join_regions();
	for (uint32_t i = 0; i < n_regions; i++)
		regions[i].pristine = copy_of(regions[i].at, regions[i].len);
	for (uint32_t i = 0; i < n_watches; i++)
		watches[i].pristine = copy_of(watches[i].at, watches[i].len);
}

/* All watched bytes that lie in no region are as they were. */
void states_look(void)
{
	for (uint32_t w = 0; w < n_watches; w++) {
		unsigned char *at = watches[w].at, *end = at + watches[w].len;

		for (uint32_t i = 0; i <= n_regions; i++) {
			unsigned char *to = i < n_regions ? regions[i].at : end;

			if (to > end)
				to = end;
			if (to > at && memcmp(at, watches[w].pristine + (at - watches[w].at), (size_t)(to - at)) != 0)
				explore_fail("memory changed that is in no region: between %p and %p", (void *)at,
				        (void *)to);
			if (i < n_regions && regions[i].at + regions[i].len > at && regions[i].at < end)
				at = regions[i].at + regions[i].len;
		}
	}
}

size_t states_save(unsigned char *to)
{
	unsigned char *p = to;

	for (uint32_t i = 0; i < n_regions; p += regions[i++].len)
		memcpy(p, regions[i].at, regions[i].len);
	memcpy(p, explore_actor, sizeof(explore_actor));
	p += sizeof(explore_actor);
	for (uint32_t i = 0; i < machine_explore->actors; i++) {
		uint32_t sp = explore_actor[i].sp;

		if (!sp)
			continue;
		memcpy(p, machine_stack[i] + sp, STACK_BYTES - sp);
		p += STACK_BYTES - sp;
	}
	return (size_t)(p - to);
}

uint64_t explore_word(const volatile void *at, unsigned size)
{
	for (uint32_t i = 0; machine_active && i < machine_explore->actors; i++)
		for (uint32_t b = explore_actor[i].buffered; b-- > 0;)
			if (explore_actor[i].buffer[b].reserved &&
			        explore_actor[i].buffer[b].at == (uint64_t)(uintptr_t)at)
				return explore_actor[i].buffer[b].value;
	return explore_peek(at, size);
}

void states_restore(const unsigned char *p)
{
	for (uint32_t i = 0; i < n_regions; p += regions[i++].len)
		memcpy(regions[i].at, p, regions[i].len);
	memcpy(explore_actor, p, sizeof(explore_actor));
	p += sizeof(explore_actor);
	for (uint32_t i = 0; i < machine_explore->actors; i++) {
		uint32_t sp = explore_actor[i].sp;

		if (!sp)
			continue;
		memcpy(machine_stack[i] + sp, p, STACK_BYTES - sp);
		p += STACK_BYTES - sp;
	}
}

struct lanes {
	uint64_t h[4];
};

static uint64_t stir(uint64_t h, uint64_t v)
{
	h = (h ^ v) * 0x9fb21c651e98df25ull;
	return h ^ h >> 29;
}

static inline uint64_t fold(uint64_t h, uint64_t v)
{
	return ((h << 29 | h >> 35) ^ v) * 0x9fb21c651e98df25ull;
}

/* Four at a time: a multiplication takes four times as long as it takes until the next one can begin. */
static void mix(struct lanes *l, const void *at, size_t len)
{
	const unsigned char *p = at;
	uint64_t a = l->h[0], b = l->h[1], c = l->h[2], d = l->h[3], v[4];

	for (; len >= 32; len -= 32, p += 32) {
		memcpy(v, p, 32);
		a = fold(a, v[0]);
		b = fold(b, v[1]);
		c = fold(c, v[2]);
		d = fold(d, v[3]);
	}
	for (; len >= 8; len -= 8, p += 8) {
		memcpy(v, p, 8);
		a = fold(a, v[0]);
	}
	if (len) {
		v[0] = 0;
		memcpy(v, p, len);
		b = fold(b, v[0]);
	}
	*l = (struct lanes){{a, b, c, d}};
}

uint64_t states_key(void)
{
	struct lanes l = {{1, 2, 3, 4}};

	for (uint32_t i = 0; i < n_regions; i++)
		if (regions[i].hashed)
			mix(&l, regions[i].at, regions[i].len);
	mix(&l, explore_actor, machine_explore->actors * sizeof(explore_actor[0]));
	for (uint32_t i = 0; i < machine_explore->actors; i++)
		if (explore_actor[i].sp)
			mix(&l, machine_stack[i] + explore_actor[i].sp, STACK_BYTES - explore_actor[i].sp);
	uint64_t h = stir(stir(stir(l.h[0], l.h[1]), l.h[2]), l.h[3]);

	return h ? h : 1;
}

uint64_t states_find(uint64_t key)
{
	uint64_t at = key * 0xd6e8feb86659fd93ull >> 20 & (states_room - 1);

	while (states_table[at].key && states_table[at].key != key)
		at = (at + 1) & (states_room - 1);
	return at;
}

void states_grow(void)
{
	struct states_seen *old = states_table;
	uint64_t size = states_room;

	states_room = size ? size * 2 : 1 << 16;
	states_table = calloc(states_room, sizeof(*states_table));
	machine_must(states_table != NULL, "no memory for more states");
	for (uint64_t i = 0; i < size; i++)
		if (old[i].key)
			states_table[states_find(old[i].key)] = old[i];
	free(old);
}

void states_forget(uint32_t owner)
{
	for (uint32_t i = 0; i < n_regions; i++)
		if (regions[i].owner == owner)
			memcpy(regions[i].at, regions[i].pristine, regions[i].len);
}

void states_begin(void)
{
	free(states_table);
	states_table = NULL;
	states_room = states_used = 0;
	states_grow();
	keep_pristine();
}
