/* A daemon takes over a heap whose meta or state was damaged: bits flipped, words overwritten. It refuses in words and changes
 * nothing, or takes over a heap that is whole again and goes on serving; it never crashes and never goes round in circles.
 *
 * Meta and state are the daemon's own, so this is no attack: it is the disk, the memory, the hand of a person. What nobody can
 * see (another client's number in a record, say) is taken for the truth, and then everything has to agree with it.
 * SHMALLOC_SOAK=1 flips every bit of what is short and thousands of each table, and goes on with random damage.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/log.h"
#include "shm/walk.h"
#include "tests/lib/havoc.h"

TestSuite(hostile_adopt, .timeout = 3600);

#define PAGES 256u
#define SAMPLE 400u /* images of each kind */
#define SOAK_SECONDS 60
#define SOAK_BITS 6000u /* of each part */

/* ---- a heap, and how to have it back ---- */

struct part {
	unsigned char *at;
	uint64_t len;
	unsigned char *saved;
};

#define PARTS 4u

struct image {
	struct havoc *h;
	struct part part[PARTS]; /* meta; the head of state, and its first clients; what is used of ctl */
};

static void save(struct part *part, void *at, uint64_t len)
{
	*part = (struct part){at, len, malloc(len)};
	cr_assert_not_null(part->saved);
	memcpy(part->saved, at, len);
}

static void image_init(struct image *image, struct test_random *random)
{
	struct havoc *h = havoc_new(PAGES, random);

	cr_assert_not_null(h);
	log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
	for (int i = 0; i < 3; i++) { /* central spans and large blocks of nobody as well */
		havoc_live(h);
		havoc_die(h, 1);
		cr_assert_null(havoc_run(h));
	}
	havoc_live(h);
	image->h = h;
	save(&image->part[0], h->memory.meta, h->memory.meta_bytes);
	save(&image->part[1], h->memory.state, 4096);
	save(&image->part[2], h->heap.state->clients, HAVOC_CLIENTS * sizeof(struct shmi_client_state));
	save(&image->part[3], h->memory.ctl, h->heap.img.geo.records + 12 * h->heap.img.geo.record_bytes);
}

static void image_deinit(struct image *image)
{
	for (uint32_t i = 0; i < PARTS; i++)
		free(image->part[i].saved);
	havoc_free(image->h);
}

static void restore(struct part *part)
{
	for (uint64_t at = 0; at < part->len; at += 4096) { /* most of it has not changed: do not touch it */
		uint64_t len = part->len - at < 4096 ? part->len - at : 4096;

		if (memcmp(part->at + at, part->saved + at, len) != 0)
			memcpy(part->at + at, part->saved + at, len);
	}
}

/* ---- one try ---- */

struct figures {
	uint64_t images, refused, violations;
};

/* The next daemon over the image as it is now; NULL, or what is wrong. Then everything is as before. */
static const char *try(struct image *image, struct figures *f)
{
	static char text[300];
	struct havoc *h = image->h;
	const char *fault = NULL, *why = havoc_restart(h);

	f->images++;
	if (why && !why[0])
		fault = "refused without a word";
	f->refused += why != NULL;
	if (!why) {
		fault = havoc_run(h);
		if (!fault)
			fault = havoc_judge(h);
	}
	if (fault) {
		f->violations++;
		snprintf(text, sizeof(text), "%s", fault);
	}
	for (uint32_t i = 0; i < PARTS; i++)
		restore(&image->part[i]);
	memset(h->backed, 1, PAGES);
	return fault ? text : NULL;
}

static bool changes_nothing(struct image *image)
{
	unsigned char *before = malloc(image->part[0].len);
	bool same = true;

	cr_assert_not_null(before);
	memcpy(before, image->part[0].at, image->part[0].len);
	const char *why = havoc_restart(image->h);

	if (why)
		same = memcmp(before, image->part[0].at, image->part[0].len) == 0;
	free(before);
	for (uint32_t i = 0; i < PARTS; i++)
		restore(&image->part[i]);
	return same;
}

/* ---- bits ---- */

/* Where bits matter: all of meta but the records of threads and roots that nobody uses, and the heads of the clients. */
static struct part some_part(struct image *image, uint32_t n)
{
	const struct shmi_geometry *geo = &image->h->heap.img.geo;
	unsigned char *meta = image->part[0].at;
	const struct part parts[] = {{meta, sizeof(struct shmi_super), NULL},
	        {meta + geo->classes, SHMI_CLASSES * sizeof(struct shmi_class), NULL},
	        {meta + geo->pageheap, sizeof(struct shmi_pageheap_heads), NULL},
	        {meta + geo->central, SHMI_SPAN_CLASSES * sizeof(struct shmi_central_lists), NULL},
	        {meta + geo->owners, 16 * sizeof(struct shmi_owner), NULL},
	        {meta + geo->threads, 16 * sizeof(struct shmi_thread_slot), NULL},
	        {meta + geo->roots, 10 * sizeof(struct shmi_root), NULL}, {meta + geo->page_class, PAGES * 2, NULL},
	        {meta + geo->page_span, PAGES * 4, NULL}, {meta + geo->spans, PAGES * sizeof(struct shmi_span), NULL},
	        {image->part[1].at, 128, NULL}, {image->part[2].at, 160, NULL},
	        {image->part[2].at + sizeof(struct shmi_client_state), 160, NULL},
	        {image->part[3].at, sizeof(struct shmi_ctl_head), NULL}};

	return n < sizeof(parts) / sizeof(parts[0]) ? parts[n] : (struct part){0};
}

#define BIT_PARTS 14u

static void flip(const struct part *part, uint64_t bit)
{
	part->at[bit / 8] ^= (unsigned char)(1 << bit % 8);
}

static void report(const char *what, const struct figures *f)
{
	fprintf(stderr, "adoption, %s: injections %llu, refused %llu, violations %llu\n", what,
	        (unsigned long long)f->images, (unsigned long long)f->refused, (unsigned long long)f->violations);
}

static bool soak(void)
{
	return getenv("SHMALLOC_SOAK") != NULL;
}

Test(hostile_adopt, bits)
{
	struct test_random random = test_random_init("adoption of flipped bits");
	struct figures f = {0};
	struct image image;

	image_init(&image, &random);
	cr_assert_null(try(&image, &f), "the image is sound");
	cr_assert_eq(f.refused, 0);
	for (uint32_t n = 0; n < BIT_PARTS; n++) {
		struct part part = some_part(&image, n);
		uint64_t bits = part.len * 8, step = 1 + bits / (soak() ? SOAK_BITS : SAMPLE / 4);
		uint64_t bit = test_random_below(&random, (uint32_t)step);

		for (; bit < bits; bit += step) {
			flip(&part, bit);
			const char *fault = try(&image, &f);

			cr_assert_null(fault, "part %u, bit %llu: %s", n, (unsigned long long)bit, fault);
		}
	}
	report("one bit flipped", &f);
	cr_assert_gt(f.refused, 0);
	cr_assert_lt(f.refused, f.images);
	image_deinit(&image);
}

/* ---- more than that ---- */

static void damage(struct image *image, struct test_random *random)
{
	static const uint64_t edges[] = {0, 1, ~0ull, 1ull << 31, 1ull << 63, PAGES, PAGES - 1};
	uint32_t left = 1 + test_random_below(random, 6);

	while (left--) {
		struct part part = some_part(image, test_random_below(random, BIT_PARTS));
		uint32_t at = test_random_below(random, (uint32_t)part.len / 4) * 4;
		uint32_t len = test_random_length(random, 64), how = test_random_below(random, 3);

		if (how == 0)
			flip(&part, test_random_below(random, (uint32_t)part.len * 8));
		for (uint32_t i = 0; how == 1 && i < len && at + i < part.len; i++)
			part.at[at + i] = (unsigned char)test_random_next(random);
		if (how == 2)
			memcpy(part.at + at, &edges[test_random_below(random, 7)],
			        test_random_one_in(random, 2) ? 2 : 4);
	}
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

Test(hostile_adopt, words)
{
	struct test_random random = test_random_init("adoption of overwritten words");
	double until = seconds() + SOAK_SECONDS;
	struct figures f = {0};
	struct image image;

	image_init(&image, &random);
	while (soak() ? seconds() < until : f.images < 2 * SAMPLE) {
		damage(&image, &random);
		const char *fault = try(&image, &f);

		cr_assert_null(fault, "image %llu: %s", (unsigned long long)f.images, fault);
	}
	report("words overwritten", &f);
	image_deinit(&image);
}

/* Who is refused finds meta as he left it. */
Test(hostile_adopt, who_is_refused_is_not_touched)
{
	struct test_random random = test_random_init("refused, not touched");
	struct image image;

	image_init(&image, &random);
	for (uint32_t i = 0; i < SAMPLE / 4; i++) {
		damage(&image, &random);
		cr_assert(changes_nothing(&image));
	}
	image_deinit(&image);
}
