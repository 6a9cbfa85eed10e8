/* The explorer: runs actors, which are coroutines in this process, through every interleaving of their steps.
 *
 * A step of an actor is one atomic operation on a word that somebody else may look at, and all that follows up to the next such
 * operation. Between steps the explorer picks who goes on, which store in a store buffer reaches memory, or who is killed; it
 * goes back by restoring a snapshot (the regions below and the actors' stacks), and does not go on from a state that it has
 * been in before (64-bit hash of the same bytes). What a thread stores in its own record nobody reads while it lives, so that is no
 * step of its own: there the only question is whether the thread dies before it or after it.
 *
 * Everything that may change lies in a region. explore_run compares all other memory of the world with what it was, now and then.
 *
 * Memory models. EXPLORE_SC: one operation after the other. EXPLORE_TSO: stores to shared words wait in a buffer, first in, first out,
 * until the scheduler, a fence, a read-modify-write or the death of the thread drains them: x86-64. EXPLORE_WEAK: a
 * read-modify-write waits there, too, its word reserved for it meanwhile: what acq_rel allows and x86-64 does not do, a later load that
 * is done before it. Only a fence drains.
 */
#ifndef TESTS_INTERLEAVE_EXPLORE_H
#define TESTS_INTERLEAVE_EXPLORE_H

#include "tests/interleave/hook.h"

#include <stddef.h>

#define ACTORS 6u /* the daemon, and threads of clients */
#define DAEMON 0u
#define CLIENTS 6u
#define NO_CLIENT 255u
#define STACK_BYTES (32 * 1024u)
#define BUFFER 8u

enum model { EXPLORE_SC, EXPLORE_TSO, EXPLORE_WEAK };

/* What the word at an address is to the actor that touches it. */
enum touch {
	TOUCH_PRIVATE, /* nobody else looks, or looks only when it does not matter */
	TOUCH_RECORD, /* the thread's own record, or the daemon in a dead thread's: matters if it is killed just here */
	TOUCH_SHARED
};

enum pending { AT_END, AT_START, AT_LOAD, AT_STORE, AT_RMW, AT_FENCE, AT_RECORD, AT_AFTER, AT_WAIT };

struct waiting {
	uint64_t at, value; /* address */
	uint8_t size;
	bool reserved; /* of a read-modify-write: nobody else may store there */
};

struct actor {
	uint8_t client; /* whose thread; NO_CLIENT: the daemon */
	uint8_t pending; /* enum pending: what it does next */
	uint8_t buffered;
	uint8_t choice; /* AT_WAIT: which of the choices was taken */
	uint32_t sp; /* from the stack's start; 0: no stack */
	uint64_t at, value;
	struct waiting buffer[BUFFER];
};

/* What the explorer is given. */
struct explore {
	enum model model;
	uint32_t actors;
	void (*body)(uint32_t actor); /* what each of them does */
	enum touch (*touch)(uint64_t at, bool load);
	uint32_t (*choices)(uint32_t actor); /* AT_WAIT: bits; 0: it cannot go on */
	bool (*killable)(uint32_t client); /* NO_CLIENT: the daemon */
	void (*killed)(uint32_t client); /* after its actors are gone */
	void (*step)(void); /* what must hold after every step; explore_fail if not */
	void (*end)(void); /* what must hold when nobody can go on */
	const char *(*name)(uint64_t at, char *buf, size_t len);
	bool wide; /* stores to records are steps like any other: for processes of several threads that die */
};

struct explore_result {
	uint64_t states, steps, ends, kills, daemon_kills;
	double schedules;
	uint32_t depth;
	bool failed;
};

extern struct actor explore_actor[ACTORS];

/* Memory that is part of the state; `owner`: a client, whose death makes it meaningless, or NO_CLIENT. `hashed`: whether two states
 * that differ only here are two. explore_watch: memory around regions that must not change. */
void explore_reset(void);
void explore_region(void *at, size_t len, uint32_t owner, bool hashed);
void explore_watch(void *at, size_t len);

/* Explores all; prints how it came about when something fails. */
void explore_run(const struct explore *e, struct explore_result *result);

/* ---- called by actors and checks ---- */

uint32_t explore_self(void);
bool explore_active(void); /* false: in a scenario's preparation */
uint32_t explore_wait(uint64_t what); /* until choices() of this actor is not 0; returns the bit chosen */
void explore_point(uint64_t what); /* the actor can die here */
__attribute__((format(printf, 1, 2))) void explore_fail(const char *format, ...);

/* What is in memory, whatever waits in buffers. */
static inline uint64_t explore_peek(const volatile void *at, unsigned size)
{
	return size == 2   ? *(const volatile uint16_t *)at
	       : size == 4 ? *(const volatile uint32_t *)at
	                   : *(const volatile uint64_t *)at;
}

/* The same, with read-modify-writes that have been done and not seen yet: what the next one will find. */
uint64_t explore_word(const volatile void *at, unsigned size);

#endif
