/* The daemon's core in memory: a heap on a false floor, dialogues instead of sockets, jobs run by hand.
 *
 *	struct test_core *t = test_core_new(8192);
 *	struct dialogue *a = test_core_attach(t, 1000);
 *
 *	t->req = (struct wire_msg){.kind = WIRE_REFILL, ...};
 *	cr_assert_eq(test_core_ask(t, a), WIRE_REFILL_OK);     // t->reply
 *
 * The floor keeps a book of what is backed and can be told to fail. Every request is encoded and decoded on its way, as over
 * a socket; serials are counted per dialogue unless the test sets one.
 */
#ifndef TESTS_LIB_CORE_H
#define TESTS_LIB_CORE_H

#include "daemon/dialogue.h"

#define TEST_CORE_DIALOGUES 32u
#define TEST_CORE_NEVER UINT32_MAX

struct test_core {
	struct heap heap;
	struct core core;
	struct config_heap config; /* "default", for everybody */
	struct heaps heaps; /* this one */
	struct heap_memory memory;
	uint8_t *backed; /* by page of data; NULL: the floor is not ours */
	uint32_t fail_in; /* this many calls of back() succeed, then all fail, until it is set to TEST_CORE_NEVER */
	enum heap_object fail_object; /* only calls for this one count */
	uint64_t cut[HEAP_OBJECTS]; /* bytes that a client has cut off */
	uint64_t ctl_backed; /* what the floor says of ctl: UINT64_MAX, or what a test sets and back() adds to */
	uint64_t space_all, space_free; /* of the file system; 0: nobody can say */
	uint64_t dropped; /* pages of data in all calls of unback() */
	uint32_t longest; /* pages of data in one call of back() or unback() */
	struct dialogue *dialogue[TEST_CORE_DIALOGUES];
	struct move move; /* what the last packet or event asked the socket to do */
	struct dialogue *answered; /* who got the last reply */
	uint32_t replaced; /* connections that another one has replaced */
	int watched[SHMI_MAX_CLIENTS]; /* 1: hooks.watch has been called for it */
	bool leased[SHMI_MAX_CLIENTS]; /* somebody has the client's lease; false until a test says so */
	uint32_t leases; /* given out */
	int lease_error; /* not 0: none can be given */
	uint64_t serial; /* of the last request */
	struct wire_msg req, reply;
	struct codec_scratch scratch;
};

/* The leases of this false world: goes into core.leases. */
struct core_leases test_core_leases(struct test_core *t);

/* A new heap of `limit` pages. */
struct test_core *test_core_new(uint32_t limit);
void test_core_free(struct test_core *t);

/* A core over memory and a floor that are the caller's, and stay so: a new heap of `limit` pages, or, with 0, what an earlier core
 * left there is adopted (its clients are not: that is clients_adopt). NULL and *why if it was refused. */
struct test_core *test_core_over(
        const struct heap_memory *memory, const struct heap_floor *floor, uint32_t limit, const char **why);

/* A connection of a process of this user; each gets a pid of its own. Or of that process, greeted. */
struct dialogue *test_core_connect(struct test_core *t, uint32_t uid);
struct dialogue *test_core_connect_as(struct test_core *t, struct peer peer);

/* Connected, greeted and attached. */
struct dialogue *test_core_attach(struct test_core *t, uint32_t uid);
struct dialogue *test_core_attach_as(struct test_core *t, struct peer peer);

/* A second connection of the same process as `d`, greeted and not attached. */
struct dialogue *test_core_again(struct test_core *t, const struct dialogue *d);

/* Sends t->req with the next serial, runs jobs until there is a reply, and returns its kind; WIRE_NONE if there is none. */
enum wire_kind test_core_ask(struct test_core *t, struct dialogue *d);

/* Whether t->req can be sent at all: the codec refuses to encode what is out of range. */
bool test_core_legal(struct test_core *t);

/* Carries out t->req for the attached client of `d` past the codec, as if that had let it through; an error's code, or 0. */
uint32_t test_core_force(struct test_core *t, struct dialogue *d);

/* Sends t->req with the serial that it has, and runs no jobs. */
enum wire_kind test_core_send(struct test_core *t, struct dialogue *d);

/* The same, and an error's code, or 0. */
uint32_t test_core_fails(struct test_core *t, struct dialogue *d);

/* Runs all jobs. How many steps there were. */
uint32_t test_core_run(struct test_core *t);

/* The connection ends; `d` is gone. */
void test_core_hang_up(struct test_core *t, struct dialogue *d);

/* The process dies: the daemon hears of it, but the socket stays open until test_core_hang_up. */
void test_core_kill(struct test_core *t, struct dialogue *d);

/* Asks for `spans` spans of `sclass`; how many came. */
uint32_t test_core_refill(struct test_core *t, struct dialogue *d, uint32_t sclass, uint32_t spans);

/* Asks for a large block; its page, or 0 and t->reply. */
uint32_t test_core_large(struct test_core *t, struct dialogue *d, uint32_t pages, uint32_t attrs, bool lazy);

/* Fails the test unless every page of spans in use is backed and the heap's check finds nothing. */
void test_core_check(struct test_core *t);

/* The daemon is killed and another one takes over; whoever was connected is not any more. Runs no jobs. */
void test_core_restart(struct test_core *t);

/* The same, but for what stands in ctl: of a heap whose clients are hostile. NULL, or what is wrong, in a static buffer. */
const char *test_core_wrong_meta(struct test_core *t);

static inline uint32_t test_core_client(const struct dialogue *d)
{
	return d->caller.client->id;
}

#endif
