/* The figures of a heap add up at every sample, whatever its clients do meanwhile.
 *
 * Four processes of two threads each allocate, free, and free each other's blocks as fast as they can, small ones and large
 * ones, backed and lazy; the test's process asks the daemon for all figures, hundreds of times, and does the sums. Then the same while
 * clients are killed and others come. */
#include "tests/system/system.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "client/shmalloc.h"
#include "proto/chan.h"
#include "proto/codec.h"
#include "shm/layout.h"
#include "tests/lib/random.h"

#define PROCESSES 4u
#define THREADS 2u
#define HELD 400u
#define PLACES 256u
#define SAMPLES 300u
#define SAMPLES_SOAK 20000u
#define DEATHS 20u

/* ---- the load ---- */

struct stage {
	_Atomic uint32_t stop;
	_Atomic uint64_t place[PLACES]; /* offsets of blocks that anybody may free */
};

static struct stage *stage;

struct worker {
	struct test_random random;
	void *held[HELD];
};

static void *some_block(struct worker *w)
{
	uint32_t kind = test_random_below(&w->random, 1000);
	shma_heap *heap = shma_default();

	if (kind < 900)
		return shma_malloc(1 + test_random_below(&w->random, 1024));
	if (kind < 980)
		return shma_heap_alloc(heap, 1 + test_random_below(&w->random, 40000), 0, SHMA_SCOPED);
	if (kind < 995)
		return shma_malloc(300000 + test_random_below(&w->random, 700000));
	return shma_heap_alloc(heap, 400000, 0, SHMA_LAZY);
}

static void work(struct worker *w)
{
	void **held = &w->held[test_random_below(&w->random, HELD)];

	if (test_random_one_in(&w->random, 4)) { /* let somebody else free a shared one */
		void *block = shma_malloc(1 + test_random_below(&w->random, 300));
		shma_off mine = shma_to_off(block);

		mine = atomic_exchange(&stage->place[test_random_below(&w->random, PLACES)], mine);
		shma_free(mine ? shma_from_off(shma_default(), mine) : NULL);
	}
	if (test_random_one_in(&w->random, 20000))
		(void)shma_trim(shma_default());
	shma_free(*held);
	*held = some_block(w);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	while (!atomic_load(&stage->stop))
		for (int i = 0; i < 100; i++)
			work(w);
	for (uint32_t i = 0; i < HELD; i++)
		shma_free(w->held[i]);
	return NULL;
}

static int process_main(void *arg)
{
	struct test_random *random = arg;
	static struct worker worker[THREADS];
	pthread_t thread[THREADS];

	child_check(shma_default());
	for (uint32_t i = 0; i < THREADS; i++) {
		worker[i].random.state = test_random_next(random);
		child_check(pthread_create(&thread[i], NULL, worker_main, &worker[i]) == 0);
	}
	for (uint32_t i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	return 0;
}

static pid_t start_process(struct test_random *random)
{
	pid_t pid = child_start(process_main, random);

	test_random_next(random);
	return pid;
}

/* ---- asking ---- */

struct sample {
	struct wire_stats stats;
	uint32_t n_clients, n_users, n_classes;
	struct wire_client_row clients[SHMI_MAX_CLIENTS];
	struct wire_user_row users[SHMI_MAX_CLIENTS];
	struct wire_class_row classes[SHMI_SPAN_CLASSES];
};

struct asker {
	int sock;
	uint64_t serial;
	struct wire_msg msg, reply;
	struct codec_scratch scratch;
	unsigned char bytes[WIRE_MAX];
};

static void ask(struct asker *a, enum wire_kind want)
{
	size_t len;

	a->msg.serial = ++a->serial;
	cr_assert_eq(shmi_codec_encode(&a->msg, &a->scratch, a->bytes, sizeof(a->bytes), &len), 0);
	cr_assert_eq(shmi_chan_send(a->sock, a->bytes, len, NULL, 0), 0);
	cr_assert_eq(shmi_chan_wait(a->sock, 0, shmi_chan_now_ns() + 60000000000ll), 0, "no answer in a minute");
	cr_assert_eq(shmi_chan_recv(a->sock, a->bytes, sizeof(a->bytes), &len, NULL, NULL), 0);
	cr_assert_eq(shmi_codec_decode(&a->reply, &a->scratch, a->bytes, len), 0);
	cr_assert_eq(a->reply.kind, want, "%s", a->reply.kind == WIRE_ERROR ? a->reply.u.error.text : "");
}

static struct asker *open_asker(const struct test_daemon *d)
{
	struct asker *a = calloc(1, sizeof(*a));

	cr_assert_not_null(a);
	cr_assert_eq(shmi_chan_connect(d->socket, &a->sock), 0);
	a->msg.kind = WIRE_HELLO;
	a->msg.u.hello = (struct wire_hello){.protocol = WIRE_PROTOCOL,
	        .layout_hash = shmi_layout_hash(),
	        .version = SHMALLOC_VERSION,
	        .label = "sums"};
	ask(a, WIRE_HELLO_OK);
	return a;
}

/* All rows of one kind, of the sample's moment. */
#define ASK_ROWS(a, sample, query_, kind_, member)                                                                     \
	do {                                                                                                           \
		uint64_t cursor_ = (sample)->stats.snapshot;                                                           \
                                                                                                                       \
		(sample)->n_##member = 0;                                                                              \
		do {                                                                                                   \
			(a)->msg.kind = WIRE_QUERY;                                                                    \
			(a)->msg.u.query = (struct wire_query){.kind = query_, .cursor = cursor_};                     \
			ask(a, kind_);                                                                                 \
			for (uint32_t i_ = 0; i_ < (a)->reply.u.member.n_rows; i_++)                                   \
				(sample)->member[(sample)->n_##member++] = (a)->reply.u.member.rows[i_];               \
			cursor_ = (a)->reply.u.member.next;                                                            \
		} while (cursor_);                                                                                     \
	} while (0)

static void take_sample(struct asker *a, struct sample *s)
{
	a->msg.kind = WIRE_QUERY;
	a->msg.u.query = (struct wire_query){.kind = WIRE_Q_STATS};
	ask(a, WIRE_STATS);
	s->stats = a->reply.u.stats;
	ASK_ROWS(a, s, WIRE_Q_CLIENTS, WIRE_CLIENTS, clients);
	ASK_ROWS(a, s, WIRE_Q_USERS, WIRE_USERS, users);
	ASK_ROWS(a, s, WIRE_Q_CLASSES, WIRE_CLASSES, classes);
}

/* ---- the sums ---- */

static uint64_t in_spans(const struct wire_stats *s)
{
	return s->owned + s->central + s->lazy;
}

static void check_heap(const struct wire_stats *s)
{
	uint64_t known = s->backed + s->returned + s->lazy + s->moving + s->seized, unpublished = s->limit - known;

	cr_assert_leq(known, s->limit);
	cr_assert_eq(unpublished, s->limit - s->published + (s->published ? SHMI_PAGE_SIZE : 0),
	        "page 0, and what has no metadata");
	cr_assert_eq(s->owned + s->central + s->free, s->backed);
	cr_assert_eq(s->live + s->cached + s->slots_free + s->tail + s->written_off + s->quarantined, in_spans(s));
	cr_assert_eq(s->unowned_live + s->unowned_cached + s->unowned_slots_free + s->unowned_tail +
	                     s->unowned_written_off + s->quarantined,
	        s->unowned);
	cr_assert_geq(s->peak_backed, s->backed);
}

static void check_clients(const struct sample *s)
{
	const struct wire_stats *st = &s->stats;
	struct wire_client_row sum = {0};

	for (uint32_t i = 0; i < s->n_clients; i++) {
		const struct wire_client_row *c = &s->clients[i];

		cr_assert_eq(c->live + c->cached + c->slots_free + c->tail + c->written_off, c->bytes);
		sum.bytes += c->bytes;
		sum.live += c->live;
		sum.cached += c->cached;
		sum.slots_free += c->slots_free;
		sum.tail += c->tail;
		sum.written_off += c->written_off;
		sum.spans += c->spans;
		sum.threads += c->threads;
	}
	cr_assert_eq(s->n_clients, st->clients);
	cr_assert_eq(sum.bytes + st->unowned, in_spans(st));
	cr_assert_eq(sum.live + st->unowned_live, st->live);
	cr_assert_eq(sum.cached + st->unowned_cached, st->cached);
	cr_assert_eq(sum.slots_free + st->unowned_slots_free, st->slots_free);
	cr_assert_eq(sum.tail + st->unowned_tail, st->tail);
	cr_assert_eq(sum.written_off + st->unowned_written_off, st->written_off);
	cr_assert_eq(sum.threads, st->threads);
}

static void check_classes(const struct sample *s)
{
	uint64_t bytes = s->stats.quarantined, blocks = 0, owned = 0, held = 0;

	for (uint32_t i = 0; i < s->n_classes; i++) {
		bytes += s->classes[i].bytes;
		blocks += s->classes[i].live;
		owned += s->classes[i].spans_owned;
	}
	for (uint32_t i = 0; i < s->n_clients; i++)
		held += s->clients[i].spans;
	cr_assert_eq(bytes, in_spans(&s->stats));
	cr_assert_eq(blocks, s->stats.live_blocks);
	cr_assert_eq(owned, held);
}

static void check_users(const struct sample *s)
{
	uint64_t sessions = 0;

	for (uint32_t u = 0; u < s->n_users; u++) {
		uint64_t bytes = 0, clients = 0;

		for (uint32_t i = 0; i < s->n_clients; i++)
			if (s->clients[i].uid == s->users[u].uid) {
				bytes += s->clients[i].bytes;
				clients++;
			}
		cr_assert_eq(s->users[u].bytes, bytes);
		cr_assert_eq(s->users[u].clients, clients);
		sessions += s->users[u].sessions;
	}
	cr_assert_eq(sessions, s->stats.sessions);
}

static uint64_t total(const uint64_t *bucket)
{
	uint64_t sum = 0;

	for (uint32_t b = 0; b < WIRE_BUCKETS; b++)
		sum += bucket[b];
	return sum;
}

/* Nothing that counts goes down. */
static void check_counters(const struct sample *before, const struct sample *now)
{
	const struct wire_stats *a = &before->stats, *b = &now->stats;

	for (uint32_t i = 0; i < WIRE_COUNTERS; i++)
		cr_assert_leq(a->counters[i], b->counters[i], "counter %u", i);
	for (uint32_t i = 0; i < WIRE_BUCKETS; i++) {
		cr_assert_leq(a->served_us[i], b->served_us[i]);
		cr_assert_leq(a->waited_us[i], b->waited_us[i]);
	}
	cr_assert_lt(a->requests, b->requests);
	cr_assert_leq(a->uptime_ms, b->uptime_ms);
	cr_assert_neq(a->snapshot, b->snapshot);
	for (uint32_t i = 0; i < before->n_clients; i++)
		for (uint32_t k = 0; k < now->n_clients; k++) {
			const struct wire_client_row *x = &before->clients[i], *y = &now->clients[k];

			if (x->pid != y->pid)
				continue;
			cr_assert_leq(x->granted, y->granted);
			cr_assert_leq(x->requests, y->requests);
			cr_assert_leq(x->failed, y->failed);
			cr_assert_leq(x->since_ms, y->since_ms);
		}
}

/* What was granted and not given back is what clients hold, unless some have died with it. */
static void check_moved(const struct sample *s, bool deaths)
{
	uint64_t granted = s->stats.counters[16] * SHMI_PAGE_SIZE, given = s->stats.counters[17] * SHMI_PAGE_SIZE,
	         held = 0;

	for (uint32_t i = 0; i < s->n_clients; i++)
		held += s->clients[i].bytes;
	cr_assert_leq(given, granted);
	if (deaths)
		cr_assert_leq(held, granted - given);
	else
		cr_assert_eq(held, granted - given);
}

static void check_sample(const struct sample *before, const struct sample *now, bool deaths)
{
	check_heap(&now->stats);
	check_clients(now);
	check_classes(now);
	check_users(now);
	check_counters(before, now);
	check_moved(now, deaths);
}

/* ---- the test ---- */

static void sample_on(struct asker *a, struct sample **before, struct sample **now, uint32_t n, bool deaths)
{
	for (uint32_t i = 0; i < n; i++) {
		struct sample *last = *now;

		*now = *before;
		*before = last;
		take_sample(a, *now);
		check_sample(*before, *now, deaths);
	}
}

static int empty_places(void *arg)
{
	(void)arg;
	child_check(shma_default());
	for (uint32_t i = 0; i < PLACES; i++)
		if (stage->place[i])
			shma_free(shma_from_off(shma_default(), stage->place[i]));
	return 0;
}

Test(sums, add_up_at_every_sample)
{
	const char *args[] = {"--size", "512MiB", NULL};
	uint32_t samples = system_soaks() ? SAMPLES_SOAK : SAMPLES;
	struct test_random random = test_random_init("sums");
	struct sample *before = calloc(1, sizeof(*before)), *now = calloc(1, sizeof(*now));
	struct test_daemon d;
	pid_t pid[PROCESSES];

	cr_assert(before && now);
	stage = mmap(NULL, sizeof(*stage), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(stage, MAP_FAILED);
	system_start(&d, args);
	struct asker *a = open_asker(&d);

	for (uint32_t i = 0; i < PROCESSES; i++)
		pid[i] = start_process(&random);
	sample_on(a, &before, &now, samples, false);
	cr_expect_gt(now->stats.live, 0);
	cr_expect_gt(total(now->stats.served_us), 0, "refills are timed here");
	cr_expect_gt(total(now->stats.waited_us), 0, "and by the clients");
	cr_expect_gt(now->stats.served_sum_us, 0);
	cr_expect_gt(now->stats.waited_sum_us, 0);
	cr_expect_gt(now->stats.counters[18], 0, "blocks were freed by other threads than they were taken by");
	for (uint32_t i = 0; i < DEATHS; i++) {
		uint32_t k = i % PROCESSES;

		kill(pid[k], SIGKILL);
		waitpid(pid[k], NULL, 0);
		sample_on(a, &before, &now, samples / DEATHS / 2, true);
		pid[k] = start_process(&random);
		sample_on(a, &before, &now, samples / DEATHS / 2, true);
	}
	cr_expect_geq(now->stats.counters[9], DEATHS - 1, "deaths");
	atomic_store(&stage->stop, 1);
	for (uint32_t i = 0; i < PROCESSES; i++)
		cr_expect_eq(child_join(pid[i]), 0);
	cr_expect_eq(child_run(empty_places, NULL), 0);
	sample_on(a, &before, &now, 3, true);
	close(a->sock);
	cr_expect_eq(test_ctl_check(&d), 0);
	free(a);
	free(before);
	free(now);
	system_end(&d);
}
