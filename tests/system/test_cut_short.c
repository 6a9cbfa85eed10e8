/* Clients that are killed while the daemon is busy with what they asked for: a large block half backed, an answer that nobody will
 * fetch, an attach or a detach under way. Nothing of theirs is left, no descriptor of the daemon's either. */
#include "tests/system/system.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "client/shmalloc.h"
#include "proto/chan.h"
#include "proto/codec.h"
#include "shm/image.h"
#include "tests/lib/random.h"
#include "tests/system/family.h"

#define KILLS 24
#define SOAK_KILLS 2000
#define SPREAD_US 20000 /* of the moments at which they are killed */

static struct test_daemon d;
static struct test_random moments;
static int fds_before;

static void start(void)
{
	system_start(&d, (const char *const[]){"--size", "4GiB", NULL});
	moments = test_random_init("cut short");
	fds_before = test_daemon_fds(&d);
}

static void end(void)
{
	system_expect_empty(&d);
	cr_expect_eq(test_daemon_settle_fds(&d, fds_before), 0);
	system_end(&d);
}

/* Starts, waits until it is about to do it, and kills it a little later. */
static void kill_in(int (*fn)(void *), uint32_t spread_us)
{
	struct family f;

	family_init(&f, NULL);
	pid_t pid = child_start(fn, &f);

	family_await(&f);
	struct timespec wait = {.tv_nsec = test_random_below(&moments, spread_us) * 1000l};

	(void)ppoll(NULL, 0, &wait, NULL);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	family_forget(&f);
}

static void kill_many(int (*fn)(void *), uint32_t spread_us)
{
	uint32_t kills = system_soaks() ? SOAK_KILLS : KILLS;
	int64_t last;

	for (uint32_t i = 0; i < kills; i++) {
		kill_in(fn, spread_us);
		if (i % 8 == 0) {
			cr_expect_eq(test_ctl_settle(&d, "clients", 0, 0, &last), 0);
			cr_expect_eq(test_ctl_check(&d), 0);
		}
	}
}

/* ---- requests ---- */

static int wants_large(void *f)
{
	child_check(shma_default());
	family_say(f);
	for (size_t size = 100u << 20;; size += 1 << 20) {
		void *block = shma_heap_alloc(shma_default(), size, 0, SHMA_SCOPED);

		child_check(block);
		shma_free(block);
		child_check(shma_trim(shma_default()) == 0);
	}
	return 0;
}

/* 100 MiB are 50 turns of backing and as many of giving back. */
Test(cut_short, while_a_large_block_is_backed, .init = start, .fini = end)
{
	kill_many(wants_large, 3 * SPREAD_US);
	cr_expect_eq(test_ctl_settle(&d, "moving_bytes", 0, 0, &(int64_t){0}), 0);
}

static int attaches(void *f)
{
	family_say(f);
	for (;;) {
		void *block = shma_heap_alloc(shma_default(), 5000, 0, SHMA_SCOPED);

		child_check(block);
		child_check(shma_detach(shma_default()) == 0);
	}
	return 0;
}

Test(cut_short, while_it_attaches_or_detaches, .init = start, .fini = end)
{
	kill_many(attaches, SPREAD_US);
}

static int detaches(void *f)
{
	for (size_t i = 0; i < 20000; i++)
		child_check(shma_heap_alloc(shma_default(), 1000 + i % 3000, 0, SHMA_SCOPED));
	family_say(f);
	child_check(shma_detach(shma_default()) == 0);
	(void)pause();
	return 0;
}

/* Of much that takes many turns. */
Test(cut_short, while_a_long_detach_is_under_way, .init = start, .fini = end)
{
	kill_many(detaches, SPREAD_US / 4);
}

/* The daemon, too: the next one goes on with a detach that the client is dead for, or that it repeats. */
static int detaches_and_ends(void *f)
{
	for (size_t i = 0; i < 20000; i++)
		child_check(shma_heap_alloc(shma_default(), 1000 + i % 3000, 0, SHMA_SCOPED));
	family_say(f);
	child_check(shma_detach(shma_default()) == 0);
	return 0;
}

Test(cut_short, a_detach_that_the_daemon_does_not_survive, .init = start, .fini = end)
{
	for (int i = 0; i < KILLS / 2; i++) {
		struct family f;

		family_init(&f, NULL);
		pid_t pid = child_start(detaches_and_ends, &f);

		family_await(&f);
		struct timespec wait = {.tv_nsec = test_random_below(&moments, SPREAD_US / 4) * 1000l};

		(void)ppoll(NULL, 0, &wait, NULL);
		test_daemon_kill(&d);
		cr_assert_eq(test_daemon_start_again(&d, NULL), 0);
		cr_expect_eq(child_join(pid), 0, "detach succeeds, whichever daemon does it");
		family_forget(&f);
	}
}

/* ---- answers ---- */

static struct wire_msg msg;
static struct codec_scratch scratch;
static unsigned char bytes[WIRE_MAX];

static int send_msg(int sock)
{
	size_t len;

	child_check(shmi_codec_encode(&msg, &scratch, bytes, sizeof(bytes), &len) == 0);
	return shmi_chan_send(sock, bytes, len, NULL, 0);
}

static int greeted(void)
{
	size_t len;
	int sock;

	child_check(shmi_chan_connect(d.socket, &sock) == 0);
	msg = (struct wire_msg){.kind = WIRE_HELLO};
	msg.u.hello = (struct wire_hello){.protocol = WIRE_PROTOCOL, .layout_hash = shmi_layout_hash()};
	child_check(send_msg(sock) == 0);
	child_check(shmi_chan_wait(sock, 0, shmi_chan_now_ns() + 10000000000ll) == 0);
	child_check(shmi_chan_recv(sock, bytes, sizeof(bytes), &len, NULL, NULL) == 0);
	return sock;
}

static int asks_and_does_not_listen(void *f)
{
	int sock = greeted(), error;

	child_check(fcntl(sock, F_SETFL, O_NONBLOCK) == 0);
	msg = (struct wire_msg){.kind = WIRE_QUERY, .u.query = {.kind = WIRE_Q_CLASSES}};
	while (!(error = send_msg(sock))) /* its queue is full as well when the daemon does not read any more */
		msg.serial++;
	child_check(error == CHAN_E_AGAIN);
	family_say(f);
	(void)pause();
	return 0;
}

/* Each dies with an answer kept for it; the daemon does not wait for the time to be up. */
Test(cut_short, while_an_answer_is_sent, .init = start, .fini = end)
{
	for (int i = 0; i < 10; i++)
		kill_in(asks_and_does_not_listen, 1000);
}

static int attaches_and_does_not_listen(void *f)
{
	int sock = greeted();

	msg = (struct wire_msg){.kind = WIRE_ATTACH};
	snprintf(msg.u.attach.heap, sizeof(msg.u.attach.heap), "%s", d.heap);
	child_check(send_msg(sock) == 0);
	family_say(f);
	(void)pause();
	return 0;
}

/* The descriptors, and with them a lease, lie in its queue. */
Test(cut_short, while_its_descriptors_are_on_their_way, .init = start, .fini = end)
{
	kill_many(attaches_and_does_not_listen, SPREAD_US / 20);
}
