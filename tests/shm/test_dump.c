#include "shm/dump.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "shm/roots.h"
#include "shm/text.h"
#include "tests/lib/lived.h"

TestSuite(dump, .timeout = 60);

struct lines {
	char text[64 * 1024];
	size_t len;
};

static void collect(void *ctx, const char *text)
{
	struct lines *l = ctx;

	cr_assert_leq(strlen(text), 200);
	cr_assert_null(strchr(text, '\n'));
	l->len += (size_t)snprintf(l->text + l->len, sizeof(l->text) - l->len, "%s\n", text);
	cr_assert_lt(l->len, sizeof(l->text));
}

static void has(const struct lines *l, const char *line)
{
	cr_assert_not_null(strstr(l->text, line), "no '%s' in\n%s", line, l->text);
}

TEST_ON_IMAGES(dump, lived_heap, LIVED_LIMIT)
{
	static struct lines l;
	struct lived h;
	char line[200];

	lived_init(&h, t);
	h.rec[0]->intent.group = lived_group(&h, h.held, 1, 0xf0);
	shmi_store(&h.rec[0]->intent.op, SHMI_INTENT_TAKE);
	shmi_roots_set(&t->img, "gone", (shmi_off){16 * SHMI_MIB}, 2);
	l.len = 0;
	shmi_dump(&t->view, collect, &l);
	has(&l, "heap test: 9192 pages of 8192 bytes, 8192 published, base 200000000000, id 1234, generation 0\n");
	snprintf(line, sizeof(line), "pages: owned %u, central 41,", 1 + 1 + h.wide_pages + 40 + 33 + 33);
	has(&l, line);
	has(&l, "counter slots_written_off: 1\n");
	has(&l, "client 1: 4 spans, 92 pages\n");
	snprintf(line, sizeof(line),
	        "run %u: OWNED, 1 pages, class 16 (64 B), owner 1, generation 1, 64 of 128 slots free, 0", h.held.i);
	has(&l, line);
	snprintf(line, sizeof(line), "run %u: LARGE, 50 pages, class 306 (large noscan), owner 1,", h.lazy.i);
	has(&l, line);
	has(&l, " 400000 bytes, lazy\n");
	snprintf(line, sizeof(line), "run %u: RETURNED, 10 pages, stamp 2\n", h.short_returned.i);
	has(&l, line);
	snprintf(line, sizeof(line), "run %u: QUARANTINE, 1 pages, class 32 (128 B)", h.odd.i);
	has(&l, line);
	has(&l, "central 4 (16 B): 1 with free slots, 0 without\n");
	has(&l, "thread 0: client 1, tid 0, parts f, spill 0, big 0\n");
	snprintf(line, sizeof(line), "  intent: take, span %u, generation 1, word 1, bits f0\n", h.held.i);
	has(&l, line);
	has(&l, "  magazine 16 (64 B): 54\n");
	has(&l, "(256 B scoped): 30\n");
	has(&l, "thread 1: client 2, tid 0, parts 1, spill 1, big 0\n");
	has(&l, "root first: offset 8192, set by client 1\n");
	has(&l, "root gone: offset 16777216, set by client 2, no block begins there\n");
}

/* What has no legal record is said to have none, and the rest is printed. */
TEST_ON_IMAGES(dump, damaged_heap, LIVED_LIMIT)
{
	static struct lines l;
	struct shmi_image img;
	struct lived h;
	char line[200];

	lived_init(&h, t);
	shmi_store(&shmi_span_at(&t->img, h.wide)->word, 0);
	shmi_span_at(&t->img, (shmi_page){h.long_free.i})->pages = UINT32_MAX;
	shmi_store(&shmi_span_at(&t->img, h.odd)->word,
	        shmi_word_pack((struct shmi_word){.state = SHMI_SPAN_QUARANTINE, .sclass = {4000}}));
	shmi_store(&h.rec[0]->intent.op, 99);
	l.len = 0;
	shmi_dump(&t->view, collect, &l);
	snprintf(line, sizeof(line), "pages %u to %u: no run\n", h.wide.i, h.wide.i + h.wide_pages - 1);
	has(&l, line);
	has(&l, "class 4000 (class?)");
	has(&l, "  intent: op?,");
	img = t->view;
	img.ctl = NULL;
	l.len = 0;
	shmi_dump(&img, collect, &l);
	has(&l, "0 of 128 slots free");
	cr_assert_null(strstr(l.text, "thread"));
	l.len = 0;
	shmi_store(&shmi_span_at(&t->img, (shmi_page){1})->word, 0);
	shmi_store(&t->img.super->published_pages, 2);
	shmi_dump(&t->view, collect, &l);
	has(&l, "pages 1 to 1: no run\n");
}

Test(dump, state_names)
{
	cr_assert_str_eq(shmi_state_name(SHMI_SPAN_NONE), "NONE");
	cr_assert_str_eq(shmi_state_name(SHMI_SPAN_QUARANTINE), "QUARANTINE");
	cr_assert_str_eq(shmi_state_name(SHMI_SPAN_SEIZED), "SEIZED");
	cr_assert_str_eq(shmi_state_name(9), "state?");
}

Test(dump, text)
{
	char buf[64];

	size_t len =
	        shmi_text(buf, sizeof(buf), "%u %lu %x %lx %s %c %%", 0u, UINT64_MAX, 0xabu, 1ul << 63, "str", 'c');

	cr_assert_eq(len, strlen(buf));
	cr_assert_str_eq(buf, "0 18446744073709551615 ab 8000000000000000 str c %");
}

Test(dump, text_is_cut)
{
	char buf[5] = "xxxx";

	cr_assert_eq(shmi_text(buf, sizeof(buf), "%u", 1234567u), 4);
	cr_assert_str_eq(buf, "1234");
	cr_assert_eq(shmi_text(buf, 1, "%s", "a"), 0);
	cr_assert_str_eq(buf, "");
}
