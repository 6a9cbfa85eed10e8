/* A million blocks of one size are made, and freed in the order in which they came, in reverse, or in any: what a program does that
 * builds something large and drops it. */
#include "tests/bench/micro/micro.h"

#include <stdio.h>
#include <sys/mman.h>

#define BURST 1000000u
#define BLOCK_BYTES 64u
#define ROUNDS 3

struct burst {
	void *block[BURST];
	uint32_t order[BURST]; /* in which they are freed */
};

enum order { IN_ORDER, REVERSE, RANDOM };
static const char *const names[] = {"inorder", "reverse", "random"};

static void set_order(struct burst *b, enum order order)
{
	uint64_t random = 7;

	for (uint32_t i = 0; i < BURST; i++)
		b->order[i] = order == REVERSE ? BURST - 1 - i : i;
	for (uint32_t i = BURST - 1; i > 0 && order == RANDOM; i--) {
		uint32_t j = (uint32_t)((next_random(&random) >> 32) % (i + 1)), at = b->order[i];

		b->order[i] = b->order[j];
		b->order[j] = at;
	}
}

/* Where the times of a round go: for the blocks that were made, and those that were freed. */
static void play(struct burst *b, double *made, double *freed)
{
	int64_t begin = now_ns();

	for (uint32_t i = 0; i < BURST; i++) {
		b->block[i] = heap_alloc(BLOCK_BYTES);
		touch(b->block[i]);
	}
	int64_t middle = now_ns();

	for (uint32_t i = 0; i < BURST; i++)
		heap_free(b->block[b->order[i]]);
	*made = (double)(middle - begin) / BURST;
	*freed = (double)(now_ns() - middle) / BURST;
}

static void say_burst(const char *order, const char *what, double *values)
{
	char name[48];

	snprintf(name, sizeof(name), "burst_%s%s", order, what);
	say(name, median(values, ROUNDS), "ns");
}

void row_burst(void)
{
	struct burst *b = pages_new(sizeof(*b));
	double made[ROUNDS], freed[ROUNDS], both[ROUNDS];

	set_order(b, IN_ORDER);
	play(b, made, freed); /* the memory is not new any more */
	for (enum order order = IN_ORDER; order <= RANDOM; order++) {
		set_order(b, order);
		for (int i = 0; i < ROUNDS; i++) {
			play(b, &made[i], &freed[i]);
			both[i] = made[i] + freed[i];
		}
		say_burst(names[order], "", both);
		say_burst(names[order], "_malloc", made);
		say_burst(names[order], "_free", freed);
	}
	munmap(b, sizeof(*b));
}
