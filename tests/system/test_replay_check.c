/* What the replay's -c must find, it finds: the other suites rely on it. */
#include <criterion/criterion.h>
#include <string.h>

#include "tests/bench/replay/check.h"

#define SIZE 100

static const struct event events[] = {
        {.op = OP_MALLOC, .id = 0, .size = SIZE},
        {.op = OP_CALLOC, .id = 1, .size = SIZE},
        {.op = OP_MEMALIGN, .id = 0, .size = SIZE, .lg_align = 6},
        {.op = OP_REALLOC, .id = 0, .size = SIZE / 2 + 1},
        {.op = OP_REALLOC, .id = 0, .size = SIZE + 60},
        {.op = OP_FREE, .id = 0},
};

enum { AT_MALLOC, AT_CALLOC, AT_ALIGNED, AT_SHRINK, AT_GROW, AT_FREE };

static _Alignas(4096) unsigned char block[4096], other[4096];
static uint64_t size[2];
static uint32_t generation[2];
static struct outcome out;
static const struct trace trace = {.name = "test", .event = events, .events = 6, .ids = 2};
static struct player player = {.trace = &trace, .out = &out, .size = size, .generation = generation};

Test(replay_check, nothing_wrong)
{
	check_new(&player, AT_MALLOC, block, SIZE);
	check_before_realloc(&player, AT_SHRINK, block);
	memcpy(other, block, SIZE);
	check_after_realloc(&player, AT_SHRINK, other, SIZE);
	check_before_realloc(&player, AT_GROW, other);
	check_after_realloc(&player, AT_GROW, other, SIZE + 60);
	check_old(&player, AT_FREE, other);
	check_new(&player, AT_CALLOC, block + 2048, SIZE);
	check_new(&player, AT_ALIGNED, block, SIZE + 5);
	check_old(&player, AT_FREE, block);
	cr_expect_eq(out.errors, 0);
}

Test(replay_check, any_byte_that_changed)
{
	for (unsigned at = 0; at < SIZE; at++) {
		check_new(&player, AT_MALLOC, block, SIZE);
		block[at] ^= 1;
		check_old(&player, AT_FREE, block);
		cr_expect_eq(out.errors, at + 1);
	}
	check_new(&player, AT_MALLOC, block, SIZE);
	block[SIZE] ^= 1; /* behind the block: not ours */
	check_old(&player, AT_FREE, block);
	cr_expect_eq(out.errors, SIZE);
}

Test(replay_check, a_stale_or_shared_or_shifted_block)
{
	check_new(&player, AT_MALLOC, block, SIZE);
	memcpy(other, block, SIZE);
	check_new(&player, AT_MALLOC, block, SIZE);
	check_old(&player, AT_FREE, other);
	cr_expect_eq(out.errors, 1, "the id's last object");
	memmove(other + 16, block, SIZE - 16);
	memcpy(other, block, 16);
	check_old(&player, AT_FREE, other);
	cr_expect_eq(out.errors, 2, "shifted");
	memset(block, 0, SIZE);
	check_new(&player, AT_CALLOC, block, SIZE);
	check_old(&player, AT_FREE, block);
	cr_expect_eq(out.errors, 3, "another id's object");
}

Test(replay_check, what_a_realloc_lost)
{
	check_new(&player, AT_MALLOC, block, SIZE);
	block[SIZE - 1] ^= 1;
	check_before_realloc(&player, AT_SHRINK, block);
	cr_expect_eq(out.errors, 1, "in the part that is cut off");
	block[SIZE / 2] ^= 1;
	check_after_realloc(&player, AT_SHRINK, block, SIZE);
	cr_expect_eq(out.errors, 2, "in the part that is kept");
	check_after_realloc(&player, AT_GROW, NULL, 0);
	cr_expect_eq(out.errors, 3, "failed");
}

Test(replay_check, shape_and_zeros)
{
	check_new(&player, AT_MALLOC, block + 8, SIZE);
	cr_expect_eq(out.errors, 1, "alignment of malloc");
	check_new(&player, AT_ALIGNED, block + 32, SIZE);
	cr_expect_eq(out.errors, 2, "alignment of memalign");
	check_new(&player, AT_MALLOC, block, SIZE - 1);
	cr_expect_eq(out.errors, 3, "usable size");
	memset(block, 0, SIZE);
	block[SIZE - 1] = 1;
	check_new(&player, AT_CALLOC, block, SIZE);
	cr_expect_eq(out.errors, 4, "calloc");
	check_new(&player, AT_MALLOC, NULL, 0);
	cr_expect_eq(out.errors, 5, "no memory");
}
