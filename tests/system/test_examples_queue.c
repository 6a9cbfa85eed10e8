/* The queue among the examples, with producers and consumers that are killed and started again: no message comes twice or torn, and
 * what does not come is accounted for by the kills. */
#include "tests/system/killing.h"

#define KILLS 30
#define PRODUCERS 3u
#define WORKERS 6u
#define MESSAGES 1500u /* of one producer */
#define MEMBERS 512u /* that join in the course of the test */

struct delivery {
	struct killing killing;
	pid_t pid[WORKERS]; /* producers, then consumers; 0: ended */
	unsigned char seen[MEMBERS][MESSAGES];
	uint32_t next[MEMBERS][MEMBERS]; /* by taker and producer: the lowest number that is in order */
	uint32_t received[MEMBERS],
	        beyond[MEMBERS]; /* by producer: how many; one more than the last that was sent for certain */
	uint64_t total;
	uint32_t consumers_killed;
};

static void start(struct delivery *q, uint32_t worker)
{
	static const char *const sizes[PRODUCERS] = {"40", "1000", "6000"};
	const char *put[] = {"examples/queue", "put", "1500", sizes[worker % PRODUCERS], NULL};
	static const char *const list[] = {"examples/queue", "list", "1000000", NULL};

	q->pid[worker] = killing_start(&q->killing, worker < PRODUCERS ? put : list);
}

static void note_message(struct delivery *q, unsigned taker, unsigned producer, unsigned number)
{
	cr_assert(taker < MEMBERS && producer < MEMBERS && number < MESSAGES, "%u %u %u", taker, producer, number);
	cr_expect_not(q->seen[producer][number], "message %u of producer %u came twice", number, producer);
	cr_expect_geq(number, q->next[taker][producer], "taker %u: message %u of producer %u came late", taker, number,
	        producer);
	q->seen[producer][number] = 1;
	q->next[taker][producer] = number + 1;
	if (q->beyond[producer] <= number)
		q->beyond[producer] = number + 1;
	q->received[producer]++;
	q->total++;
}

static void note(struct delivery *q, const char *line)
{
	unsigned taker, producer, number;

	cr_expect_null(strstr(line, " torn\n"), "%s", line);
	if (sscanf(line, "%u %u %u", &taker, &producer, &number) == 3)
		note_message(q, taker, producer, number);
	else if (sscanf(line, "put: producer %u, %u messages", &producer, &number) == 2 && producer < MEMBERS)
		q->beyond[producer] = number;
	else
		cr_expect_not_null(strstr(line, " 0 torn,"), "%s", line);
}

static void hear(struct delivery *q, uint32_t lines)
{
	while (lines--) {
		const char *line = killing_line(&q->killing);

		cr_assert_not_null(line, "nobody is left to say anything");
		note(q, line);
	}
}

static void kill_one(struct delivery *q, uint32_t worker)
{
	if (killing_kill(&q->killing, q->pid[worker]))
		q->consumers_killed += worker >= PRODUCERS;
	q->pid[worker] = 0;
}

/* Producers end by themselves: new ones take their places as long as there is something to kill. */
static void replace_the_ended(struct delivery *q)
{
	for (uint32_t i = 0; i < PRODUCERS; i++) {
		int status;

		if (waitpid(q->pid[i], &status, WNOHANG) == q->pid[i]) {
			cr_expect_eq(status, 0);
			start(q, i);
		}
	}
}

/* The producers send what they have, and consumers that would wait for more are killed as well. */
static void finish(struct delivery *q)
{
	static const char *const rest[] = {"examples/queue", "list", NULL};
	const char *line;

	for (uint32_t i = 0; i < PRODUCERS; i++) {
		int pidfd = pidfd_open(q->pid[i], 0);

		cr_assert_geq(pidfd, 0);
		while (killing_line_or_end(&q->killing, pidfd))
			hear(q, 1);
		close(pidfd);
		cr_expect_eq(child_join(q->pid[i]), 0);
	}
	for (uint32_t i = PRODUCERS; i < WORKERS; i++)
		kill_one(q, i);
	pid_t last = killing_start(&q->killing, rest);

	close(q->killing.out);
	q->killing.out = -1;
	while ((line = killing_line(&q->killing)) != NULL)
		note(q, line);
	cr_expect_eq(child_join(last), 0);
}

/* Each position of the queue was received, taken by a consumer that was killed, or claimed by a producer that was killed. */
static void account(const struct delivery *q, uint64_t positions)
{
	uint64_t gaps = 0;

	for (uint32_t i = 0; i < MEMBERS; i++)
		gaps += q->beyond[i] - q->received[i];
	cr_expect_leq(gaps, q->consumers_killed, "%llu messages are missing", (unsigned long long)gaps);
	cr_expect_leq(q->total + gaps, positions);
	cr_expect_leq(positions, q->total + q->killing.kills, "of %llu positions %llu came",
	        (unsigned long long)positions, (unsigned long long)q->total);
	fprintf(stderr, "%llu messages, %llu positions, %u kills, %llu gaps\n", (unsigned long long)q->total,
	        (unsigned long long)positions, q->killing.kills, (unsigned long long)gaps);
}

Test(examples_queue, producers_and_consumers_that_are_killed)
{
	static const char *const drop[] = {"examples/queue", "drop", NULL};
	struct delivery *q = calloc(1, sizeof(*q));
	unsigned long long positions = 0;
	unsigned left = 1;
	struct test_daemon d;
	char *said = NULL;

	cr_assert_not_null(q);
	system_start(&d, NULL);
	killing_init(&q->killing, "queue");
	for (uint32_t i = 0; i < WORKERS; i++)
		start(q, i);
	while (q->killing.kills < KILLS) {
		uint32_t victim = test_random_below(&q->killing.random, WORKERS);

		hear(q, 1 + test_random_below(&q->killing.random, 200));
		replace_the_ended(q);
		killing_linger(&q->killing, 500);
		kill_one(q, victim);
		start(q, victim);
	}
	finish(q);
	int64_t live = killing_expect_blocks(&q->killing, &d, 1);

	cr_expect_eq(program_run(drop, &said), 0);
	cr_assert_eq(sscanf(said, "drop: %llu positions taken, %u messages", &positions, &left), 2, "%s", said);
	cr_expect_eq(left, 0);
	account(q, positions);
	cr_expect_eq(killing_expect_blocks(&q->killing, &d, 0), live - 1);
	free(said);
	killing_end(&q->killing);
	free(q);
	system_end(&d);
}
