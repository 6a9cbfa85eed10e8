/* The daemon is killed at every store of a reclaim, and the next one at a random store of its own, and so on; before each of
 * them a living holder takes all that has been put into its spans. No slot is lost but those that are written off, none is put
 * back twice. Each instruction of the real reclaim is stepped over with the processor's trap flag. */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include "shm/reclaim.h"
#include "tests/lib/image.h"
#include "tests/lib/random.h"

TestSuite(reclaim, .timeout = 3600); /* the larger counts of a soak */

#define PAGES 9000u
#define OWN 2u /* spans 0 and 1 are the dead client's, the others a living one's */
#define SPANS 4u
#define WORDS 8u
#define REGIONS (4u + 2 * SPANS)
#define MOST_STATES 4000u

struct scene {
	struct test_image *t;
	struct shmi_threadrec *rec, *copy;
	struct shmi_magazine *mag;
	shmi_sclass sclass;
	struct shmi_write_off note;
	shmi_page page[SPANS];
	uint64_t cached[SPANS][WORDS]; /* what the dead thread had */
	uint64_t taken[SPANS][WORDS]; /* what the living holder has taken since */
	struct {
		void *at;
		size_t bytes;
	} region[REGIONS]; /* all that a reclaim writes */
	size_t bytes;
	uint32_t seldom; /* one daemon in so many has a successor that is killed as well */
	uint32_t doubts; /* deaths that may have left a word in doubt */
};

/* What one daemon would leave, for each store that it can be killed after. */
struct states {
	const struct scene *scene;
	uint32_t n;
	unsigned char *v[MOST_STATES];
};

static struct states *stepped;
static volatile sig_atomic_t stepping;

/* ---- memory as a death leaves it ---- */

static void save(const struct scene *s, unsigned char *to)
{
	for (uint32_t i = 0; i < REGIONS; to += s->region[i++].bytes)
		memcpy(to, s->region[i].at, s->region[i].bytes);
}

static void restore(const struct scene *s, const unsigned char *from)
{
	for (uint32_t i = 0; i < REGIONS; from += s->region[i++].bytes)
		memcpy(s->region[i].at, from, s->region[i].bytes);
}

static bool changed(const struct scene *s, const unsigned char *from)
{
	for (uint32_t i = 0; i < REGIONS; from += s->region[i++].bytes)
		if (memcmp(s->region[i].at, from, s->region[i].bytes) != 0)
			return true;
	return false;
}

static void note_state(struct states *states)
{
	if (!states->n || (states->n < MOST_STATES && changed(states->scene, states->v[states->n - 1])))
		save(states->scene, states->v[states->n++]);
}

static void on_trap(int signo, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)signo;
	(void)info;
	note_state(stepped);
#ifdef __x86_64__
	if (stepping)
		uc->uc_mcontext.gregs[REG_EFL] |= 0x100;
	else
		uc->uc_mcontext.gregs[REG_EFL] &= ~0x100;
#else
	(void)uc;
#endif
}

/* ---- one daemon ---- */

static void step_from_here(struct states *states)
{
	stepped = states;
	stepping = states != NULL;
	if (states)
		(void)raise(SIGTRAP); /* the handler sets the flag */
}

/* `states`: what it leaves after each store; NULL: nobody wants to know. */
static void reclaim(struct scene *s, struct states *states)
{
	struct shmi_reclaim r;

	if (states)
		states->n = 0;
	step_from_here(states);
	shmi_reclaim_redo(&s->t->img, &s->note);
	stepping = 0;
	memcpy(s->copy, s->rec,
	        SHMI_THREAD_HEAD_BYTES + s->t->img.geo.part_bytes); /* not stepped over: it stores nothing that lasts */
	step_from_here(states);
	shmi_reclaim_init(&r, 1, 1, 1);
	r.write_off = &s->note;
	while (!shmi_reclaim_step(&s->t->img, &r, s->copy, 10)) {
	}
	stepping = 0;
}

static shmi_a64 *word_at(const struct scene *s, uint32_t span, uint32_t word)
{
	return &shmi_bitmap_at(&s->t->img, s->page[span])[word];
}

static void holder_takes_all(struct scene *s)
{
	for (uint32_t i = OWN; i < SPANS; i++)
		for (uint32_t w = 0; w < WORDS; w++)
			s->taken[i][w] |= shmi_slots_take(word_at(s, i, w), 0, ~0ull);
}

static uint32_t written_off(const struct scene *s)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < SPANS; i++)
		n += shmi_span_at(&s->t->img, s->page[i])->written_off;
	return n;
}

/* After the last reclaim: where is each slot that the dead thread had? */
static void account(const struct scene *s)
{
	uint32_t lost = 0;

	for (uint32_t i = 0; i < SPANS; i++)
		for (uint32_t w = 0; w < WORDS; w++) {
			uint64_t set = shmi_load(word_at(s, i, w));

			cr_assert_eq(set & s->taken[i][w], 0, "put twice: %lx of span %u", set & s->taken[i][w], i);
			cr_assert_eq(set & ~s->cached[i][w], 0, "%lx of span %u were never cached", set, i);
			lost += (uint32_t)__builtin_popcountll(s->cached[i][w] & ~set & ~s->taken[i][w]);
			cr_assert(i >= OWN || set == s->cached[i][w], "span %u of its own", i);
		}
	cr_assert_leq(lost, written_off(s), "%u lost, %u written off", lost, written_off(s));
	cr_assert_leq(written_off(s), 64 * s->doubts);
	cr_assert_eq(shmi_load(&s->t->img.super->counters.slots_written_off), written_off(s), "counted %lu",
	        shmi_load(&s->t->img.super->counters.slots_written_off));
	cr_assert_eq(shmi_load(&s->note.open), 0);
}

/* ---- the dead thread ---- */

static struct shmi_group group_in(const struct scene *s, uint32_t span, uint32_t word, uint64_t bits)
{
	return (struct shmi_group){.bits = bits,
	        .span = s->page[span].i,
	        .generation = shmi_span_word(&s->t->img, s->page[span]).generation,
	        .word = word,
	        .sclass = s->sclass.c};
}

static void push(struct scene *s, uint32_t span, uint32_t slot)
{
	uint32_t top = shmi_load(&s->mag->top);

	shmi_store(&s->mag->entry[top], shmi_page_off(s->page[span]).b + slot * 16ull);
	shmi_store(&s->mag->top, top + 1);
	s->cached[span][slot / 64] |= 1ull << slot % 64;
}

enum death { AT_REST, CLOSING_UP, IN_DOUBT, PUT_DONE, TAKING, DEATHS };

/* The oldest six entries, of one word, are being put. */
static void begin_put(struct scene *s, enum death death)
{
	struct shmi_group first = group_in(s, 2, 3, 0x3f);

	s->rec->spill[0] = group_in(s, 0, 1, 0x7000);
	s->cached[0][1] |= 0x7000;
	s->rec->spill[1] = first;
	shmi_store(&s->rec->spill_top, 2);
	for (uint32_t i = 0; death == CLOSING_UP && i < 11; i++)
		shmi_store(&s->mag->entry[i], shmi_load(&s->mag->entry[i + 6]));
	if (death == CLOSING_UP)
		return;
	for (uint32_t i = 6; i < shmi_load(&s->mag->top); i++)
		shmi_store(&s->mag->entry[i - 6], shmi_load(&s->mag->entry[i]));
	shmi_bump(&s->mag->top, (uint32_t)-6);
	s->rec->intent.group = first;
	shmi_store(&s->rec->intent.op, SHMI_INTENT_PUT);
	if (death == PUT_DONE)
		shmi_slots_put(word_at(s, 2, 3), 0, 0x3f);
}

static void set_scene(struct scene *s, enum death death, struct test_random *random)
{
	s->sclass = shmi_sclass_make(shmi_class_of(16), 0);
	for (uint32_t i = 0; i < SPANS; i++) {
		s->page[i] = test_image_span(s->t, 16, 0, i < OWN ? 1 : 2);
		for (uint32_t w = 0; w < WORDS; w++)
			shmi_store(word_at(s, i, w), 0); /* allocated, all of them */
	}
	shmi_threadrec_at(&s->t->img, 1)->client = 1;
	s->rec = shmi_threadrec_at(&s->t->img, 1);
	s->mag = shmi_magazine_at(&s->t->img, s->rec, s->sclass);
	for (uint32_t i = 0; i < 6; i++)
		push(s, 2, 3 * 64 + i);
	for (uint32_t i = 0; i < 40;
	        i++) { /* each in at most one place; word 3 of span 2 and word 1 of span 0 are the put's */
		uint32_t span = test_random_below(random, SPANS), slot = test_random_below(random, 512);

		if (!(s->cached[span][slot / 64] >> slot % 64 & 1) && !(span == 2 && slot / 64 == 3) &&
		        !(span == 0 && slot / 64 == 1))
			push(s, span, slot);
	}
	if (death ==
	        TAKING) { /* two of its slots have become entries, next to one of the same word that was there before */
		for (uint32_t slot = 46; slot < 50; slot++)
			if (!(s->cached[1][7] >> slot & 1))
				push(s, 1, 7 * 64 + slot);
		s->rec->intent.group = group_in(s, 1, 7, 0xff00ull << 40);
		shmi_store(&s->rec->intent.op, SHMI_INTENT_TAKE);
		s->cached[1][7] |= 0xff00ull << 40;
	} else if (death != AT_REST) {
		begin_put(s, death);
	}
	s->doubts = death == IN_DOUBT || death == PUT_DONE;
}

static void add_region(struct scene *s, uint32_t *n, void *at, size_t bytes)
{
	s->region[*n].at = at;
	s->region[(*n)++].bytes = bytes;
	s->bytes += bytes;
}

static struct scene *new_scene(struct test_image *t, enum death death, struct test_random *random)
{
	struct scene *s = calloc(1, sizeof(*s));
	uint32_t n = 0;

	cr_assert_not_null(s);
	s->t = t;
	set_scene(s, death, random);
	s->copy = aligned_alloc(64, t->img.geo.record_bytes);
	add_region(s, &n, s->rec, offsetof(struct shmi_threadrec, spill) + 64 * sizeof(struct shmi_group));
	add_region(s, &n, s->mag, sizeof(*s->mag) + 64 * sizeof(uint64_t));
	for (uint32_t i = 0; i < SPANS; i++) {
		add_region(s, &n, word_at(s, i, 0), WORDS * sizeof(uint64_t));
		add_region(s, &n, shmi_span_at(&t->img, s->page[i]), sizeof(struct shmi_span));
	}
	add_region(s, &n, &s->note, sizeof(s->note));
	add_region(s, &n, &t->img.super->counters, sizeof(t->img.super->counters));
	return s;
}

static struct states *new_states(const struct scene *s)
{
	struct states *states = calloc(1, sizeof(*states));

	cr_assert_not_null(states);
	states->scene = s;
	for (uint32_t i = 0; i < MOST_STATES; i++)
		cr_assert_not_null(states->v[i] = malloc(s->bytes));
	return states;
}

static void free_states(struct states *states)
{
	for (uint32_t i = 0; i < MOST_STATES; i++)
		free(states->v[i]);
	free(states);
}

static void free_scene(struct scene *s)
{
	free(s->copy);
	free(s);
}

static void handle_traps(void)
{
	struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};

	sigemptyset(&action.sa_mask);
	sigaction(SIGTRAP, &action, NULL);
}

/* The first daemon has left what is there now. Others come and are killed, at random; the last one is not. */
static void others_come(struct scene *s, struct states *inner, struct test_random *random)
{
	uint32_t doubts = s->doubts++;

	memset(s->taken, 0, sizeof(s->taken));
	for (;; s->doubts++) {
		holder_takes_all(s);
		if (!test_random_one_in(random, s->seldom))
			break;
		reclaim(s, inner);
		restore(s, inner->v[test_random_below(random, inner->n)]);
	}
	reclaim(s, NULL);
	account(s);
	s->doubts = doubts;
}

static void kill_at_every_store(struct test_image *t, enum death death, struct test_random *random)
{
	struct scene *s = new_scene(t, death, random);
	struct states *outer = new_states(s), *inner = new_states(s);

	s->seldom = getenv("SHMALLOC_SOAK") ? 4
	            : death == CLOSING_UP   ? 20
	                                    : 200; /* what stands twice must not come to life again */
	reclaim(s, outer);
	cr_assert(outer->n > 40 && outer->n < MOST_STATES, "%u states", outer->n);
	account(s);
	for (uint32_t i = 0; i < outer->n; i++) {
		restore(s, outer->v[i]);
		others_come(s, inner, random);
	}
	fprintf(stderr, "reclaim: death %d: injections %u, violations 0\n", (int)death, outer->n);
	free_states(outer);
	free_states(inner);
	free_scene(s);
}

Test(reclaim, a_daemon_that_is_killed_at_any_store_loses_nothing)
{
	struct test_random random = test_random_init("reclaim");

#ifndef __x86_64__
	fprintf(stderr, "skipped: no trap flag on this processor\n");
	return;
#endif
	handle_traps();
	for (uint32_t round = 0; round < (getenv("SHMALLOC_SOAK") ? 5 : 1); round++)
		for (enum death death = AT_REST; death < DEATHS; death++) {
			struct test_image *t = test_image_new(TEST_MALLOC, PAGES);

			test_image_publish(t, 1);
			kill_at_every_store(t, death, &random);
			test_image_free(t);
		}
}
