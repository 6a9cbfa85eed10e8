/* The daemon takes back what a dead client left, whatever stands in ctl: meta stays whole, no page is given to two.
 *
 * An input is a list of writes into a small heap that has lived: where (one byte), offset (three), length (one), bytes. The first
 * half is written before the client dies; the rest one by one between the turns of the reclaim.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/log.h"
#include "tests/lib/havoc.h"

#define PAGES 256u
#define WRITE_HEAD 5u

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len);

static struct {
	const unsigned char *at;
	size_t len;
} input;

static void insist(const char *wrong)
{
	if (!wrong)
		return;
	fprintf(stderr, "%s\n", wrong);
	abort();
}

/* What one can write into: the head of ctl, the bitmaps, a record's head, its magazines, the process's record. */
static unsigned char *place(struct havoc *h, unsigned where, uint64_t *len)
{
	static uint32_t thread, own; /* the last client's, which is dead by now or not */
	const struct shmi_image *img = &h->heap.img;
	const struct havoc_client *c = &h->client[HAVOC_HOSTILE];

	if (c->attached) {
		thread = c->threads ? c->thread[0] : 0;
		own = h->heap.state->clients[c->caller.client->id].thread;
	}
	switch (where % 5) {
	case 0:
		*len = img->geo.records;
		return img->ctl;
	case 1:
		*len = PAGES * SHMI_BITMAP_BYTES_PER_PAGE;
		return img->ctl + img->geo.bitmaps;
	case 2:
		*len = sizeof(struct shmi_threadrec);
		return (unsigned char *)shmi_threadrec_at(img, thread);
	case 3:
		*len = img->geo.part_bytes;
		return (unsigned char *)shmi_threadrec_at(img, thread) + SHMI_THREAD_HEAD_BYTES;
	default:
		*len = sizeof(struct shmi_threadrec);
		return (unsigned char *)shmi_threadrec_at(img, own);
	}
}

/* The next write of the input; false at its end. */
static bool write_one(struct havoc *h)
{
	uint64_t room;

	if (input.len < WRITE_HEAD)
		return false;
	unsigned char *to = place(h, input.at[0], &room);
	uint64_t off = input.at[1] | (uint64_t)input.at[2] << 8 | (uint64_t)input.at[3] << 16, n = input.at[4];

	input.at += WRITE_HEAD;
	input.len -= WRITE_HEAD;
	n = n < input.len ? n : input.len;
	off %= room;
	n = n < room - off ? n : room - off;
	memcpy(to + off, input.at, n);
	input.at += n;
	input.len -= n;
	return true;
}

static void meddle(struct havoc *h)
{
	(void)write_one(h);
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
	input.at = bytes;
	input.len = len;
	while (input.len > len / 2 && write_one(h))
		;
	h->meddle = meddle;
	havoc_die(h, HAVOC_HOSTILE);
	insist(havoc_run(h));
	h->meddle = NULL;
	insist(havoc_judge(h));
	havoc_free(h);
	return 0;
}
