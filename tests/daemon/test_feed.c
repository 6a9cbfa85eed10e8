/* The texts of the HTTP listener, made from cores in memory: short steps, one thing at a time, and shared by all who ask. */
#include "daemon/feed.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/policy.h"
#include "tests/lib/core.h"

TestSuite(feed, .timeout = 60);

static uint32_t made; /* how often `done` was called */
static uint64_t took[100000]; /* microseconds of the processor, for each step */
static uint32_t steps;

static uint64_t cpu_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void done(void *ctx)
{
	(void)ctx;
	made++;
}

/* A step of each core, until none has a job; each is timed. */
static void run(struct core *const *cores, uint32_t n)
{
	for (bool more = true; more;) {
		more = false;
		for (uint32_t i = 0; i < n; i++) {
			uint64_t began = cpu_us();

			if (!core_turn(cores[i]))
				continue;
			cr_assert_lt(steps, sizeof(took) / sizeof(took[0]), "no end");
			took[steps++] = cpu_us() - began;
			more = true;
		}
	}
}

static struct text *ask(struct feed *feed, struct feed_ask what)
{
	struct core *cores[4];
	bool failed;
	struct text *text = feed_get(feed, &what, &failed);

	if (text)
		return text;
	cr_assert_not(failed);
	for (uint32_t h = 0; h < feed->n_heaps; h++)
		cores[h] = feed->heaps[h].core;
	run(cores, feed->n_heaps);
	text = feed_get(feed, &what, &failed);
	cr_assert_not(failed);
	cr_assert_not_null(text);
	return text;
}

static struct test_core *begin(struct feed *feed, uint32_t pages)
{
	struct test_core *t = test_core_new(pages);
	const struct feed_source source = {.core = &t->core};

	core_tick(&t->core, 1000);
	cr_assert_eq(feed_init(feed, &source, 1, done, NULL), 0);
	return t;
}

/* All of it: until the next call. */
static const char *whole(const struct text *text)
{
	static char bytes[4 << 20];
	size_t len = 0;

	for (uint32_t i = 0; i < text->n_pieces; i++) {
		cr_assert_lt(len + text->pieces[i].len, sizeof(bytes));
		memcpy(bytes + len, text->pieces[i].bytes, text->pieces[i].len);
		len += text->pieces[i].len;
	}
	bytes[len] = 0;
	return bytes;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void expect_short_steps(const char *what, uint32_t least)
{
	qsort(took, steps, sizeof(took[0]), by_size);
	cr_expect_geq(steps, least, "%s: only %u steps", what, steps);
	printf("%s: %u steps, half within %u us, 95 %% within %u us, all within %u us\n", what, steps,
	        (unsigned)took[steps / 2], (unsigned)took[steps * 95 / 100], (unsigned)took[steps - 1]);
	cr_expect_lt(took[steps / 2], 1000u);
	cr_expect_lt(took[steps * 95 / 100], 5000u); /* sanitizers are slow, and caches cold */
	steps = 0;
}

/* As many rows as there can be. */
static void fill(struct feed *feed)
{
	struct feed_heap *heap = &feed->heaps[0];

	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++) {
		heap->clients[i] =
		        (struct wire_client_row){.client = i, .pid = 1000 + i, .bytes = i << 20, .live = i << 19};
		memset(heap->clients[i].label, 'x', 63);
		heap->users[i] = (struct wire_user_row){.uid = i, .bytes = i << 20};
	}
	for (uint32_t i = 0; i < SHMI_SPAN_CLASSES; i++)
		heap->classes[i] = (struct wire_class_row){.sclass = i, .size = 16, .bytes = i << 13};
	heap->report->n_clients = heap->report->n_users = SHMI_MAX_CLIENTS;
	heap->report->n_classes = SHMI_SPAN_CLASSES;
	heap->taken_ms = heap->core->now_ms;
}

Test(feed, steps_are_short)
{
	struct feed feed;
	struct test_core *t = begin(&feed, 8192);
	struct text *text;

	fill(&feed);
	text = ask(&feed, (struct feed_ask){.kind = FEED_STATS});
	json_t *json = json_loads(whole(text), 0, NULL);

	cr_assert(json, "%.300s", whole(text));
	cr_expect_eq(json_array_size(json_object_get(json, "clients")), SHMI_MAX_CLIENTS);
	cr_expect_eq(json_array_size(json_object_get(json, "users")), SHMI_MAX_CLIENTS);
	cr_expect_eq(json_array_size(json_object_get(json, "classes")), SHMI_SPAN_CLASSES);
	json_decref(json);
	feed_put(text);
	expect_short_steps("JSON of 1,024 clients", 2 * SHMI_MAX_CLIENTS / POLICY_HTTP_ROWS);
	text = ask(&feed, (struct feed_ask){.kind = FEED_METRICS});
	cr_expect(strstr(whole(text), "client=\"other\""));
	feed_put(text);
	expect_short_steps("metrics of 1,024 clients", (uint32_t)report_families());
	feed_deinit(&feed);
	test_core_free(t);
}

Test(feed, a_map_of_many_runs)
{
	struct feed feed;
	struct test_core *t = begin(&feed, 65536);
	struct dialogue *d = test_core_attach(t, 1000);

	for (int i = 0; i < 200; i++)
		(void)test_core_refill(t, d, 16, 150);
	struct text *text = ask(&feed, (struct feed_ask){.kind = FEED_MAP, .to = UINT32_MAX});
	json_t *json = json_loads(whole(text), 0, NULL), *cells = json_object_get(json, "cells"), *cell;
	json_int_t at = 1;
	size_t i;

	json_array_foreach(cells, i, cell)
	{
		cr_assert_eq(json_integer_value(json_array_get(cell, 0)), at, "a gap before cell %zu", i);
		at += json_integer_value(json_array_get(cell, 1));
	}
	cr_expect_eq(at, json_integer_value(json_object_get(json, "published")));
	cr_expect_gt(i, 1000u);
	cr_expect_leq(i, POLICY_HTTP_CELLS);
	json_decref(json);
	feed_put(text);
	expect_short_steps("a map of 30,000 runs", 30000 / WIRE_ROWS);
	feed_deinit(&feed);
	test_core_free(t);
}

/* However many ask, and for whatever: one survey, until its figures are old. */
Test(feed, texts_are_shared)
{
	struct feed feed;
	struct test_core *t = begin(&feed, 8192);
	const struct feed_ask stats = {.kind = FEED_STATS}, metrics = {.kind = FEED_METRICS};
	struct text *first = ask(&feed, stats), *second;
	uint64_t round = t->core.survey.round;
	bool failed;

	for (int i = 0; i < 100; i++) {
		second = ask(&feed, i % 2 ? stats : metrics);
		cr_assert(i % 2 == 0 || second == first);
		feed_put(second);
	}
	cr_expect_eq(t->core.survey.round, round);
	core_tick(&t->core, 1000 + POLICY_HTTP_FRESH_MS - 1);
	second = ask(&feed, stats);
	cr_expect_eq(second, first);
	feed_put(second);
	core_tick(&t->core, 1000 + POLICY_HTTP_FRESH_MS);
	cr_expect_null(feed_get(&feed, &stats, &failed));
	cr_expect_null(feed_get(&feed, &metrics, &failed), "something else is being made");
	cr_expect_not(failed);
	made = 0;
	second = ask(&feed, stats);
	cr_expect_eq(made, 1);
	cr_expect_neq(second, first);
	cr_expect_eq(first->refs, 1, "ours is the last");
	cr_expect_eq(t->core.survey.round, round + 1);
	feed_put(first);
	feed_put(second);
	feed_deinit(&feed);
	test_core_free(t);
}

/* Nothing in ctl is read any more, and it is said. */
Test(feed, a_fenced_heap)
{
	struct feed feed;
	struct test_core *t = begin(&feed, 8192);

	core_fence(&t->core);
	struct text *text = ask(&feed, (struct feed_ask){.kind = FEED_STATS});

	cr_expect(strstr(whole(text), "\"damaged\":true"));
	feed_put(text);
	text = ask(&feed, (struct feed_ask){.kind = FEED_MAP, .to = UINT32_MAX});
	cr_expect(strstr(whole(text), "\"cells\":[]"));
	feed_put(text);
	feed_put(ask(&feed, (struct feed_ask){.kind = FEED_METRICS}));
	feed_deinit(&feed);
	test_core_free(t);
}

/* At whatever step the listener ends, nothing of it is left with the core. */
Test(feed, an_end_in_the_middle)
{
	for (int kind = 0; kind < FEED_KINDS; kind++)
		for (int turns = 0; turns < 20; turns++) {
			struct feed feed;
			struct test_core *t = begin(&feed, 8192);
			const struct feed_ask what = {.kind = (enum feed_kind)kind, .to = UINT32_MAX};
			bool failed;

			(void)feed_get(&feed, &what, &failed);
			for (int i = 0; i < turns; i++)
				(void)core_turn(&t->core);
			made = 0;
			feed_deinit(&feed);
			(void)test_core_run(t);
			cr_assert_eq(made, 0, "it was told of what it had given up");
			test_core_free(t);
		}
}

/* Each family once, with the samples of both; and the figures of either by its name. */
Test(feed, two_heaps)
{
	struct test_core *a = test_core_new(8192), *b = test_core_new(16384);
	const struct feed_source sources[] = {{.core = &a->core}, {.core = &b->core, .backing = 1}};
	struct feed feed;

	snprintf(a->heap.name, sizeof(a->heap.name), "one");
	snprintf(b->heap.name, sizeof(b->heap.name), "two");
	core_tick(&a->core, 1000);
	core_tick(&b->core, 1000);
	cr_assert_eq(feed_init(&feed, sources, 2, done, NULL), 0);
	cr_expect_eq(feed_heap(&feed, NULL), 0);
	cr_expect_eq(feed_heap(&feed, "two"), 1);
	cr_expect_eq(feed_heap(&feed, "three"), -1);
	struct text *text = ask(&feed, (struct feed_ask){.kind = FEED_METRICS});
	const char *type = strstr(whole(text), "# TYPE shmalloc_limit_bytes gauge\n");

	cr_assert_not_null(type);
	cr_expect_null(strstr(type + 1, "# TYPE shmalloc_limit_bytes"));
	cr_expect(strstr(type,
	        "gauge\nshmalloc_limit_bytes{heap=\"one\"} 67108864\nshmalloc_limit_bytes{heap=\"two\"} 134217728\n"));
	feed_put(text);
	text = ask(&feed, (struct feed_ask){.kind = FEED_STATS, .heap = 1});
	cr_expect(strstr(whole(text), "\"heap\":\"two\""));
	cr_expect(strstr(whole(text), "{\"name\":\"one\",\"limit_bytes\":67108864"));
	feed_put(text);
	feed_deinit(&feed);
	test_core_free(a);
	test_core_free(b);
}
