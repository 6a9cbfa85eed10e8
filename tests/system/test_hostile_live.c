/* A hostile process on a real daemon: it attaches like any other, then scribbles over ctl, punches holes into it, cuts it or
 * data short, and dies, or goes on while another one dies. The daemon lives and answers; a heap that can go on serves others;
 * one that cannot is fenced, and the next start refuses it in words until --reset.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proto/chan.h"
#include "proto/codec.h"
#include "shm/image.h"
#include "tests/lib/child.h"
#include "tests/lib/daemon.h"
#include "tests/lib/random.h"

TestSuite(hostile_live, .timeout = 600);

#define WAIT_MS 20000
#define SHARED64 (4 * SHMI_ATTRS)
#define ROUNDS (getenv("SHMALLOC_SOAK") ? 200 : 12)

/* ---- a client by hand ---- */

struct peer {
	int sock;
	int fds[WIRE_FDS]; /* meta, ctl, data */
	uint64_t serial;
	struct wire_attach_ok ok;
	uint32_t thread;
	unsigned char *ctl;
};

static struct wire_msg req, reply;
static struct codec_scratch scratch;
static unsigned char bytes[WIRE_MAX];

static enum wire_kind ask(struct peer *p, int *fds)
{
	int64_t deadline = shmi_chan_now_ns() + WAIT_MS * 1000000ll;
	unsigned n = WIRE_FDS;
	int none[WIRE_FDS];
	size_t len;

	req.serial = ++p->serial;
	child_check(!shmi_codec_encode(&req, &scratch, bytes, sizeof(bytes), &len));
	if (shmi_chan_send(p->sock, bytes, len, NULL, 0))
		return WIRE_NONE;
	child_check(!shmi_chan_wait(p->sock, 0, deadline));
	if (shmi_chan_recv(p->sock, bytes, sizeof(bytes), &len, fds ? fds : none, &n))
		return WIRE_NONE;
	child_check(!shmi_codec_decode(&reply, &scratch, bytes, len));
	return reply.kind;
}

static void greet(struct peer *p, const struct test_daemon *d)
{
	*p = (struct peer){.sock = -1};
	child_check(!shmi_chan_connect(d->socket, &p->sock));
	req = (struct wire_msg){.kind = WIRE_HELLO};
	req.u.hello = (struct wire_hello){
	        .protocol = WIRE_PROTOCOL, .layout_hash = shmi_layout_hash(), .version = "test", .label = "hostile"};
	child_check(ask(p, NULL) == WIRE_HELLO_OK);
}

static bool attach(struct peer *p, const struct test_daemon *d)
{
	greet(p, d);
	req = (struct wire_msg){.kind = WIRE_ATTACH};
	snprintf(req.u.attach.heap, sizeof(req.u.attach.heap), "%s", d->heap);
	if (ask(p, p->fds) != WIRE_ATTACH_OK)
		return false;
	p->ok = reply.u.attach_ok;
	p->serial = 0;
	return true;
}

static uint32_t refill(struct peer *p, uint32_t sclass, uint32_t spans)
{
	req = (struct wire_msg){.kind = WIRE_REFILL};
	req.u.refill.n_wants = 1;
	req.u.refill.wants[0] = (struct wire_want){sclass, spans};
	return ask(p, NULL) == WIRE_REFILL_OK ? reply.u.refill_ok.n_grants : 0;
}

/* With a thread record, some spans, and ctl mapped. */
static void settle_in(struct peer *p, const struct test_daemon *d)
{
	child_check(attach(p, d));
	req = (struct wire_msg){.kind = WIRE_THREAD, .u.thread = {.thread = SHMI_NO_THREAD, .parts = 1}};
	child_check(ask(p, NULL) == WIRE_THREAD_OK);
	p->thread = reply.u.thread_ok.thread;
	child_check(refill(p, SHARED64, 4) == 4);
	child_check(refill(p, SHARED64 + SHMI_SCOPED, 4) == 4);
	p->ctl = mmap(NULL, p->ok.ctl_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, p->fds[1], 0);
	child_check(p->ctl != MAP_FAILED);
}

static void leave(struct peer *p)
{
	close(p->sock);
	for (unsigned i = 0; i < WIRE_FDS && p->ctl; i++)
		close(p->fds[i]);
}

static struct wire_stats stats(const struct test_daemon *d)
{
	struct peer p;

	greet(&p, d);
	req = (struct wire_msg){.kind = WIRE_QUERY, .u.query = {.kind = WIRE_Q_STATS}};
	child_check(ask(&p, NULL) == WIRE_STATS);
	close(p.sock);
	return reply.u.stats;
}

/* Waits until so many clients are left: the daemon has dealt with the death. */
static void wait_for_clients(const struct test_daemon *d, uint32_t clients)
{
	long long limit = test_now_ms() + WAIT_MS;

	while (stats(d).clients != clients)
		cr_assert_lt(test_now_ms(), limit, "%u clients are left", stats(d).clients);
}

/* ---- deeds ---- */

struct deed {
	const struct test_daemon *d;
	void (*what)(struct peer *p, struct test_random *random);
	uint64_t seed;
};

/* The part of ctl that is in use. */
static uint64_t used(const struct peer *p, struct shmi_geometry *geo)
{
	shmi_geometry_init(geo, (uint32_t)(p->ok.data_bytes >> SHMI_PAGE_SHIFT));
	return geo->records + 4 * geo->record_bytes;
}

static void scribble_record(struct peer *p, struct test_random *random)
{
	struct shmi_geometry geo;
	uint64_t *words;

	(void)used(p, &geo);
	words = (uint64_t *)(void *)(p->ctl + geo.records + p->thread * geo.record_bytes);
	for (uint32_t i = 0; i < (SHMI_THREAD_HEAD_BYTES + geo.part_bytes) / 8; i++)
		words[i] = test_random_next(random);
}

static void scribble_bitmaps(struct peer *p, struct test_random *random)
{
	struct shmi_geometry geo;
	uint64_t *words;

	(void)used(p, &geo);
	words = (uint64_t *)(void *)(p->ctl + geo.bitmaps);
	for (uint32_t i = 0; i < 4096; i++)
		words[i] = test_random_next(random);
}

static void scribble_all(struct peer *p, struct test_random *random)
{
	struct shmi_geometry geo;
	uint64_t *words = (uint64_t *)(void *)p->ctl;
	uint64_t from;

	(void)used(p, &geo);
	for (from = 0; from < 8192 / 8; from++)
		words[from] = test_random_next(random);
	scribble_bitmaps(p, random);
	scribble_record(p, random);
}

static void punch(int fd, uint64_t len)
{
	child_check(!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)len));
}

static void punch_ctl(struct peer *p, struct test_random *random)
{
	(void)random;
	punch(p->fds[1], p->ok.ctl_bytes);
}

static void punch_data(struct peer *p, struct test_random *random)
{
	(void)random;
	punch(p->fds[2], p->ok.data_bytes);
}

static void cut_ctl(struct peer *p, struct test_random *random)
{
	child_check(!ftruncate(p->fds[1], (off_t)test_random_below(random, 1u << 20)));
}

static void cut_data(struct peer *p, struct test_random *random)
{
	child_check(!ftruncate(p->fds[2], (off_t)test_random_below(random, 1u << 20)));
}

static int do_and_die(void *arg)
{
	const struct deed *deed = arg;
	struct test_random random = {deed->seed | 1};
	struct peer p;

	settle_in(&p, deed->d);
	deed->what(&p, &random);
	kill(getpid(), SIGKILL);
	return 1;
}

static void die_by(const struct test_daemon *d, void (*what)(struct peer *p, struct test_random *random), uint64_t seed)
{
	struct deed deed = {.d = d, .what = what, .seed = seed};
	int status;
	pid_t pid = child_start(do_and_die, &deed);

	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the hostile client failed: %x", status);
}

/* ---- the heap goes on ---- */

/* What another client holds, and what one who comes then is granted, are apart. */
static void grants_are_apart(const struct test_daemon *d, const uint32_t *held, uint32_t n_held)
{
	struct peer p;

	cr_assert(attach(&p, d), "%s", reply.u.error.text);
	for (uint32_t c = 1; c < 40; c++) {
		refill(&p, c * SHMI_ATTRS, 3);
		for (uint32_t i = 0; i < reply.u.refill_ok.n_grants; i++)
			for (uint32_t k = 0; k < n_held; k++)
				cr_assert_neq(reply.u.refill_ok.grants[i].page, held[k], "page %u was handed out twice",
				        held[k]);
	}
	for (unsigned i = 0; i < WIRE_FDS; i++)
		close(p.fds[i]);
	req = (struct wire_msg){.kind = WIRE_DETACH};
	cr_assert_eq(ask(&p, NULL), WIRE_OK);
	close(p.sock);
}

static void survives(const char *name, void (*what)(struct peer *p, struct test_random *random), bool holes)
{
	struct test_random random = test_random_init(name);
	const char *const args[] = {"--scavenge-delay", "40", NULL};
	const struct test_daemon_options options = {.args = args};
	uint32_t held[64], n = 0;
	struct test_daemon d;
	struct peer good;
	long long limit;
	int rounds = ROUNDS;

	cr_assert_eq(test_daemon_start(&d, &options), 0);
	cr_assert(attach(&good, &d));
	for (uint32_t c = 1; c <= 16; c++) {
		cr_assert_eq(refill(&good, c * SHMI_ATTRS, 2), 2);
		for (uint32_t i = 0; i < 2; i++)
			held[n++] = reply.u.refill_ok.grants[i].page;
	}
	for (int i = 0; i < rounds; i++) {
		die_by(&d, what, test_random_next(&random));
		wait_for_clients(&d, 1);
		cr_assert_eq(stats(&d).damaged, 0);
		grants_are_apart(&d, held, n);
	}
	limit = test_now_ms() + WAIT_MS;
	while (holes && !stats(&d).counters[15])
		cr_assert_lt(test_now_ms(), limit, "the holes are not filled");
	if (holes) {
		struct stat st;
		struct shmi_geometry geo;

		(void)used(&good, &geo);
		limit = test_now_ms() + WAIT_MS;
		do
			cr_assert(!fstat(good.fds[1], &st) && test_now_ms() < limit);
		while ((uint64_t)st.st_blocks * 512 < 4096 + 8192 * 68);
	}
	/* The head of ctl is written anew at the next look; before that a kill would leave a heap that is refused. */
	uint64_t magic = 0;

	limit = test_now_ms() + WAIT_MS;
	while (pread(good.fds[1], &magic, sizeof(magic), 0) != sizeof(magic) || magic != SHMI_CTL_MAGIC)
		cr_assert_lt(test_now_ms(), limit, "the head of ctl is not mended");
	struct wire_stats st = stats(&d);

	fprintf(stderr,
	        "live, %s: injections %d, violations 0, quarantined %llu KiB, passed over %llu words, mended %llu "
	        "KiB\n",
	        name, rounds, (unsigned long long)st.quarantined >> 10, (unsigned long long)st.counters[14],
	        (unsigned long long)st.counters[15] * 4);
	/* The next daemon takes it over, and what was set aside stays so. */
	test_daemon_kill(&d);
	cr_assert_eq(test_daemon_start_again(&d, &options), 0);
	cr_assert_geq(stats(&d).quarantined, st.quarantined);
	grants_are_apart(&d, held, n);
	close(good.sock);
	cr_assert_eq(test_daemon_end(&d), 0);
}

Test(hostile_live, a_scribbled_record)
{
	survives("a scribbled record", scribble_record, false);
}

Test(hostile_live, scribbled_bitmaps)
{
	survives("scribbled bitmaps", scribble_bitmaps, false);
}

Test(hostile_live, all_scribbled)
{
	survives("all scribbled", scribble_all, false);
}

Test(hostile_live, punched_ctl)
{
	survives("punched ctl", punch_ctl, true);
}

Test(hostile_live, punched_data)
{
	survives("punched data", punch_data, true);
}

/* ---- the heap cannot go on ---- */

static void fences(const char *name, void (*what)(struct peer *p, struct test_random *random))
{
	struct test_random random = test_random_init(name);
	const struct test_daemon_options reset = {.args = (const char *const[]){"--reset", NULL}};
	struct test_daemon d;
	struct peer good, late;
	char said[4096];
	long long limit;
	int rounds = ROUNDS / 4;

	for (int i = 0; i < rounds; i++) {
		cr_assert_eq(test_daemon_start(&d, NULL), 0);
		cr_assert(attach(&good, &d));
		die_by(&d, what, test_random_next(&random));
		limit = test_now_ms() + WAIT_MS;
		while (i % 2 && !stats(&d).damaged) /* by itself, though nobody asks the heap for anything */
			cr_assert_lt(test_now_ms(), limit, "the cut is not noticed");
		cr_assert_eq(refill(&good, SHARED64, 1), 0);
		cr_assert_eq(reply.u.error.code, WIRE_E_DAMAGED);
		cr_assert_not(attach(&late, &d));
		cr_assert_eq(reply.u.error.code, WIRE_E_DAMAGED);
		cr_assert_eq(stats(&d).damaged, 1);
		leave(&good);
		close(late.sock);
		if (i % 2)
			cr_assert_eq(test_daemon_stop(&d), 0);
		else
			test_daemon_kill(&d);
		cr_assert_eq(test_daemon_refused(&d, NULL, said, sizeof(said)), 1);
		cr_assert(strstr(said, "short") && strstr(said, "--reset"), "%s", said);
		cr_assert_eq(test_daemon_start_again(&d, &reset), 0);
		cr_assert(attach(&good, &d));
		cr_assert_eq(refill(&good, SHARED64, 1), 1);
		close(good.sock);
		cr_assert_eq(test_daemon_end(&d), 0);
	}
	fprintf(stderr, "live, %s: injections %d, violations 0\n", name, rounds);
}

Test(hostile_live, cut_ctl_fences)
{
	fences("cut ctl", cut_ctl);
}

Test(hostile_live, cut_data_fences)
{
	fences("cut data", cut_data);
}

/* ---- while others die ---- */

/* Writes anywhere in the bitmaps and the first records until it is killed. */
static int scribble_on(void *arg)
{
	const struct deed *deed = arg;
	struct test_random random = {deed->seed | 1};
	struct shmi_geometry geo;
	struct peer p;

	settle_in(&p, deed->d);
	uint64_t n = used(&p, &geo) / 8;
	_Atomic uint64_t *words = (_Atomic uint64_t *)(void *)p.ctl;

	while (getpid() > 1) {
		uint64_t at = test_random_next(&random) % n;

		/* Half of the time where it hurts most: heads of records, whose fill levels and intents are there. */
		if (at & 1)
			at = (geo.records + at % 8 * geo.record_bytes) / 8 + test_random_below(&random, 400);
		if (at >= 512) /* the head of ctl stays: newcomers look at it */
			words[at] = test_random_one_in(&random, 2) ? test_random_below(&random, 4)
			                                           : test_random_next(&random);
	}
	return 0;
}

static void nothing(struct peer *p, struct test_random *random)
{
	(void)p;
	(void)random;
}

Test(hostile_live, deaths_under_a_scribbler)
{
	struct test_random random = test_random_init("deaths under a scribbler");
	struct test_daemon d;
	int rounds = ROUNDS * 2, status;

	cr_assert_eq(test_daemon_start(&d, NULL), 0);
	struct deed deed = {.d = &d, .seed = test_random_next(&random)};
	pid_t pid = child_start(scribble_on, &deed);

	for (int i = 0; i < rounds; i++)
		die_by(&d, i % 2 ? nothing : scribble_record, test_random_next(&random));
	kill(pid, SIGKILL);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	wait_for_clients(&d, 0);
	cr_assert_eq(stats(&d).damaged, 0);
	grants_are_apart(&d, NULL, 0);
	fprintf(stderr, "live, deaths under a scribbler: injections %d, violations 0, quarantined %llu KiB\n", rounds,
	        (unsigned long long)stats(&d).quarantined >> 10);
	cr_assert_eq(test_daemon_end(&d), 0);
}
