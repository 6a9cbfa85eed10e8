/* Whose step is next. */
#include "daemon/jobs.h"

#include <criterion/criterion.h>

TestSuite(jobs, .timeout = 60);

#define MANY 500

static struct jobs jobs;
static struct payer payer[3];
static struct job job[MANY + 2];
static uint32_t steps[MANY + 2];

static void add(uint32_t i, struct payer *who)
{
	job[i].payer = who;
	jobs_add(&jobs, &job[i]);
}

/* `n` steps, after each of which the job goes on. */
static void turn(uint32_t n)
{
	while (n--) {
		struct job *next = jobs_next(&jobs);

		cr_assert_not_null(next);
		cr_assert_not(next->queued);
		steps[next - job]++;
		jobs_add(&jobs, next);
	}
}

Test(jobs, of_one_payer_take_turns)
{
	jobs_init(&jobs);
	for (uint32_t i = 0; i < 5; i++)
		add(i, &payer[0]);
	turn(50);
	for (uint32_t i = 0; i < 5; i++)
		cr_expect_eq(steps[i], 10);
}

Test(jobs, one_of_a_user_beside_many_of_another)
{
	jobs_init(&jobs);
	for (uint32_t i = 0; i < MANY; i++)
		add(i, &payer[0]);
	turn(3 * MANY);
	add(MANY, &payer[1]);
	turn(200);
	cr_expect_eq(steps[MANY], 100, "every second step: %u", steps[MANY]);
	for (uint32_t i = 0; i < MANY; i++)
		cr_expect(steps[i] == 3 || steps[i] == 4);
}

Test(jobs, the_daemon_pays_for_its_own)
{
	jobs_init(&jobs);
	for (uint32_t i = 0; i < MANY; i++)
		add(i, &payer[0]);
	add(MANY, NULL);
	turn(200);
	cr_expect_eq(steps[MANY], 100);
}

Test(jobs, nothing_is_saved_up)
{
	jobs_init(&jobs);
	add(0, &payer[0]);
	turn(10000);
	add(1, &payer[1]);
	turn(100);
	cr_expect_leq(steps[1], 51, "who comes late has not waited: %u", steps[1]);
	cr_expect_geq(steps[1], 49);
}

Test(jobs, who_comes_again_for_every_step_gains_nothing)
{
	uint32_t mine = 0;

	jobs_init(&jobs);
	add(0, &payer[0]);
	add(1, &payer[1]);
	for (uint32_t i = 0; i < 1000; i++) {
		struct job *next = jobs_next(&jobs);

		mine += next == &job[1];
		jobs_add(&jobs, next); /* of payer 1 a new job each time, as far as the queue can see */
	}
	cr_expect_eq(mine, 500);
}

Test(jobs, can_be_taken_out)
{
	jobs_init(&jobs);
	add(0, &payer[0]);
	add(1, &payer[0]);
	jobs_add(&jobs, &job[1]);
	cr_expect_eq(payer[0].jobs, 2, "added twice is queued once");
	jobs_remove(&jobs, &job[0]);
	jobs_remove(&jobs, &job[0]);
	cr_expect_eq(payer[0].jobs, 1);
	cr_expect_eq(jobs_next(&jobs), &job[1]);
	cr_expect_null(jobs_next(&jobs));
	cr_expect_not(jobs_any(&jobs));
}
