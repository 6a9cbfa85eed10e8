/* The scenarios, and what their actors do. Actor 0 is the daemon; the span on page 1 belongs to actor 1's client at the start.
 *
 * SHMALLOC_SOAK=1 adds the larger ones. An argument, or INTERLEAVE in the environment, picks the one of
 * that name, or those whose names contain it.
 * Everything is tried, so there is no seed. */
#include "tests/interleave/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HOLDER 1u
#define PUTTER 2u
#define SECOND 3u

/* ---- preparation ---- */

/* All slots of page 1 are out; block n is with actor `who[n]`. */
static void spread(const uint32_t *who, uint32_t n)
{
	world_as(HOLDER);
	for (uint32_t i = 0; i < n; i++)
		world.block[i] = world_malloc();
	for (uint32_t i = 0; i < n; i++)
		world_give(world.block[i], who[i]);
}

static void one_each(void)
{
	spread((const uint32_t[]){PUTTER, SECOND, HOLDER, HOLDER}, 4);
}

static void rest_immortal(void)
{
	spread((const uint32_t[]){PUTTER, SECOND, IMMORTAL, IMMORTAL}, 4);
}

static void rest_with_putter(void)
{
	spread((const uint32_t[]){PUTTER, PUTTER, PUTTER, HOLDER}, 4);
}

/* Block 0 is the putter's; the others are free. */
static void one_out(void)
{
	one_each();
	world_as(HOLDER);
	world_give(world.block[1], HOLDER);
	for (uint32_t i = 1; i < 4; i++) {
		world_free(world.block[i]);
		world.block[i] = 0;
	}
	world_flush();
}

/* Three of the four blocks are the putter's: the last two freed are of one word. */
static void three_of_two_words(void)
{
	rest_with_putter();
}

/* All slots of page 1 are free. */
static void all_free(void)
{
	spread((const uint32_t[]){HOLDER, HOLDER, HOLDER, HOLDER}, 4);
	for (uint32_t i = 0; i < 4; i++) {
		world_free(world.block[i]);
		world.block[i] = 0;
	}
	world_flush();
}

/* Nothing has been taken from page 1 yet. */
static void untouched(void)
{
}

/* Nobody holds page 1; blocks 0 and 1 are the putters', the others stay out for ever. */
static void central_full(void)
{
	rest_immortal();
	world_let_go();
}

/* The same, and the others are free. */
static void central_two(void)
{
	one_each();
	world_as(HOLDER);
	for (uint32_t i = 2; i < 4; i++) {
		world_free(world.block[i]);
		world.block[i] = 0;
	}
	world_flush();
	world_let_go();
}

/* ---- bodies ---- */

/* The first block that was given to this actor, and so on. */
static uint64_t own(uint32_t n)
{
	for (uint32_t i = 0; i < BLOCKS; i++) {
		uint64_t off = world.block[i];

		if (off && world_owner(off) == explore_self() && !n--)
			return off;
	}
	return 0;
}

static void put_one(void)
{
	world_free(own(0));
	world_flush();
	world_send();
}

static void put_two(void)
{
	uint64_t a = own(0), b = own(1);

	world_free(a);
	world_free(b);
	world_flush();
	world_send();
}

static void put_three(void)
{
	uint64_t a = own(0), b = own(1), c = own(2);

	world_free(a);
	world_free(b);
	world_free(c);
	world_put(2);
	world_send();
}

static void take_one(void)
{
	(void)world_malloc();
}

static void take_two(void)
{
	(void)world_malloc();
	(void)world_malloc();
}

static void take_and_put(void)
{
	uint64_t a = world_malloc(), b = world_malloc();

	world_free(a);
	world_free(b);
	world_flush();
	world_send();
}

static void detach(void)
{
	world_detach();
}

static void nothing(void)
{
}

static void trim(void)
{
	world_trim();
}

/* Keeps what it gets, and hears at its next slow path what has been taken from it. */
static void take_keep_trim(void)
{
	uint64_t a = world_malloc(), b = world_malloc();

	(void)a;
	world_free(b);
	world_trim();
	(void)world_malloc();
}

static void take_four(void)
{
	for (uint32_t i = 0; i < 4; i++)
		(void)world_malloc();
}

/* Asks nobody: there are slots. */
static void put_two_take_one(void)
{
	put_two();
	(void)world_malloc();
}

/* Keeps the block that the putter had, if it comes by it, and nothing else. */
static void keep_and_detach(void)
{
	uint64_t off[4];

	for (uint32_t i = 0; i < 4; i++)
		off[i] = world_malloc();
	for (uint32_t i = 0; i < 4; i++)
		if (off[i] != world.block[0])
			world_free(off[i]);
	world_detach();
}

static void take_trim_detach(void)
{
	uint64_t a = world_malloc(), b = world_malloc();

	world_free(a);
	world_free(b);
	world_detach();
}

/* ---- the table ---- */

#define CLIENT(n) (1u << (n))
#define HOLDER_DIES CLIENT(0)
#define PUTTER_DIES CLIENT(1)
#define SECOND_DIES CLIENT(2)
#define NEXT_DIES CLIENT(3)
#define FOUR .size = 2048, .track = {0, 1, 2, 3}, .limit = 4 /* a span of four slots */
#define WORDS                                                                                                          \
	.size = 112, .track = {0, 1, 64, 65},                                                                          \
	.limit = 4 /* four slots of two bitmap words; the others stay with somebody */
#define THREE .actors = 3, .client = {NO_CLIENT, 0, 1} /* with the daemon: a holder and a putter */
#define USUAL                                                                                                          \
	.actors = 4, .client = {NO_CLIENT, 0, 1, 2} /* a holder and two putters, or a putter and the next holder */
#define FIVE .actors = 5, .client = {NO_CLIENT, 0, 1, 2, 3} /* a holder, two putters, the next holder */

static const struct scenario scenarios[] = {
        {.name = "detach-one",
                .what = "the holder goes in peace while one puts: P2",
                .model = EXPLORE_WEAK,
                FOUR,
                THREE,
                .blind = true,
                .prepare = rest_immortal,
                .body = {NULL, detach, put_one}},
        {.name = "detach-one-x86",
                .what = "the same with the store buffers of x86-64",
                .model = EXPLORE_TSO,
                FOUR,
                THREE,
                .blind = true,
                .prepare = rest_immortal,
                .body = {NULL, detach, put_one}},
        {.name = "detach-put",
                .what = "the holder goes in peace while two put: P2",
                .model = EXPLORE_WEAK,
                FOUR,
                USUAL,
                .blind = true,
                .prepare = rest_immortal,
                .body = {NULL, detach, put_one, put_one}},
        {.name = "last-two",
                .what = "the last two blocks of a span that nobody holds are put: it is closed, once",
                .model = EXPLORE_WEAK,
                FOUR,
                USUAL,
                .prepare = central_two,
                .empty = true,
                .body = {NULL, nothing, put_one, put_one}},
        {.name = "next-dies",
                .what = "the holder dies, then the next holder dies, one puts",
                .model = EXPLORE_SC,
                FOUR,
                USUAL,
                .kills = 2,
                .may_die = HOLDER_DIES | SECOND_DIES,
                .prepare = rest_with_putter,
                .body = {NULL, nothing, put_two, take_and_put}},
        {.name = "reopened",
                .what = "the span is given back empty and opened anew while a putter that made it so is in the middle, "
                        "or dies there",
                .model = EXPLORE_WEAK,
                FOUR,
                USUAL,
                .kills = 1,
                .may_die = PUTTER_DIES,
                .prepare = one_out,
                .body = {NULL, trim, put_one, take_four}},
        {.name = "written-off",
                .what = "a putter dies in the middle, the holder takes the slots again, frees them and goes",
                .model = EXPLORE_SC,
                FOUR,
                THREE,
                .kills = 1,
                .may_die = PUTTER_DIES,
                .prepare = rest_with_putter,
                .body = {NULL, take_trim_detach, put_three}},
        {.name = "doubt-kept",
                .what = "a putter dies in the middle, the holder takes that slot again, keeps the block and goes",
                .model = EXPLORE_SC,
                FOUR,
                THREE,
                .kills = 1,
                .may_die = PUTTER_DIES,
                .prepare = one_out,
                .body = {NULL, keep_and_detach, put_one}},
        {.name = "threads",
                .what = "a process of two threads dies, one holds the span and both free into it; the next holder "
                        "takes",
                .model = EXPLORE_SC,
                FOUR,
                .actors = 4,
                .client = {NO_CLIENT, 0, 0, 1},
                .kills = 1,
                .may_die = CLIENT(0),
                .wide = true,
                .prepare = one_each,
                .body = {NULL, take_one, put_one, take_two}},
        {.name = "scoped",
                .what = "another process frees into a scoped span whose client dies",
                .model = EXPLORE_TSO,
                FOUR,
                .attrs = SHMI_SCOPED,
                USUAL,
                .kills = 1,
                .may_die = HOLDER_DIES,
                .prepare = one_each,
                .body = {NULL, put_two_take_one, put_one, put_one}},
        {.name = "two-words",
                .what = "a put of two bitmap words is cut short, with entries left in the magazine; the daemon dies in "
                        "the reclaim",
                .model = EXPLORE_SC,
                WORDS,
                THREE,
                .kills = 1,
                .daemon_kills = 1,
                .may_die = PUTTER_DIES,
                .prepare = three_of_two_words,
                .body = {NULL, take_two, put_three}},
        {.name = "reclaim-cut-put",
                .what = "a putter dies with blocks of others' in magazine and spill, and the daemon while it reclaims; "
                        "the holder takes",
                .model = EXPLORE_SC,
                FOUR,
                THREE,
                .kills = 1,
                .daemon_kills = 1,
                .may_die = PUTTER_DIES,
                .turns = true,
                .prepare = rest_with_putter,
                .body = {NULL, take_two, put_three}},
        {.name = "reclaim-cut",
                .what = "the holder dies, and the daemon while it reclaims; one puts, the next holder takes",
                .model = EXPLORE_SC,
                FOUR,
                USUAL,
                .kills = 1,
                .daemon_kills = 1,
                .may_die = HOLDER_DIES,
                .turns = true,
                .prepare = rest_with_putter,
                .body = {NULL, take_and_put, put_two, take_two}},
        {.name = "report",
                .what = "two put into a span that nobody holds, the next holder asks; a putter dies",
                .model = EXPLORE_WEAK,
                FOUR,
                FIVE,
                .kills = 1,
                .may_die = PUTTER_DIES,
                .prepare = central_full,
                .body = {NULL, nothing, put_one, put_one, take_two}},
        {.name = "put-take",
                .what = "two puts, the holder takes and puts; one of the three dies",
                .model = EXPLORE_WEAK,
                FOUR,
                USUAL,
                .kills = 1,
                .may_die = HOLDER_DIES | PUTTER_DIES | SECOND_DIES,
                .prepare = one_each,
                .body = {NULL, take_and_put, put_one, put_one}},
        {.name = "hand-over-two",
                .what = "holder and putter die, the next holder takes",
                .model = EXPLORE_SC,
                FOUR,
                USUAL,
                .kills = 2,
                .may_die = HOLDER_DIES | PUTTER_DIES,
                .prepare = rest_with_putter,
                .body = {NULL, take_one, put_two, take_two}},
        {.name = "putters-die",
                .what = "both putters die, the holder takes",
                .model = EXPLORE_SC,
                FOUR,
                USUAL,
                .kills = 2,
                .may_die = PUTTER_DIES | SECOND_DIES,
                .prepare = one_each,
                .body = {NULL, take_and_put, put_one, put_one}},
        {.name = "hand-over",
                .what = "the holder dies, two put, the next holder takes",
                .model = EXPLORE_TSO,
                FOUR,
                FIVE,
                .kills = 1,
                .may_die = HOLDER_DIES,
                .prepare = one_each,
                .body = {NULL, take_one, put_one, put_one, take_two}},
        {.name = "seize-take",
                .what = "the daemon takes the span from its holder, who takes and puts; the daemon dies",
                .model = EXPLORE_WEAK,
                FOUR,
                .actors = 2,
                .client = {NO_CLIENT, 0},
                .pages = 1,
                .seizes = 2,
                .daemon_kills = 2,
                .prepare = all_free,
                .body = {NULL, take_keep_trim}},
        {.name = "seize-dies",
                .what = "the same, and the holder dies",
                .model = EXPLORE_SC,
                FOUR,
                .actors = 2,
                .client = {NO_CLIENT, 0},
                .pages = 1,
                .seizes = 2,
                .daemon_kills = 1,
                .kills = 1,
                .may_die = HOLDER_DIES,
                .prepare = all_free,
                .body = {NULL, take_keep_trim}},
        {.name = "seize-put",
                .what = "the daemon takes the span while another puts the last block of it, and the holder takes",
                .model = EXPLORE_WEAK,
                FOUR,
                THREE,
                .pages = 1,
                .seizes = 2,
                .daemon_kills = 1,
                .prepare = one_out,
                .body = {NULL, take_two, put_one}},
        {.name = "seize-put-dies",
                .what = "the same, and the putter dies",
                .model = EXPLORE_SC,
                FOUR,
                THREE,
                .pages = 1,
                .seizes = 2,
                .daemon_kills = 1,
                .kills = 1,
                .may_die = PUTTER_DIES,
                .prepare = one_out,
                .body = {NULL, take_two, put_one}},
        {.name = "seize-words",
                .what = "the daemon takes a span of two words while the holder takes from the one or the other; it "
                        "dies",
                .model = EXPLORE_SC,
                .size = 112,
                .track = {0, 1, 2, 3, 64, 65, 66, 67},
                .limit = 4,
                .actors = 2,
                .client = {NO_CLIENT, 0},
                .pages = 1,
                .spare = true,
                .seizes = 2,
                .daemon_kills = 1,
                .prepare = untouched,
                .body = {NULL, take_four}},
        /* larger ones */
        {.name = "seize-words-weak",
                .what = "the same, and it dies twice",
                .model = EXPLORE_WEAK,
                .size = 112,
                .track = {0, 1, 2, 3, 64, 65, 66, 67},
                .limit = 4,
                .actors = 2,
                .client = {NO_CLIENT, 0},
                .pages = 1,
                .spare = true,
                .soak = true,
                .seizes = 2,
                .daemon_kills = 2,
                .prepare = untouched,
                .body = {NULL, take_four}},
        {.name = "hand-over-weak",
                .what = "the holder or a putter dies, two put, the next holder takes",
                .model = EXPLORE_WEAK,
                FOUR,
                FIVE,
                .kills = 1,
                .may_die = HOLDER_DIES | PUTTER_DIES,
                .soak = true,
                .prepare = one_each,
                .body = {NULL, take_one, put_one, put_one, take_two}},
        {.name = "hand-over-all",
                .what = "two of holder, putter and next holder die, and the daemon once",
                .model = EXPLORE_SC,
                FOUR,
                USUAL,
                .kills = 2,
                .daemon_kills = 1,
                .may_die = HOLDER_DIES | PUTTER_DIES | SECOND_DIES,
                .soak = true,
                .prepare = rest_with_putter,
                .body = {NULL, take_one, put_two, take_two}},
        {.name = "reclaim-cut-twice",
                .what = "the holder dies, and the daemon twice while it reclaims; one puts, the next holder takes",
                .model = EXPLORE_SC,
                FOUR,
                USUAL,
                .kills = 1,
                .daemon_kills = 2,
                .may_die = HOLDER_DIES,
                .turns = true,
                .soak = true,
                .prepare = rest_with_putter,
                .body = {NULL, take_and_put, put_two, take_two}},
        {.name = "put-cut-thrice",
                .what = "a putter of others' blocks dies, and the daemon three times while it reclaims; the holder "
                        "takes and puts",
                .model = EXPLORE_SC,
                FOUR,
                THREE,
                .kills = 1,
                .daemon_kills = 3,
                .may_die = PUTTER_DIES,
                .turns = true,
                .soak = true,
                .prepare = rest_with_putter,
                .body = {NULL, take_and_put, put_three}},
        {.name = "put-take-tso",
                .what = "two puts, the holder takes and puts; two of the three die",
                .model = EXPLORE_TSO,
                FOUR,
                USUAL,
                .kills = 2,
                .may_die = HOLDER_DIES | PUTTER_DIES | SECOND_DIES,
                .soak = true,
                .prepare = one_each,
                .body = {NULL, take_and_put, put_one, put_one}},
        {.name = "two-words-twice",
                .what = "a put of two bitmap words is cut short, with entries left in the magazine; the daemon dies "
                        "twice in the reclaim",
                .model = EXPLORE_SC,
                WORDS,
                THREE,
                .kills = 1,
                .daemon_kills = 2,
                .may_die = PUTTER_DIES,
                .soak = true,
                .prepare = three_of_two_words,
                .body = {NULL, take_two, put_three}},
        {.name = "two-words-all",
                .what = "a put of two bitmap words is cut short, the holder dies as well, and the daemon; the next "
                        "holder takes",
                .model = EXPLORE_SC,
                WORDS,
                USUAL,
                .kills = 2,
                .daemon_kills = 1,
                .may_die = HOLDER_DIES | PUTTER_DIES,
                .soak = true,
                .prepare = three_of_two_words,
                .body = {NULL, take_two, put_three, take_two}},
};

/* ---- running ---- */

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static bool is_name(const char *only)
{
	for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++)
		if (strcmp(scenarios[i].name, only) == 0)
			return true;
	return false;
}

static bool wanted(const struct scenario *s, const char *only)
{
	const char *soak = getenv("SHMALLOC_SOAK");

	if (!only || !*only)
		return !s->soak || (soak && *soak);
	return is_name(only) ? strcmp(s->name, only) == 0 : strstr(s->name, only) != NULL;
}

static bool run(const struct scenario *s)
{
	static const char *const models[] = {"sc", "tso", "weak"};
	struct explore_result r;
	double from = now();

	fflush(stdout);
	world_run(s, &r);
	printf("%-17s %-5s %6u %10llu %10llu %8llu %8llu %10.3g %6.1f  %s%s\n", s->name, models[s->model],
	        s->actors - 1, (unsigned long long)r.states, (unsigned long long)r.steps, (unsigned long long)r.ends,
	        (unsigned long long)(r.kills + r.daemon_kills), r.schedules, now() - from, r.failed ? "FAILED: " : "",
	        s->what);
	return !r.failed;
}

int main(int argc, char **argv)
{
	const char *only = argc > 1 ? argv[1] : getenv("INTERLEAVE");
	uint32_t failed = 0, ran = 0;

#ifndef __x86_64__
	fprintf(stderr, "skipped: the explorer's coroutines know x86-64 only\n");
	return 77;
#endif
	printf("%-17s %-5s %6s %10s %10s %8s %8s %10s %6s\n", "scenario", "model", "actors", "states", "steps", "ends",
	        "deaths", "schedules", "s");
	for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
		if (!wanted(&scenarios[i], only))
			continue;
		ran++;
		failed += !run(&scenarios[i]);
	}
	printf("interleave: scenarios %u, violations %u\n", ran, failed);
	return failed != 0 || !ran;
}
