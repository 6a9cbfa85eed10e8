/* How the page heap's cost grows: spans are closed and opened at random in a heap that has so many of them, and as many free runs of pages
 * between them; and the same with long runs, which are in the trees. An image in memory, no daemon, no floor: the structures alone.
 *
 * With "instructions" for an argument it measures nothing: callgrind counts, for whom no
 * cache has a part.
 */
#include <stdio.h>
#include <string.h>

#include "shm/pageheap.h"
#include "tests/bench/micro/micro.h"
#include "tests/lib/image.h"

#define OWNER 1u

static bool counting;

struct crowd {
	struct test_image *image;
	shmi_page *first; /* of each span or run */
	uint32_t *pages; /* of each run */
	uint32_t count;
	uint64_t random;
};

static uint32_t below(struct crowd *c, uint32_t bound)
{
	return (uint32_t)((next_random(&c->random) >> 32) * bound >> 32);
}

/* ---- spans ---- */

/* Of one to eight pages. */
static void open_span(struct crowd *c, uint32_t i)
{
	static const uint32_t size[] = {64, 1024, 4096, 10240, 32768};

	c->first[i] = test_image_span(c->image, size[below(c, 5)], 0, OWNER);
}

static void close_span(struct crowd *c, uint32_t i)
{
	shmi_pageheap_put(&c->image->img, shmi_span_close(&c->image->img, c->first[i]), 0);
}

static void replace_spans(void *arg, long n)
{
	struct crowd *c = arg;

	while (n--) {
		uint32_t i = below(c, c->count);

		close_span(c, i);
		open_span(c, i);
	}
}

/* ---- long runs ---- */

static void take_run(struct crowd *c, uint32_t i)
{
	struct shmi_run run = test_image_run(c->image, SHMI_EXACT_PAGES + 1 + below(c, 256));

	c->first[i] = run.first;
	c->pages[i] = run.pages.n;
}

static void put_run(struct crowd *c, uint32_t i)
{
	shmi_pageheap_put(&c->image->img, (struct shmi_run){c->first[i], {c->pages[i]}, true}, 0);
}

static void replace_runs(void *arg, long n)
{
	struct crowd *c = arg;

	while (n--) {
		uint32_t i = below(c, c->count);

		put_run(c, i);
		take_run(c, i);
	}
}

/* Twice as many as are wanted are made, then every other one goes. */
static void measure(const char *name, uint32_t count, uint32_t pages_each, void (*make)(struct crowd *, uint32_t),
        void (*drop)(struct crowd *, uint32_t), loop_fn *replace)
{
	struct crowd c = {.image = test_image_new(TEST_MEMFD, 2 * count * pages_each + 4 * SHMI_ARENA_PAGES),
	        .first = pages_new(2 * count * sizeof(*c.first)),
	        .pages = pages_new(2 * count * sizeof(*c.pages)),
	        .count = count,
	        .random = 1};
	char figure[64];

	for (uint32_t i = 0; i < 2 * count; i++)
		make(&c, i);
	for (uint32_t i = 0; i < count; i++) {
		drop(&c, 2 * i);
		c.first[i] = c.first[2 * i + 1];
		c.pages[i] = c.pages[2 * i + 1];
	}
	snprintf(figure, sizeof(figure), "pageheap_%s_%u", name, count);
	if (counting)
		count_instructions(figure, replace, &c);
	else
		say(figure, ns_per_op(replace, &c, 30), "ns");
	test_image_free(c.image);
}

int main(int argc, char **argv)
{
	counting = argc > 1 && strcmp(argv[1], "instructions") == 0;
	for (uint32_t count = 1000; count <= 1000000; count *= 10)
		measure("spans", count, 8, open_span, close_span, replace_spans);
	for (uint32_t count = 100; count <= 10000; count *= 10)
		measure("runs", count, 400, take_run, put_run, replace_runs);
	return 0;
}
