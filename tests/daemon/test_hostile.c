/* Hostile death: whatever stands in ctl when a client dies, or is written there while its death is being dealt with, the daemon
 * takes back what it can trust, passes over the rest, never gives a page to two, and is done in a bounded number of steps.
 *
 * One image is one death: clients that hold and cache something of everything, a fault, the reclaim, and what tests/lib/havoc.h
 * looks at. Kinds of fault are a table (tests/lib/faults.h); each ends with a line of its figures. SHMALLOC_SOAK=1 makes it millions.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/log.h"
#include "tests/lib/faults.h"

TestSuite(hostile, .timeout = 3600);

#define IMAGES 250u /* of each kind */
#define SOAK_SECONDS 330 /* for all kinds */
#define IMAGES_PER_HEAP 40u

/* ---- one image ---- */

struct figures {
	uint64_t images, violations, quarantined, bad, written_off, most_steps;
};

static const struct fault_kind *meddler; /* what happens between the turns of a reclaim */

/* The client is gone from the books of havoc by then; its records are still there. */
static void meddle(struct havoc *h)
{
	if (!test_random_one_in(h->random, 2))
		return;
	if (meddler->ends)
		meddler->fault(h);
	else
		fault_flips(h);
	if (test_random_one_in(h->random, 4))
		fault_bitmaps(h);
}

/* Before the reclaim, during it, or both. */
static const char *one_image(struct havoc *h, const struct fault_kind *kind)
{
	uint32_t when = test_random_below(h->random, 3);

	havoc_live(h);
	if (!h->client[HAVOC_HOSTILE].attached)
		return NULL;
	if (when != 1)
		kind->fault(h);
	meddler = kind;
	h->meddle = when != 0 ? meddle : NULL;
	havoc_die(h, HAVOC_HOSTILE);
	const char *fault = havoc_run(h);

	h->meddle = NULL;
	return fault ? fault : havoc_judge(h);
}

static void add_counters(const struct havoc *h, struct figures *f)
{
	const struct shmi_counters *counters = &h->heap.img.super->counters;

	f->quarantined += shmi_load(&counters->quarantined_pages);
	f->bad += shmi_load(&counters->bad_words);
	f->written_off += shmi_load(&counters->slots_written_off);
}

/* A heap's worth of images. */
static const char *some_images(
        const struct fault_kind *kind, struct test_random *random, uint32_t most, struct figures *f)
{
	struct havoc *h = havoc_new(HAVOC_PAGES, random);
	const char *fault = NULL;
	static char text[320];

	cr_assert(h != NULL);
	for (uint32_t i = 0; i < most && i < IMAGES_PER_HEAP && !fault && !havoc_spent(h); i++) {
		fault = one_image(h, kind);
		f->images++;
		f->most_steps = h->steps > f->most_steps ? h->steps : f->most_steps;
	}
	add_counters(h, f);
	if (fault) {
		f->violations++;
		snprintf(text, sizeof(text), "%s", fault);
		fault = text;
	}
	havoc_free(h);
	return fault;
}

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static const char *campaign(const struct fault_kind *kind, struct test_random *random, struct figures *f)
{
	bool soak = getenv("SHMALLOC_SOAK") != NULL;
	double until = seconds() + (double)SOAK_SECONDS / FAULT_KINDS;
	const char *fault = NULL;

	while (!fault && (soak ? seconds() < until : f->images < IMAGES))
		fault = some_images(kind, random, IMAGES_PER_HEAP, f);
	fprintf(stderr,
	        "hostile death, %s: injections %llu, violations %llu, quarantined %llu pages, passed over %llu words, "
	        "written off %llu slots, at most %llu turns\n",
	        kind->name, (unsigned long long)f->images, (unsigned long long)f->violations,
	        (unsigned long long)f->quarantined, (unsigned long long)f->bad, (unsigned long long)f->written_off,
	        (unsigned long long)f->most_steps);
	return fault;
}

Test(hostile, deaths)
{
	struct test_random random = test_random_init("hostile deaths");
	uint64_t quarantined = 0, bad = 0, written_off = 0;

	log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));

	for (size_t i = 0; i < FAULT_KINDS; i++) {
		struct figures f = {0};
		const char *fault = campaign(&fault_kinds[i], &random, &f);

		cr_assert_null(fault, "%s: %s", fault_kinds[i].name, fault);
		quarantined += f.quarantined;
		bad += f.bad;
		written_off += f.written_off;
	}
	cr_assert_gt(quarantined, 0, "the faults are faults");
	cr_assert_gt(bad, 0);
	cr_assert_gt(written_off, 0);
}

/* ---- somebody writes meanwhile ---- */

static struct scribbler {
	struct havoc *h;
	_Atomic bool stop;
	uint64_t writes;
} scribbler;

/* The heads of records, where one word decides how much is read, and the bitmaps. */
static void *scribble(void *arg)
{
	struct test_random random = {(uintptr_t)arg | 1};
	const struct shmi_geometry geo = scribbler.h->heap.img.geo;
	_Atomic uint64_t *ctl = (_Atomic uint64_t *)(void *)scribbler.h->memory.ctl;

	for (; !scribbler.stop; scribbler.writes++) {
		uint64_t at = geo.bitmaps / 8 + test_random_below(&random, HAVOC_PAGES * 8);

		if (test_random_one_in(&random, 2))
			at = (geo.records + test_random_below(&random, 12) * geo.record_bytes) / 8 +
			     test_random_below(&random, test_random_one_in(&random, 2) ? 24 : 2000);
		ctl[at] = test_random_one_in(&random, 2) ? test_random_below(&random, 520) : test_random_next(&random);
	}
	return NULL;
}

/* What is looked at twice may be two things: a thread writes into ctl for as long as the deaths are dealt with. */
Test(hostile, deaths_under_a_scribbler)
{
	struct test_random random = test_random_init("deaths under a scribbler");
	double until = seconds() + (getenv("SHMALLOC_SOAK") ? 30 : 3);
	struct figures f = {0};
	uint64_t writes = 0;

	log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
	while (seconds() < until) {
		struct havoc *h = havoc_new(HAVOC_PAGES, &random);
		const char *fault = NULL;
		pthread_t thread;

		cr_assert_not_null(h);
		scribbler.h = h;
		scribbler.stop = false;
		scribbler.writes = 0;
		cr_assert_eq(pthread_create(&thread, NULL, scribble, (void *)(uintptr_t)test_random_next(&random)), 0);
		for (uint32_t i = 0; i < IMAGES_PER_HEAP && !fault && !havoc_spent(h); i++, f.images++) {
			uint32_t parts;

			havoc_live(h);
			if (fault_record(h, &parts))
				fault_all_of_record(h);
			havoc_die(h, HAVOC_HOSTILE);
			fault = havoc_run(h);
			if (!fault)
				fault = havoc_judge(h);
		}
		scribbler.stop = true;
		cr_assert_eq(pthread_join(thread, NULL), 0);
		writes += scribbler.writes;
		cr_assert_null(fault, "%s", fault);
		add_counters(h, &f);
		havoc_free(h);
	}
	fprintf(stderr,
	        "hostile death, under a scribbler: injections %llu, violations 0, quarantined %llu pages, passed over "
	        "%llu "
	        "words, %llu writes meanwhile\n",
	        (unsigned long long)f.images, (unsigned long long)f.quarantined, (unsigned long long)f.bad,
	        (unsigned long long)writes);
	cr_assert_gt(f.images, 0);
}
