/* The queue among the examples, killed at every store that others see of it: while a member puts a message, takes one, or mends what a
 * dead one had. A process that lives then does as one that waits: it looks at all members, and takes what there is. `make soak` kills
 * after every instruction, those of the heap included. */
int queue_main(int argc, char **argv);
#define main queue_main
#include "client/examples/queue.c"
#undef main

#include <sys/mman.h>

#include "tests/lib/stepper.h"
#include "tests/system/system.h"

#define TRIALS 20000u /* more than there are instructions */
#define SIZE 100u

/* ---- victims: members, with memory, before the first mark ---- */

static void become_member(void)
{
	queue_join();
	shma_free(shma_malloc(sizeof(struct message) + SIZE));
}

static void putter(void *arg)
{
	(void)arg;
	become_member();
	stepper_mark(1);
	(void)put_one(1, SIZE);
	stepper_mark(2);
}

static void taker(void *arg)
{
	uint64_t in_the_way;

	(void)arg;
	become_member();
	stepper_mark(1);
	struct slot *slot = claim(&queue->head, FULL, TAKEN, &in_the_way);

	if (slot)
		slot_release(slot);
	stepper_mark(2);
}

/* Of the member in the first place, which is dead. */
static void mender(void *arg)
{
	(void)arg;
	shma_free(shma_malloc(sizeof(struct message) + SIZE));
	stepper_mark(1);
	(void)place_lock(0);
	stepper_mark(2);
}

/* ---- what they find ---- */

static int put_a_message(void *arg)
{
	(void)arg;
	queue_join();
	child_check(put_one(0, SIZE));
	queue_leave();
	return 0;
}

/* A member that is dead in the first place, with a slot in this state and a block in it. */
static int die_with_slot(void *arg)
{
	const unsigned *state = arg;
	uint64_t in_the_way;
	struct slot *slot;

	queue_join();
	child_check(me == 0);
	slot = *state == TAKEN ? claim(&queue->head, FULL, TAKEN, &in_the_way)
	                       : claim(&queue->tail, FREE, FILLING, &in_the_way);
	child_check(slot);
	if (*state == FILLING)
		slot->block = shma_to_off(shma_malloc(SIZE));
	child_check(slot->block);
	return 0;
}

/* As who waits does with all members; then every slot is free, without a block, or has a whole message. Returns how many are left. */
static uint32_t look(void)
{
	uint64_t in_the_way;
	uint32_t messages = 0;
	struct slot *slot;

	for (unsigned i = 0; i < MEMBERS; i++) {
		child_check(place_lock(i));
		pthread_mutex_unlock(&queue->alive[i]);
	}
	for (unsigned i = 0; i < SLOTS; i++) {
		unsigned state = state_of(queue->slot[i].word);

		child_check(state == FULL || (state == FREE && queue->slot[i].block == 0));
	}
	while ((slot = claim(&queue->head, FULL, TAKEN, &in_the_way)) != NULL) {
		const struct message *m = shma_from_off(heap, slot->block);

		child_check(!m || whole(m, slot->size));
		messages += m != NULL;
		slot_release(slot);
	}
	child_check(queue->head == queue->tail || state_of(in_the_way) == FREE);
	return messages;
}

/* ---- trials ---- */

/* Kills a victim after so many stores, or instructions in a soak. False when it was done before. */
static bool kill_after(void (*run)(void *arg), uint32_t stores)
{
	struct stepper s = {.pid = 0};
	struct stepper_watch watch = {.block = NULL};
	enum stepper_stop stop = STEPPER_BOUNDARY;
	uint32_t seen = 0;

	child_check(stepper_start(&s, run, NULL) == 0);
	child_check(stepper_run(&s) == STEPPER_MARK && s.mark == 1);
	stepper_watch_add(&watch, queue, sizeof(*queue));
	stepper_watch_look(&watch);
	while (seen < stores && (stop = stepper_step(&s)) == STEPPER_BOUNDARY)
		seen += stepper_watch_look(&watch) || system_soaks();
	child_check(stop == STEPPER_BOUNDARY || (stop == STEPPER_MARK && s.mark == 2));
	stepper_kill(&s);
	stepper_watch_free(&watch);
	return seen == stores;
}

struct trial {
	void (*victim)(void *arg);
	uint32_t before, after; /* messages, if all goes well */
	unsigned dead; /* 0, or the state of a slot of a member that is dead */
};

static const struct trial trial[] = {
        {putter, 0, 1, 0},
        {taker, 1, 0, 0},
        {mender, 1, 0, TAKEN},
        {mender, 0, 0, FILLING},
};

/* What is there changes once, from one store on, and is not undone by a later death. Returns the number of deaths. */
static uint32_t kill_at_each_store(const struct trial *t)
{
	uint32_t deaths = 0, left = t->dead == TAKEN ? 0 : t->before;
	unsigned dead = t->dead;
	bool more = true;

	for (uint32_t stores = 0; more; stores++) {
		child_check(stores < TRIALS);
		if (t->before)
			child_check(child_run(put_a_message, NULL) == 0);
		if (t->dead)
			child_check(child_run(die_with_slot, &dead) == 0);
		more = kill_after(t->victim, stores);
		deaths += t->dead ? 2 : 1;
		uint32_t found = look();

		child_check(found == left || found == t->after);
		left = found;
	}
	child_check(left == t->after);
	return deaths;
}

/* The number of deaths goes to *arg. */
static int supervise(void *arg)
{
	uint32_t *deaths = arg;

	heap = shma_default();
	child_check(heap);
	queue_join();
	queue_leave();
	for (size_t i = 0; i < sizeof(trial) / sizeof(trial[0]); i++) {
		uint32_t more = kill_at_each_store(&trial[i]);

		child_check(more >= 4);
		fprintf(stderr, "trial %zu: %u deaths\n", i, more);
		*deaths += more;
	}
	drop();
	return 0;
}

Test(examples_queue_steps, at_each_store)
{
	uint32_t *deaths = mmap(NULL, sizeof(*deaths), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct test_daemon d;
	int64_t last;

	if (stepper_why_not())
		cr_skip_test("%s", stepper_why_not());
	cr_assert_neq(deaths, MAP_FAILED);
	system_start(&d, NULL);
	cr_expect_eq(child_run(supervise, deaths), 0);
	cr_expect_eq(test_ctl_settle(&d, "clients", 0, 0, &last), 0);
	last = test_ctl_stat(&d, "live_blocks");
	fprintf(stderr, "%lld blocks\n", (long long)last);
	cr_expect(last >= 0 && last <= *deaths, "%lld blocks after %u deaths", (long long)last, *deaths);
	cr_expect_eq(test_ctl_check(&d), 0);
	munmap(deaths, sizeof(*deaths));
	system_end(&d);
}
