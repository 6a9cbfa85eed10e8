/* The daemon takes back what a dead client left, whatever stands in ctl: meta stays whole, no page is given to two.
 *
 * An input is a list of writes into a small heap that has lived: where (one byte), offset (three), length (one), bytes. From
 * OF_A_CLIENT on it is not bytes that are written, but what a client writes, of spans that it holds: which span, which word of its
 * bitmap, how, and which of the slots. The first half is written before the client dies; the rest one by one between the turns of
 * the reclaim.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/log.h"
#include "shm/slots.h"
#include "tests/lib/havoc.h"

#define PAGES 256u
#define WRITE_HEAD 5u
#define OF_A_CLIENT 128u
#define TAKEN 128u /* slots that are taken before */

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len);

static struct {
	const unsigned char *at;
	size_t len;
} input;

/* The last client, which is dead by now or not. */
static struct {
	uint32_t thread, own; /* records */
	uint32_t large; /* first page of a large block */
	struct havoc_client is;
} last;

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
	const struct shmi_image *img = &h->heap.img;

	switch (where % 5) {
	case 0:
		*len = img->geo.records;
		return img->ctl;
	case 1:
		*len = PAGES * SHMI_BITMAP_BYTES_PER_PAGE;
		return img->ctl + img->geo.bitmaps;
	case 2:
		*len = sizeof(struct shmi_threadrec);
		return (unsigned char *)shmi_threadrec_at(img, last.thread);
	case 3:
		*len = img->geo.part_bytes;
		return (unsigned char *)shmi_threadrec_at(img, last.thread) + SHMI_THREAD_HEAD_BYTES;
	default:
		*len = sizeof(struct shmi_threadrec);
		return (unsigned char *)shmi_threadrec_at(img, last.own);
	}
}

/* ---- what a client writes ---- */

static void put_entries(struct shmi_image *img, struct shmi_threadrec *rec, const struct shmi_group *g)
{
	const shmi_sclass sclass = {(uint16_t)g->sclass};
	const struct shmi_class *class = &img->classes[shmi_sclass_size_class(sclass)];
	struct shmi_magazine *mag = shmi_magazine_at(img, rec, sclass);
	uint32_t top = shmi_load(&mag->top);

	for (uint64_t bits = g->bits; bits && top < class->mag_cap; bits &= bits - 1) {
		uint32_t slot = g->word * 64 + (uint32_t)__builtin_ctzll(bits);

		shmi_store(&mag->entry[top++], ((uint64_t)g->span << SHMI_PAGE_SHIFT) + (uint64_t)slot * class->size);
	}
	shmi_store(&mag->top, top);
}

static void put_big(const struct shmi_image *img)
{
	struct shmi_bigmag *big = &shmi_threadrec_at(img, last.own)->big;
	uint32_t top = shmi_load(&big->top) % SHMI_BIG_MAX;
	uint64_t generation = shmi_span_word(img, (shmi_page){last.large}).generation;

	shmi_store(&big->entry[top], last.large | generation << 32);
	shmi_store(&big->top, top + 1);
}

/* An intent, a group of the spill, both, entries of a magazine, a large block. */
static void write_as_client(struct shmi_image *img, const unsigned char *head)
{
	const struct wire_span *span = &last.is.held[head[1] % last.is.n_held];
	const struct shmi_word word = shmi_span_word(img, (shmi_page){span->page});
	const struct shmi_class *class = &img->classes[shmi_sclass_size_class(word.sclass)];
	struct shmi_threadrec *rec = shmi_threadrec_at(img, last.thread);
	uint32_t what = head[3] % TAKEN % 5, top = shmi_load(&rec->spill_top) % SHMI_SPILL_MAX;
	struct shmi_group g = {.span = span->page, .generation = span->generation, .sclass = word.sclass.c};

	if (what == 4) {
		put_big(img);
		return;
	}
	if (!shmi_sclass_is_small(word.sclass)) /* the span has gone */
		return;
	g.word = head[2] % class->words;
	g.bits = shmi_slots_mask(class, g.word) & head[4] * 0x0101010101010101ull;
	if (head[3] >= TAKEN) {
		shmi_a64 *word_of = &shmi_bitmap_at(img, (shmi_page){g.span})[g.word];

		shmi_store(word_of, shmi_load(word_of) & ~g.bits);
	}
	if (what == 3) {
		if (last.is.parts & 1u << shmi_sclass_attrs(word.sclass))
			put_entries(img, rec, &g);
		return;
	}
	if (what != 0) {
		rec->spill[top] = g;
		shmi_store(&rec->spill_top, top + 1);
	}
	if (what != 1) {
		rec->intent.group = g;
		shmi_store(&rec->intent.op, head[3] % TAKEN / 5 % (SHMI_INTENT_RECLAIM + 1));
	}
}

/* ---- the input ---- */

/* The next write of the input; false at its end. */
static bool write_one(struct havoc *h)
{
	uint64_t room;

	if (input.len < WRITE_HEAD)
		return false;
	if (input.at[0] >= OF_A_CLIENT) {
		write_as_client(&h->heap.img, input.at);
		input.at += WRITE_HEAD;
		input.len -= WRITE_HEAD;
		return true;
	}
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

/* Spans of small blocks, of many in a page and of one in several, of those that end with the client, and a large block. */
static void grow(struct havoc *h)
{
	static const uint32_t classes[] = {SHMI_ATTRS, 3 * SHMI_ATTRS, 20 * SHMI_ATTRS, 5 * SHMI_ATTRS + SHMI_SCOPED};
	const struct havoc_client *c = &h->client[HAVOC_HOSTILE];

	for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
		(void)havoc_refill(h, HAVOC_HOSTILE, classes[i], 1);
	last.large = havoc_large(h, HAVOC_HOSTILE, 3, 0, false);
	last.is = *c;
	insist(c->n_held ? NULL : "the client holds nothing");
	last.thread = c->threads ? c->thread[0] : 0;
	last.own = h->heap.state->clients[c->caller.client->id].thread;
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
	grow(h);
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
