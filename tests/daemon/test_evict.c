/* Evicting a client and trimming one, over the core in memory. That the daemon is killed at each store of it: test_deaths_clients. */
#include "daemon/evict.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/clients.h"
#include "daemon/log.h"
#include "daemon/reaper.h"
#include "tests/lib/child.h"
#include "shm/slots.h"
#include "tests/lib/core.h"

#define SHARED64 (4 * SHMI_ATTRS)
#define SCOPED64 (4 * SHMI_ATTRS + SHMI_SCOPED)

static struct test_core *t;
static struct dialogue *root, *victim, *other;
static uint32_t id;
static struct peer process; /* the victim's */

/* Spans that cannot be taken from it: a block of each is in use. */
static void grant_and_use(struct dialogue *d, uint32_t sclass, uint32_t spans)
{
	cr_assert_eq(test_core_refill(t, d, sclass, spans), spans);
	for (uint32_t i = 0; i < spans; i++)
		shmi_slots_take(shmi_bitmap_at(&t->heap.img, (shmi_page){t->reply.u.refill_ok.grants[i].page}), 0, 1);
}

static void start(void)
{
	log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
	t = test_core_new(4096);
	t->core.uid = 77;
	t->core.leases = test_core_leases(t);
	root = test_core_connect_as(t, (struct peer){.pid = 10, .uid = 0, .pidfd = -1, .inode = 10});
	victim = test_core_attach(t, 1000);
	other = test_core_attach(t, 1000);
	id = test_core_client(victim);
	t->leased[id] = true;
	process = victim->caller.client->peer;
	grant_and_use(victim, SHARED64, 2);
	grant_and_use(victim, SCOPED64, 1);
}

static void end(void)
{
	test_core_check(t);
	test_core_free(t);
}

static uint32_t evict_by(struct dialogue *who, const char *heap, uint32_t client)
{
	t->req = (struct wire_msg){.kind = WIRE_EVICT, .u.evict = {.client = client}};
	strcpy(t->req.u.evict.heap, heap);
	return test_core_fails(t, who);
}

static void evict(void)
{
	cr_assert_eq(evict_by(root, "default", id), 0);
	cr_assert_eq(t->reply.kind, WIRE_TRIM_OK);
}

static uint32_t attach(struct peer peer, bool resume)
{
	struct dialogue *d = test_core_connect_as(t, peer);

	t->req = (struct wire_msg){.kind = WIRE_ATTACH};
	t->req.u.attach = (struct wire_attach){
	        .heap = "default", .resume = resume, .client = id, .nonce = t->heap.state->clients[id].nonce};
	return test_core_fails(t, d);
}

static uint64_t counter(const shmi_a64 *which)
{
	return shmi_load(which);
}

#define COUNTERS (&t->heap.img.super->counters)

static uint32_t held(void)
{
	return shmi_owner_at(&t->heap.img, id)->pages;
}

static struct wire_client_row row(void)
{
	t->req = (struct wire_msg){.kind = WIRE_QUERY, .u.query = {.kind = WIRE_Q_CLIENTS, .cursor = id}};
	cr_assert_eq(test_core_ask(t, root), WIRE_CLIENTS);
	cr_assert(t->reply.u.clients.n_rows && t->reply.u.clients.rows[0].client == id);
	return t->reply.u.clients.rows[0];
}

/* ---- who may, and whom ---- */

Test(evict, who_may_and_whom, .init = start, .fini = end)
{
	struct dialogue *daemons =
	        test_core_connect_as(t, (struct peer){.pid = 11, .uid = 77, .pidfd = -1, .inode = 11});
	struct dialogue *own = test_core_attach(t, 0);

	cr_expect_eq(evict_by(other, "default", id), WIRE_E_ACCESS, "another client of the same user");
	cr_expect_eq(evict_by(victim, "default", id), WIRE_E_ACCESS);
	cr_expect_eq(evict_by(root, "default", 999), WIRE_E_NOT_FOUND);
	cr_expect_eq(evict_by(root, "default", SHMI_MAX_CLIENTS), WIRE_E_NOT_FOUND);
	cr_expect_eq(evict_by(root, "default", UINT32_MAX), WIRE_E_NOT_FOUND);
	cr_expect_eq(evict_by(root, "another", id), WIRE_E_NO_HEAP);
	cr_expect_eq(evict_by(own, "default", test_core_client(own)), WIRE_E_INVALID, "itself");
	cr_expect_eq(counter(&COUNTERS->evictions), 0);
	cr_expect_eq(row().evicted, 0);
	cr_expect_eq(test_core_refill(t, victim, SHARED64, 1), 1, "none of this did anything to it");
	cr_expect_eq(evict_by(daemons, "", id), 0);
	cr_expect_eq(row().evicted, 1);
}

Test(evict, who_has_ended_is_not_there, .init = start, .fini = end)
{
	test_core_kill(t, victim);
	cr_expect_eq(evict_by(root, "default", id), WIRE_E_NOT_FOUND, "it is being reclaimed");
	cr_expect_eq(evict_by(root, "default", id), WIRE_E_NOT_FOUND, "its children have its memory");
	cr_expect_eq(row().evicted, 0);
	t->leased[id] = false;
}

static int wait_for_death(void *unused)
{
	(void)unused;
	return pause();
}

/* `shmallocctl evict --kill` trusts that what is evicted was alive, whatever the loop has not come to hear yet. */
Test(evict, a_death_not_heard_of_yet_is_seen, .init = start, .fini = end)
{
	pid_t pid = child_start(wait_for_death, NULL);
	struct client *client = victim->caller.client;

	client->peer.pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd dead = {.fd = client->peer.pidfd, .events = POLLIN};

	cr_assert_geq(client->peer.pidfd, 0);
	kill(pid, SIGKILL);
	cr_assert_eq(poll(&dead, 1, 10000), 1);
	cr_expect_eq(evict_by(root, "default", id), WIRE_E_NOT_FOUND);
	cr_expect_eq(counter(&COUNTERS->evictions), 0);
	(void)child_join(pid);
}

/* ---- what becomes of it ---- */

Test(evict, nothing_is_granted_any_more, .init = start, .fini = end)
{
	uint32_t before = held();
	struct peer other_user = process;

	other_user.uid = 1001;
	evict();
	cr_expect_eq(t->replaced, 1, "its connection ends");
	cr_expect_eq(victim->state, SESSION_CLOSED);
	cr_expect_null(victim->caller.client);
	cr_expect_eq(attach(process, true), WIRE_E_EVICTED);
	cr_expect_eq(attach(process, false), WIRE_E_EVICTED);
	cr_expect_eq(attach(other_user, false), WIRE_E_EVICTED, "the same process, whatever user it has become");
	cr_expect_eq(held(), before, "it may use what it has");
	cr_expect_eq(row().bytes, (uint64_t)before << SHMI_PAGE_SHIFT);
	cr_expect(row().evicted && row().detached);
	cr_expect_eq(counter(&COUNTERS->evictions), 1);
	cr_expect_eq(test_core_refill(t, other, SHARED64, 1), 1, "nobody else notices");
	test_core_hang_up(t, victim);
	cr_expect_eq(attach(process, true), WIRE_E_EVICTED);
}

/* It would not give them back any more. */
Test(evict, wholly_free_spans_are_taken_at_once, .init = start, .fini = end)
{
	uint32_t before = held();

	cr_assert_eq(test_core_refill(t, victim, SHARED64, 20), 20);
	uint64_t idle = shmi_load(&t->heap.img.super->pages.free);

	evict();
	cr_expect_eq(t->reply.u.trim_ok.bytes, (20 + idle) << SHMI_PAGE_SHIFT);
	cr_expect_eq(held(), before);
	cr_expect_eq(counter(&COUNTERS->seized_pages), 20);
	t->leased[id] = false;
	core_client_died(&t->core, id);
	test_core_run(t);
	cr_expect_eq(shmi_load(&t->heap.img.super->pages.seized), 0, "the address space comes back at its end");
	cr_expect_eq(t->core.client[id].state, CLIENT_FREE);
}

/* Its program goes on and frees: the next eviction takes what has become free since. */
Test(evict, again_takes_what_has_become_free, .init = start, .fini = end)
{
	grant_and_use(victim, SHARED64, 1);
	uint32_t page = t->reply.u.refill_ok.grants[0].page;

	evict();
	uint32_t before = held();

	shmi_slots_put(shmi_bitmap_at(&t->heap.img, (shmi_page){page}), 0, 1);
	evict();
	cr_expect_eq(held(), before - 1);
	cr_expect_eq(t->reply.u.trim_ok.bytes, SHMI_PAGE_SIZE);
}

Test(evict, others_may_attach, .init = start, .fini = end)
{
	struct peer child = process, later = process;

	evict();
	child.pid++; /* forked from it */
	child.inode++;
	cr_expect_eq(attach(child, false), 0);
	later.inode += 1000; /* the pid is another process's: this one has ended, and the daemon has not heard yet */
	cr_expect_eq(attach(later, false), 0);
	cr_expect_eq(attach(later, true), WIRE_E_NOT_FOUND, "but it is not the client");
}

Test(evict, again_does_no_harm, .init = start, .fini = end)
{
	evict();
	uint32_t before = held();

	evict();
	cr_expect_eq(counter(&COUNTERS->evictions), 1);
	cr_expect_eq(held(), before);
	cr_expect_eq(attach(process, true), WIRE_E_EVICTED);
	cr_expect_eq(t->replaced, 1);
}

Test(evict, one_without_a_connection, .init = start, .fini = end)
{
	test_core_hang_up(t, victim);
	evict();
	cr_expect_eq(t->replaced, 0);
	cr_expect_eq(attach(process, true), WIRE_E_EVICTED);
}

/* It is told, and what was being backed for it is free. */
Test(evict, in_the_middle_of_a_request, .init = start, .fini = end)
{
	uint64_t used = victim->caller.client->account.used;

	t->req = (struct wire_msg){.kind = WIRE_LARGE, .serial = ++t->serial};
	t->req.u.large = (struct wire_large){.bytes = 1000 << SHMI_PAGE_SHIFT, .pages = 1000, .align_pages = 1};
	cr_assert_eq(test_core_send(t, victim), WIRE_NONE);
	cr_assert(core_turn(&t->core));
	t->req = (struct wire_msg){.kind = WIRE_EVICT, .serial = t->serial, .u.evict = {.client = id}};
	(void)test_core_send(t, root);
	cr_assert_eq(t->answered, victim);
	cr_expect_eq(t->reply.kind, WIRE_ERROR);
	cr_expect_eq(t->reply.u.error.code, WIRE_E_EVICTED);
	cr_expect_eq(victim->state, SESSION_CLOSING, "that was the last answer");
	cr_expect_eq(t->core.client[id].account.used, used);
	test_core_run(t);
	cr_expect_eq(t->answered, root);
	cr_expect_eq(t->reply.kind, WIRE_TRIM_OK);
	cr_expect_eq(shmi_load(&t->heap.img.super->pages.moving), 0);
	cr_expect_eq(attach(process, true), WIRE_E_EVICTED);
}

/* A client may ask for a trim as well, if it is root's. */
Test(evict, in_the_middle_of_a_trim, .init = start, .fini = end)
{
	struct dialogue *busy = test_core_attach(t, 0);
	uint32_t client = test_core_client(busy);

	t->req = (struct wire_msg){.kind = WIRE_TRIM, .serial = ++t->serial};
	cr_assert_eq(test_core_send(t, busy), WIRE_NONE);
	t->req = (struct wire_msg){.kind = WIRE_EVICT, .serial = t->serial, .u.evict = {.client = client}};
	(void)test_core_send(t, root);
	cr_assert_eq(t->answered, busy);
	cr_expect_eq(t->reply.u.error.code, WIRE_E_EVICTED);
	test_core_run(t);
	cr_expect_eq(t->answered, root);
	cr_expect_eq(t->reply.kind, WIRE_TRIM_OK);
	cr_expect_eq(busy->state, SESSION_CLOSING);
}

/* Not a word in ctl is looked at. */
Test(evict, of_a_damaged_heap, .init = start)
{
	core_fence(&t->core);
	evict();
	cr_expect_eq(t->reply.u.trim_ok.bytes, 0);
	cr_expect_eq(shmi_load(&t->heap.state->clients[id].in_use), 3);
	test_core_free(t);
}

/* ---- its end ---- */

static uint64_t owned(void)
{
	return shmi_load(&t->heap.img.super->pages.owned);
}

Test(evict, at_its_death_all_comes_back, .init = start, .fini = end)
{
	struct peer next = process;

	next.inode++;
	evict();
	t->leased[id] = false;
	core_client_died(&t->core, id);
	test_core_run(t);
	cr_expect_eq(t->core.client[id].state, CLIENT_FREE);
	cr_expect_eq(owned(), 0);
	cr_expect_eq(shmi_load(&t->heap.state->clients[id].in_use), 0);
	cr_expect_eq(counter(&COUNTERS->deaths), 1);
	cr_expect_eq(attach(next, false), 0, "a later process of this pid is another");
}

/* Its children share its scoped memory: they keep it, as after a death without an eviction. */
Test(evict, its_children_keep_its_scoped_memory, .init = start, .fini = end)
{
	evict();
	core_client_died(&t->core, id);
	test_core_run(t);
	cr_expect_eq(owned(), 1);
	cr_expect_eq(t->core.waiting, 1);
	t->leased[id] = false;
	reaper_look(&t->core);
	test_core_run(t);
	cr_expect_eq(owned(), 0);
	cr_expect_eq(t->core.client[id].state, CLIENT_FREE);
}

/* It has unmapped the heap, or become another program: the memory comes back, and it cannot come back. */
static void give_up(void)
{
	t->leased[id] = false;
	reaper_look(&t->core);
	core_tick(&t->core, t->core.now_ms + POLICY_EXEC_MS);
	reaper_look(&t->core);
	test_core_run(t);
}

Test(evict, who_gives_its_memory_up_stays_evicted, .init = start, .fini = end)
{
	evict();
	give_up();
	cr_expect_eq(owned(), 0);
	cr_expect_eq(t->core.client[id].state, CLIENT_BARRED);
	cr_expect_eq(t->core.client[id].account.used, 0);
	cr_expect_eq(counter(&COUNTERS->deaths), 0);
	cr_expect_eq(attach(process, false), WIRE_E_EVICTED);
	cr_expect_eq(attach(process, true), WIRE_E_EVICTED);
	cr_expect(row().evicted && !row().bytes);
	reaper_look(&t->core);
	cr_expect_not(core_has_jobs(&t->core), "nothing is left to be done");
	evict();
	core_client_died(&t->core, id);
	test_core_run(t);
	cr_expect_eq(t->core.client[id].state, CLIENT_FREE);
	cr_expect_eq(attach(process, false), 0);
}

/* ---- the next daemon ---- */

static void make_alive(pid_t pid)
{
	struct shmi_client_state *entry = &t->heap.state->clients[id];
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct stat st;

	cr_assert(pidfd >= 0 && fstat(pidfd, &st) == 0);
	close(pidfd);
	process.pid = entry->pid = pid;
	process.inode = entry->pidfd_inode = st.st_ino;
}

static void restart(void)
{
	test_core_restart(t);
	test_core_run(t);
	root = test_core_connect_as(t, (struct peer){.pid = 10, .uid = 0, .pidfd = -1, .inode = 10});
}

Test(evict, survives_a_restart, .init = start, .fini = end)
{
	make_alive(getpid());
	evict();
	restart();
	cr_expect(t->core.client[id].evicted);
	cr_expect_eq(attach(process, true), WIRE_E_EVICTED);
	cr_expect_eq(attach(process, false), WIRE_E_EVICTED);
	cr_expect_eq(row().evicted, 1);
	cr_expect_eq(held(), 3);
	evict();
	cr_expect_eq(counter(&COUNTERS->evictions), 1);
	give_up();
	cr_expect_eq(t->core.client[id].state, CLIENT_BARRED);
	restart();
	cr_expect_eq(attach(process, false), WIRE_E_EVICTED, "though it holds nothing any more");
	give_up();
	cr_expect_eq(t->core.client[id].state, CLIENT_BARRED);
}

Test(evict, the_next_daemon_finds_it_dead, .init = start, .fini = end)
{
	evict(); /* there is no process of its pid and inode */
	t->leased[id] = false;
	restart();
	cr_expect_eq(t->core.client[id].state, CLIENT_FREE);
	cr_expect_eq(shmi_load(&t->heap.state->clients[id].in_use), 0);
	cr_expect_eq(owned(), 0);
}

/* ---- trim ---- */

static uint32_t wanted(const struct dialogue *d)
{
	return shmi_load(&shmi_owner_at(&t->heap.img, test_core_client(d))->trim_wanted);
}

static uint32_t trim(struct dialogue *who, struct wire_trim want)
{
	t->req = (struct wire_msg){.kind = WIRE_TRIM, .u.trim = want};
	return test_core_fails(t, who);
}

Test(trim, tells_whom_it_names, .init = start, .fini = end)
{
	cr_expect_eq(trim(root, (struct wire_trim){0}), 0);
	cr_expect_eq(wanted(victim) + wanted(other), 0);
	cr_expect_eq(trim(root, (struct wire_trim){.one = true, .client = id}), 0);
	cr_expect(wanted(victim) == 1 && wanted(other) == 0);
	cr_expect_eq(trim(root, (struct wire_trim){.all = true, .heap = "default"}), 0);
	cr_expect(wanted(victim) == 2 && wanted(other) == 1);
	cr_expect_eq(counter(&COUNTERS->trims), 3);
	evict();
	cr_expect_eq(trim(root, (struct wire_trim){.all = true}), 0);
	cr_expect_eq(counter(&COUNTERS->trims), 4, "who is evicted could not tell the daemon of what it gives back");
}

Test(trim, takes_from_whom_it_names, .init = start, .fini = end)
{
	cr_assert_eq(test_core_refill(t, victim, SHARED64, 5), 5);
	cr_assert_eq(test_core_refill(t, other, SHARED64, 7), 7);
	uint64_t idle = shmi_load(&t->heap.img.super->pages.free);

	cr_expect_eq(trim(root, (struct wire_trim){.one = true, .client = id}), 0);
	cr_expect_eq(counter(&COUNTERS->seized_pages), 5);
	cr_expect_eq(t->reply.u.trim_ok.bytes, (5 + idle) << SHMI_PAGE_SHIFT);
	cr_expect_eq(trim(root, (struct wire_trim){0}), 0);
	cr_expect_eq(counter(&COUNTERS->seized_pages), 5);
	cr_expect_eq(trim(root, (struct wire_trim){.all = true}), 0);
	cr_expect_eq(counter(&COUNTERS->seized_pages), 12);
	cr_expect_eq(t->reply.u.trim_ok.bytes, 7u << SHMI_PAGE_SHIFT);
}

/* Nobody waits for who is not there any more. */
Test(trim, of_one_that_dies_meanwhile, .init = start, .fini = end)
{
	t->req = (struct wire_msg){.kind = WIRE_TRIM, .serial = ++t->serial, .u.trim = {.one = true, .client = id}};
	cr_assert_eq(test_core_send(t, root), WIRE_NONE);
	t->leased[id] = false;
	test_core_kill(t, victim);
	test_core_run(t);
	cr_expect_eq(t->answered, root);
	cr_expect_eq(t->reply.kind, WIRE_TRIM_OK);
}

Test(trim, errors, .init = start, .fini = end)
{
	cr_expect_eq(trim(other, (struct wire_trim){.one = true, .client = id}), WIRE_E_ACCESS);
	cr_expect_eq(trim(other, (struct wire_trim){.all = true}), WIRE_E_ACCESS);
	cr_expect_eq(trim(root, (struct wire_trim){.one = true, .client = 999}), WIRE_E_NOT_FOUND);
	cr_expect_eq(trim(root, (struct wire_trim){.one = true, .client = UINT32_MAX}), WIRE_E_NOT_FOUND);
	cr_expect_eq(trim(root, (struct wire_trim){.all = true, .heap = "another"}), WIRE_E_NO_HEAP);
	cr_expect_eq(wanted(victim), 0);
	cr_expect_eq(counter(&COUNTERS->trims), 0);
}

Test(trim, says_how_much_went_back, .init = start, .fini = end)
{
	uint32_t page = test_core_large(t, other, 100, 0, false);
	struct wire_span span = {page, shmi_span_word(&t->heap.img, (shmi_page){page}).generation};

	cr_assert_neq(page, 0);
	t->req = (struct wire_msg){.kind = WIRE_FREE, .u.free = {.n_spans = 1, .spans = {span}}};
	cr_assert_eq(test_core_ask(t, other), WIRE_OK);
	uint64_t idle = shmi_load(&t->heap.img.super->pages.free);

	cr_assert_geq(idle, 100);
	cr_expect_eq(trim(root, (struct wire_trim){.one = true, .client = id}), 0);
	cr_expect_eq(t->reply.u.trim_ok.bytes, idle << SHMI_PAGE_SHIFT);
}
