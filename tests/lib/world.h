/* A heap's shared memory that outlives its daemon: the bytes of meta, ctl and state, and a book of what is backed.
 *
 *	master   what "is there": a memfd for each object
 *	copy     the same memory, mapped copy on write: whatever a daemon does there is gone with world_fresh
 *
 * A daemon's core over one of the two (tests/lib/core.h) that is simply dropped is a daemon that was killed: its private memory is
 * lost and the shared bytes stay as they are, which is all that SIGKILL does. Its floor does what the system calls do, backing
 * and punching, byte for byte in the same memory, so that these are part of what a death leaves.
 *
 * A process that lives is this one (its pid and the inode of its pidfd); one that is dead has another inode.
 */
#ifndef TESTS_LIB_WORLD_H
#define TESTS_LIB_WORLD_H

#include "tests/lib/core.h"
#include "tests/lib/stores.h"

#define WORLD_RANGES 4u /* meta, ctl, the book, state: the book is where enum heap_object has data */
#define WORLD_BOOK HEAP_DATA

struct world {
	struct shmi_geometry geo;
	int fd[WORLD_RANGES];
	struct stores_range master[WORLD_RANGES], copy[WORLD_RANGES];
	uint64_t book[HEAP_OBJECTS]; /* where in the book an object begins: a byte for each 4 KiB of it */
};

/* Memory for a heap of `limit` pages, zero, as a daemon has it that begins to make one: the fixed parts are backed. */
void world_init(struct world *w, uint32_t limit);
void world_deinit(struct world *w);

/* The copy is as the master again. */
void world_fresh(struct world *w);

/* A core over the master or the copy; limit 0: what is there is adopted. NULL and *why: refused. */
struct test_core *world_core(struct world *w, struct stores_range *ranges, uint32_t limit, const char **why);

/* The number of pages of an object that are backed, from `off` to `off + len`: all, if that is what it should be. */
bool world_backed(
        const struct world *w, const struct stores_range *ranges, enum heap_object object, uint64_t off, uint64_t len);

/* A process that lives, and one that does not. */
struct peer world_living(uint32_t uid);
struct peer world_dead(uint32_t uid);

#endif
