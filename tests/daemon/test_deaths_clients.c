/* The daemon is killed after every store of what makes and ends clients and of what they are given that was there before: attach, thread
 * records, central spans, a block that takes several turns, detach, reclaim, recovery with a dead client. See test_deaths.c. */
#include "tests/daemon/history.h"

#include <sys/stat.h>
#include <sys/syscall.h>

#include "tests/lib/child.h"

/* ---- coming and having ---- */

static void central(struct deaths *d)
{
	history(d);
	uint32_t page =
	        span(d, &d->asker, SHARED(C64)); /* of the asker's own user: another's would be wiped, and comes last */

	use(d, page, 0, 7);
	give_back(d, &d->asker, page);
	cr_assert_eq(word(d, page).state, SHMI_SPAN_CENTRAL);
	want(refill(d), SHARED(C64), 2); /* one that nobody holds, and a fresh one */
}
DEATHS(refill_from_the_central_lists, .prepare = central)

static void new_record(struct deaths *d)
{
	history(d);
	request(d, WIRE_THREAD)->u.thread = (struct wire_thread){.thread = SHMI_NO_THREAD, .parts = 3};
}
DEATHS(record_made, .prepare = new_record)

/* A process that is no client yet: its nonce is its own, so that it is known when it comes again. */
static void newcomer(struct deaths *d)
{
	history(d);
	d->asker = (struct death_client){.peer = world_living(0), .id = d->other.id + 1, .nonce = 4711};
	d->asker.dialogue = test_core_connect_as(d->t, d->asker.peer);
	d->req = (struct wire_msg){.kind = WIRE_ATTACH};
	d->req.u.attach = (struct wire_attach){.heap = "default", .nonce = d->asker.nonce};
}
DEATHS(attach, .prepare = newcomer)

/* ---- a large block ---- */

static void large_turns(struct deaths *d)
{
	large(d, 600, false, 0);
}
DEATHS_IN(large_block_in_several_turns, 1024, .prepare = large_turns)

/* ---- leaving ---- */

static void cached(struct deaths *d)
{
	history(d);
	uint32_t thread = record(d, &d->asker, 1 | 1 << SHMI_SCOPED);

	cache(d, thread, own_span, 0, 0xf0f0, 3);
	cache(d, thread, own_scoped, 0, 0xff0, 2);
	cr_assert_neq(test_core_large(d->t, d->asker.dialogue, 3, SHMI_SCOPED, false), 0);
	cr_assert_neq(test_core_large(d->t, d->asker.dialogue, 4, 0, false), 0);
	request(d, WIRE_DETACH);
}
DEATHS(detach, .prepare = cached)

/* ---- the death of a client ---- */

static struct death_client victim;

static void victims_spans(struct deaths *d)
{
	history(d);
	victim = deaths_attach(d, world_dead(1000));
	uint32_t thread = record(d, &victim, 1 | 1 << SHMI_SCOPED), second = record(d, &victim, 1);
	uint32_t shared = span(d, &victim, SHARED(C64)), scoped = span(d, &victim, SCOPED(C64)),
	         idle = span(d, &victim, SHARED(C128));

	cache(d, thread, shared, 0, 0xffff, 6);
	cache(d, thread, scoped, 0, 0xff, 2);
	cache(d, thread, idle, 0, 0xff, 0);
	cache(d, second, shared, 1, 0xff, 0);
	struct shmi_bigmag *big = &shmi_threadrec_at(image(d), d->t->heap.state->clients[victim.id].thread)->big;

	uint32_t kept = test_core_large(d->t, victim.dialogue, 3, 0, false);
	uint32_t cached_one = test_core_large(d->t, victim.dialogue, 4, 0, false);

	set_root(d, &d->other, "victims", kept);
	shmi_store(&big->entry[0], cached_one | (uint64_t)word(d, cached_one).generation << 32);
	shmi_store(&big->top, 1);
	cr_assert_neq(test_core_large(d->t, victim.dialogue, 5, SHMI_SCOPED, false), 0);
}

static void reclaim(struct deaths *d)
{
	test_core_kill(d->t, victim.dialogue);
	test_core_hang_up(d->t, victim.dialogue);
	test_core_run(d->t);
}
DEATHS(reclaim, .prepare = victims_spans, .act = reclaim)
DEATHS(recovery_with_a_dead_client, .prepare = victims_spans, .act = reclaim, .recovery = true)

/* ---- eviction ---- */

static int wait_for_death(void *unused)
{
	(void)unused;
	return pause();
}

/* A process of its own, which lives as long as the test: the asker and the other are this one. */
static struct death_client attach_child(struct deaths *d)
{
	static pid_t pid;
	struct stat st;

	if (!pid)
		pid = child_start(wait_for_death, NULL);
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

	cr_assert(pidfd >= 0 && !fstat(pidfd, &st));
	close(pidfd);
	return deaths_attach(d, (struct peer){.pid = pid, .uid = 1000, .gid = 1000, .pidfd = -1, .inode = st.st_ino});
}

static void evict(struct deaths *d)
{
	history(d);
	victim = attach_child(d);
	uint32_t shared = span(d, &victim, SHARED(C64)), scoped = span(d, &victim, SCOPED(C64));

	cache(d, record(d, &victim, 1), shared, 0, 0xffff, 6);
	use(d, scoped, 0, 7);
	request(d, WIRE_EVICT)->u.evict.client = victim.id;
}
DEATHS(evict, .prepare = evict)

static void trim_one(struct deaths *d)
{
	evict(d);
	request(d, WIRE_TRIM)->u.trim = (struct wire_trim){.one = true, .client = victim.id};
}
DEATHS(trim_of_one_client, .prepare = trim_one)

static void evicted(struct deaths *d)
{
	evict(d);
	struct wire_msg asked = d->req;

	d->t->req = asked;
	cr_assert_eq(test_core_ask(d->t, d->asker.dialogue), WIRE_TRIM_OK);
	request(d, WIRE_REFILL);
}
DEATHS(recovery_with_an_evicted_client, .prepare = evicted, .recovery = true)
