/* A daemon takes over any image, or refuses it: writes into meta, state and ctl of a small heap that has lived, then the
 * heap check and the dump of a saved image, then the next daemon. What it takes over is whole, and serves.
 *
 * An input is a list of writes: where (one byte), offset (three), length (one), bytes.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/log.h"
#include "shm/check.h"
#include "shm/dump.h"
#include "shm/stats.h"
#include "tests/lib/havoc.h"

#define PAGES 256u
#define WRITE_HEAD 5u

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len);

static void insist(const char *wrong)
{
	if (!wrong)
		return;
	fprintf(stderr, "%s\n", wrong);
	abort();
}

static unsigned char *place(struct havoc *h, unsigned where, uint64_t *len)
{
	const struct shmi_geometry *geo = &h->heap.img.geo;
	unsigned char *meta = h->memory.meta, *state = h->memory.state, *ctl = h->memory.ctl;

	switch (where % 6) {
	case 0:
		*len = sizeof(struct shmi_super);
		return meta;
	case 1:
		*len = geo->fixed_bytes;
		return meta;
	case 2:
		*len = geo->meta_bytes - geo->page_class;
		return meta + geo->page_class;
	case 3:
		*len = 128;
		return state;
	case 4:
		*len = 3 * sizeof(struct shmi_client_state);
		return state + offsetof(struct shmi_state, clients);
	default:
		*len = geo->records + SHMI_THREAD_HEAD_BYTES;
		return ctl;
	}
}

static void write_all(struct havoc *h, const unsigned char *at, size_t len)
{
	while (len >= WRITE_HEAD) {
		uint64_t room, off = at[1] | (uint64_t)at[2] << 8 | (uint64_t)at[3] << 16, n = at[4];
		unsigned char *to = place(h, at[0], &room);

		at += WRITE_HEAD;
		len -= WRITE_HEAD;
		n = n < len ? n : len;
		off %= room;
		n = n < room - off ? n : room - off;
		memcpy(to + off, at, n);
		at += n;
		len -= n;
	}
}

static void swallow(void *ctx, const char *text)
{
	(void)ctx;
	(void)text;
}

/* What shmallocctl does with a saved image. */
static void look_at_saved(const struct havoc *h)
{
	static struct shmi_class_stats rows[SHMI_SPAN_CLASSES];
	const struct heap_memory *m = &h->memory;
	struct shmi_violation found[8];
	struct shmi_heap_stats stats;
	struct shmi_image img;

	if (shmi_image_open(&img, m->meta, m->meta_bytes, m->ctl, m->ctl_bytes))
		return;
	(void)shmi_check(&img, NULL, 1, found, 8);
	shmi_stats_heap(&img, &stats);
	shmi_stats_classes(&img, rows);
	shmi_dump(&img, swallow, NULL);
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len)
{
	struct test_random random = {88172645463325252u};
	struct havoc *h = havoc_new(PAGES, &random);
	static bool quiet;

	if (!h)
		return 0;
	if (!quiet)
		log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
	quiet = true;
	havoc_live(h);
	havoc_die(h, 1);
	insist(havoc_run(h));
	write_all(h, bytes, len);
	look_at_saved(h);
	const char *why = havoc_restart(h);

	if (why && !why[0])
		insist("refused without a word");
	if (!why) {
		insist(havoc_run(h));
		insist(havoc_judge(h));
	}
	havoc_free(h);
	return 0;
}
