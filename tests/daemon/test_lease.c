/* What waits for the end of a client's lease, in memory; and leases themselves, on a real object. */
#include "daemon/lease.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/clients.h"
#include "daemon/log.h"
#include "daemon/peer.h"
#include "daemon/policy.h"
#include "daemon/reaper.h"
#include "shm/slots.h"
#include "tests/lib/core.h"

#define SHARED64 (4 * SHMI_ATTRS)
#define SCOPED64 (4 * SHMI_ATTRS + SHMI_SCOPED)

/* ---- the wait ---- */

static struct test_core *t;
static struct dialogue *d;
static uint32_t id, shared, scoped;

static struct shmi_word word(uint32_t page)
{
	return shmi_span_word(&t->heap.img, (shmi_page){page});
}

static uint32_t span_with_a_block(uint32_t sclass)
{
	cr_assert_eq(test_core_refill(t, d, sclass, 1), 1);
	uint32_t page = t->reply.u.refill_ok.grants[0].page;

	shmi_slots_take(shmi_bitmap_at(&t->heap.img, (shmi_page){page}), 0, 1);
	return page;
}

static void start(void)
{
	t = test_core_new(8192);
	d = test_core_attach(t, 1000);
	id = test_core_client(d);
	shared = span_with_a_block(SHARED64);
	scoped = span_with_a_block(SCOPED64);
	t->leased[id] = true;
}

static void end(void)
{
	test_core_check(t);
	test_core_free(t);
}

static void expect_waiting(void)
{
	cr_expect_eq(word(shared).state, SHMI_SPAN_CENTRAL);
	cr_expect_eq(word(scoped).state, SHMI_SPAN_OWNED);
	cr_expect_eq(word(scoped).owner, id);
	cr_expect_eq(t->core.client[id].state, CLIENT_LEAVING);
	cr_expect_eq(t->core.waiting, 1);
	cr_expect_eq(reaper_look(&t->core), POLICY_LEASE_MS);
	cr_expect_eq(test_core_run(t), 0);
	test_core_check(t);
}

static void expect_gone(void)
{
	cr_expect_not(shmi_state_in_use(word(scoped).state));
	cr_expect_eq(t->core.client[id].state, CLIENT_FREE);
	cr_expect_eq(t->core.waiting, 0);
	cr_expect_eq(reaper_look(&t->core), -1);
	test_core_check(t);
}

static void end_of_lease(void)
{
	t->leased[id] = false;
	reaper_look(&t->core);
	test_core_run(t);
}

Test(lease, scoped_blocks_outlive_a_parent, .init = start, .fini = end)
{
	test_core_kill(t, d);
	test_core_run(t);
	expect_waiting();
	test_core_hang_up(t, d);
	test_core_run(t);
	expect_waiting();
	end_of_lease();
	expect_gone();
}

Test(lease, nobody_waits_for_a_lease_that_is_free, .init = start, .fini = end)
{
	t->leased[id] = false;
	test_core_kill(t, d);
	test_core_run(t);
	expect_gone();
}

/* Its children have the heap mapped; it has not, and is told at once. */
Test(lease, a_client_that_detaches_does_not_wait_for_its_children, .init = start, .fini = end)
{
	t->req = (struct wire_msg){.kind = WIRE_DETACH};
	cr_expect_eq(test_core_ask(t, d), WIRE_OK);
	cr_expect_eq(d->state, SESSION_CLOSING);
	cr_expect_null(d->caller.client);
	expect_waiting();
	test_core_hang_up(t, d);
	cr_expect_null(core_client_died(&t->core, id));
	expect_waiting();
	end_of_lease();
	expect_gone();
}

/* More of them than one look can see. */
Test(lease, looks_are_bounded)
{
	t = test_core_new(16384);
	for (uint32_t i = 0; i < POLICY_LEASE_LOOKS + 100; i++) {
		d = test_core_attach(t, i);
		id = test_core_client(d);
		cr_assert_eq(id, i);
		scoped = span_with_a_block(SCOPED64);
		t->leased[id] = true;
		test_core_kill(t, d);
		test_core_hang_up(t, d);
	}
	test_core_run(t);
	cr_assert_eq(t->core.waiting, POLICY_LEASE_LOOKS + 100);
	memset(t->leased, 0, sizeof(t->leased));
	cr_assert_eq(reaper_look(&t->core), POLICY_LEASE_MS);
	test_core_run(t);
	cr_assert_eq(t->core.waiting, 100);
	reaper_look(&t->core);
	test_core_run(t);
	expect_gone();
	end();
}

/* The heap is damaged while a client waits: it is not reclaimed, but forgotten when its time comes. */
Test(lease, of_a_heap_that_is_fenced, .init = start)
{
	test_core_kill(t, d);
	test_core_run(t);
	log_set_level(LEVEL_ERROR);
	core_fence(&t->core);
	end_of_lease();
	cr_expect_eq(t->core.waiting, 0);
	cr_expect_eq(t->core.client[id].state, CLIENT_FREE);
	cr_expect_eq(word(scoped).state, SHMI_SPAN_OWNED);
	test_core_free(t);
}

/* ---- exec, and what is not exec ---- */

Test(lease, a_closed_socket_is_neither_death_nor_exec, .init = start, .fini = end)
{
	test_core_hang_up(t, d);
	for (int i = 0; i < 3; i++)
		cr_expect_eq(reaper_look(&t->core), POLICY_LEASE_DETACHED_MS);
	cr_expect_eq(test_core_run(t), 0);
	cr_expect_eq(t->core.client[id].state, CLIENT_DETACHED);
	cr_expect_eq(word(shared).owner, id);
	cr_expect_eq(word(scoped).owner, id);
}

/* It is not seen at once, but when the process could have been seen to be dead. */
static void end_of_use(void)
{
	t->leased[id] = false;
	cr_expect_eq(reaper_look(&t->core), POLICY_LEASE_MS);
	core_tick(&t->core, t->core.now_ms + POLICY_EXEC_MS - 1);
	cr_expect_eq(reaper_look(&t->core), POLICY_LEASE_MS);
	test_core_run(t);
	cr_expect_eq(t->core.client[id].state, CLIENT_DETACHED);
	core_tick(&t->core, t->core.now_ms + 1);
	reaper_look(&t->core);
	test_core_run(t);
}

/* A process that ends closes its files first. */
Test(lease, who_dies_is_no_exec, .init = start, .fini = end)
{
	test_core_hang_up(t, d);
	t->leased[id] = false;
	reaper_look(&t->core);
	test_core_run(t);
	cr_expect_null(core_client_died(&t->core, id));
	test_core_run(t);
	expect_gone();
	cr_expect_eq(shmi_load(&t->heap.img.super->counters.deaths), 1);
}

Test(lease, exec_ends_the_use, .init = start, .fini = end)
{
	test_core_hang_up(t, d);
	end_of_use();
	cr_expect_eq(word(shared).state, SHMI_SPAN_CENTRAL, "the shared block stays");
	expect_gone();
	cr_expect_eq(shmi_load(&t->heap.img.super->counters.deaths), 0);
}

/* It drops its own lock: while it has a connection that is its own affair. */
Test(lease, a_client_with_a_connection_is_not_looked_at, .init = start, .fini = end)
{
	t->leased[id] = false;
	cr_expect_eq(reaper_look(&t->core), -1);
	cr_expect_eq(t->core.client[id].state, CLIENT_ATTACHED);
	cr_expect_eq(test_core_refill(t, d, SCOPED64, 1), 1);
}

Test(lease, without_leases_a_process_is_looked_at_alone, .init = start, .fini = end)
{
	t->core.leases = (struct core_leases){.ctx = NULL};
	test_core_hang_up(t, d);
	cr_expect_eq(reaper_look(&t->core), -1);
	cr_expect_eq(t->core.client[id].state, CLIENT_DETACHED);
	cr_expect_null(core_client_died(&t->core, id));
	test_core_run(t);
	expect_gone();
}

/* ---- attach ---- */

Test(lease, every_client_gets_one, .init = start, .fini = end)
{
	cr_expect_eq(t->leases, 1);
	struct dialogue *again = test_core_again(t, d);

	t->req = (struct wire_msg){.kind = WIRE_ATTACH};
	t->req.u.attach = (struct wire_attach){
	        .heap = "default", .resume = true, .client = id, .nonce = t->heap.state->clients[id].nonce};
	cr_expect_eq(test_core_send(t, again), WIRE_ATTACH_OK);
	cr_expect_eq(t->leases, 1, "who resumes has the heap mapped");
}

Test(lease, no_client_without_a_lease, .init = start, .fini = end)
{
	struct dialogue *other = test_core_again(t, d);

	log_set_fd(open("/dev/null", O_WRONLY | O_CLOEXEC));
	t->lease_error = -EMFILE;
	t->req = (struct wire_msg){.kind = WIRE_ATTACH, .u.attach = {.heap = "default"}};
	cr_expect_eq(test_core_fails(t, other), WIRE_E_NO_MEMORY);
	cr_expect_null(other->caller.client);
	t->lease_error = 0;
	cr_expect_eq(test_core_ask(t, other), WIRE_ATTACH_OK);
	cr_expect_eq(test_core_client(other), 1);
}

/* ---- the next daemon ---- */

static void restart(void)
{
	test_core_restart(t);
	test_core_run(t);
}

/* A process of this test's, at this number in the client table. */
static void make_alive(int32_t pid)
{
	struct shmi_client_state *entry = &t->heap.state->clients[id];
	struct stat st;
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

	cr_assert_geq(pidfd, 0);
	cr_assert_eq(fstat(pidfd, &st), 0);
	entry->pid = pid;
	entry->pidfd_inode = st.st_ino;
	close(pidfd);
}

Test(lease, the_next_daemon_finds_the_dead_parent_of_a_child, .init = start, .fini = end)
{
	restart(); /* died while no daemon ran */
	expect_waiting();
	restart(); /* was dead before */
	expect_waiting();
	end_of_lease();
	expect_gone();
}

Test(lease, the_next_daemon_finds_who_has_detached_and_lives, .init = start, .fini = end)
{
	make_alive(getpid());
	t->req = (struct wire_msg){.kind = WIRE_DETACH};
	cr_expect_eq(test_core_ask(t, d), WIRE_OK);
	restart();
	expect_waiting();
	end_of_lease();
	expect_gone();
}

Test(lease, the_next_daemon_finds_an_exec, .init = start, .fini = end)
{
	make_alive(getpid());
	restart();
	cr_expect_eq(t->core.client[id].state, CLIENT_DETACHED);
	cr_expect_eq(reaper_look(&t->core), POLICY_LEASE_DETACHED_MS);
	cr_expect_eq(t->core.client[id].state, CLIENT_DETACHED);
	end_of_use();
	expect_gone();
}

/* ---- real leases ---- */

static struct leases leases;
static int object;

static void start_real(void)
{
	char name[64];

	snprintf(name, sizeof(name), "/shmalloc.lease.%d", (int)getpid());
	object = shm_open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	cr_assert_geq(object, 0);
	cr_assert_eq(shm_unlink(name), 0);
	cr_assert_eq(ftruncate(object, 1 << 16), 0);
	cr_assert_eq(leases_init(&leases, object), 0);
}

static void end_real(void)
{
	leases_deinit(&leases);
	close(object);
}

Test(lease, lives_in_a_mapping, .init = start_real, .fini = end_real)
{
	int fd = leases_give(&leases, 7);

	cr_assert_geq(fd, 0);
	cr_expect(leases_held(&leases, 7));
	cr_expect_not(leases_held(&leases, 6));
	cr_expect_not(leases_held(&leases, 8));
	cr_expect_eq(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	void *map = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	close(fd);
	cr_expect(leases_held(&leases, 7));
	cr_assert_eq(munmap(map, 1 << 15), 0);
	cr_expect(leases_held(&leases, 7), "a part of it will do");
	cr_assert_eq(munmap((char *)map + (1 << 15), 1 << 15), 0);
	cr_expect_not(leases_held(&leases, 7));
}

/* The next daemon looks through a description of its own, while nobody has the one that locked. */
Test(lease, outlives_the_daemon, .init = start_real, .fini = end_real)
{
	struct leases next;
	char path[64];
	int fd = leases_give(&leases, 1023);
	void *map = mmap(NULL, 4096, PROT_NONE, MAP_SHARED, fd, 0);

	snprintf(path, sizeof(path), "/proc/self/fd/%d", object);
	int again = open(path, O_RDWR | O_CLOEXEC);

	cr_assert_geq(again, 0);
	close(fd);
	close(object);
	object = again;
	leases_deinit(&leases);
	cr_assert_eq(leases_init(&next, again), 0);
	cr_expect(leases_held(&next, 1023));
	cr_assert_eq(munmap(map, 4096), 0);
	cr_expect_not(leases_held(&next, 1023));
	leases_deinit(&next);
}

/* Whoever has `data` may lock whatever it likes there: the next daemon can tell about leases nevertheless. */
Test(lease, locks_of_clients_do_not_turn_it_off, .init = start_real, .fini = end_real)
{
	struct flock all = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = LEASE_AT + 1024};
	struct leases next;
	int fd = leases_give(&leases, 3);

	cr_assert_eq(fcntl(fd, F_OFD_SETLK, &all), 0);
	cr_expect_eq(leases_init(&next, object), 0);
	leases_deinit(&next);
	all.l_type = F_WRLCK;
	cr_assert_eq(fcntl(fd, F_OFD_SETLK, &all), 0);
	cr_expect_eq(leases_init(&next, object), 0);
	leases_deinit(&next);
	close(fd);
}

/* When the pidfd of a killed process says so, its lease is free. */
Test(lease, is_free_when_death_is_reported, .init = start_real, .fini = end_real)
{
	for (int i = 0; i < 100; i++) {
		int fd = leases_give(&leases, 3);
		pid_t pid = fork();

		if (pid == 0) {
			(void)mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
			close(fd);
			for (;;)
				pause();
		}
		struct pollfd death = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};

		close(fd);
		cr_assert(leases_held(&leases, 3));
		kill(pid, SIGKILL);
		cr_assert_eq(poll(&death, 1, 10000), 1);
		cr_expect_not(leases_held(&leases, 3));
		close(death.fd);
		waitpid(pid, NULL, 0);
	}
}

/* One is to be had even with no descriptor left, for who was accepted with the last. */
Test(lease, with_the_last_descriptor, .init = start_real, .fini = end_real)
{
	int last = -1, fd;

	while ((fd = dup(object)) >= 0)
		last = fd;
	cr_assert_eq(errno, EMFILE);
	fd = leases_give(&leases, 3);
	cr_assert_geq(fd, 0);
	cr_expect(leases_held(&leases, 3));
	cr_expect_eq(leases_give(&leases, 4), -EMFILE);
	close(fd);
	fd = leases_give(&leases, 4);
	cr_expect_geq(fd, 0);
	close(fd);
	close(last);
}

/* Whoever can write data can keep others from getting a lease; that is seen. */
Test(lease, a_lock_in_the_way, .init = start_real, .fini = end_real)
{
	struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", object);
	int hostile = open(path, O_RDWR | O_CLOEXEC);

	cr_assert_eq(fcntl(hostile, F_OFD_SETLK, &all), 0);
	cr_expect_lt(leases_give(&leases, 3), 0);
	cr_expect(leases_held(&leases, 3));
	close(hostile);
	cr_expect_not(leases_held(&leases, 3));
}
