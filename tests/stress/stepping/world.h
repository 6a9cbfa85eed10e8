/* The world of a client that is stepped: a heap in memory, the daemon's core over it, a socket to it, and other clients.
 *
 * Nothing runs but the victim (the traced child) and we, in turn: the daemon serves when the victim enters a system call
 * (world_serve), so what it waits for is there when it looks. meta, ctl and data are memfds, mapped here, and by the victim as an
 * attach tells it; state is private memory. Other clients are dialogues without a socket, and what they do with ctl we do
 * for them, by the library's own functions where they are exported from shm/.
 *
 * A trial (world_save, then world_reap, then world_restore) is a death that did not happen: the daemon is told that the victim is
 * dead and takes back what it held, with everything that it does to meta, ctl, state and itself; then all of that is put
 * back as it was, and the victim goes on. Pages of data are neither punched nor cleared in a trial.
 */
#ifndef TESTS_STRESS_STEPPING_WORLD_H
#define TESTS_STRESS_STEPPING_WORLD_H

#include "daemon/dialogue.h"

#define WORLD_PAGES 2048u
#define WORLD_OTHERS 4u
#define WORLD_REGIONS 64u
#define WORLD_BLOCKS 1024u
#define WORLD_TURNS 64u /* steps within which every reclaim here must end */
#define WORLD_CLIENTS 16u /* ids that are used at most */

/* A page that is shared with the victim. */
struct note {
	char socket[108];
	uint64_t base; /* where the heap lies in the victim */
	/* blocks of others, by offset, that bear a pattern */
	uint64_t foreign[WORLD_BLOCKS]; /* shared, of the variant's class, in a span of another client */
	uint64_t central[WORLD_BLOCKS]; /* the same in a span that nobody holds */
	uint64_t foreign_scoped[8], foreign_large, foreign_large_scoped, central_large;
	uint32_t n_foreign, n_central, n_scoped;
	/* what the victim tells us */
	uint64_t own[WORLD_BLOCKS]; /* blocks of its own that bear a pattern */
	uint32_t n_own;
	uint64_t old; /* the block that the operation frees, or 0 */
	uint64_t result; /* what it got, after its end */
	char failure[128]; /* why a variant could not be set up */
};

struct region {
	unsigned char *live, *copy;
	size_t len;
};

struct other {
	struct dialogue dialogue;
	uint32_t thread;
	uint64_t serial;
};

struct world {
	struct heap heap;
	struct core core;
	struct config_heap config; /* "default", for everybody */
	struct heaps heaps; /* this one */
	struct heap_memory memory;
	unsigned char *data;
	struct note *note;
	int fd[HEAP_OBJECTS];
	int listener, sock; /* sock: the victim's, or -1 */
	char dir[64];
	int32_t pid; /* the victim */
	struct dialogue victim;
	struct other other[WORLD_OTHERS];
	uint32_t others;
	uint64_t version; /* counts what the daemon has done: packets and steps of jobs */
	bool trial; /* nothing leaves this process */
	bool succeeded; /* w->core is the next daemon's */
	bool later; /* the answer to another's request is still to come */
	void (*moved)(void *ctx); /* a request lies in the socket, or the daemon is between two steps of a job */
	void (*served)(void *ctx); /* and has sent the answer */
	void *ctx;
	uint64_t saved_version;
	struct region region[WORLD_REGIONS];
	uint32_t regions;
	size_t room; /* of the regions' copies together, for those that are made anew */
	unsigned char *copies;
	struct wire_msg req, reply;
	struct codec_scratch scratch;
};

/* A new heap and its daemon. Ends the program if there is no memory for it. */
struct world *world_new(void);
void world_free(struct world *w);

/* at_syscall of the stepper: accepts, receives, carries out, answers. */
void world_serve(void *world);

/* True if a request of the victim lies in the socket and has not been read. */
bool world_request_waits(struct world *w);

/* ---- trials ---- */

/* Finds what a reclaim of the victim may change, and keeps it. */
void world_save(struct world *w);
void world_restore(struct world *w);

/* The victim is dead: the daemon hears it from its pidfd, then reads what is still in the socket, then sees the hang-up. Returns
 * the number of steps that the reclaim took, or WORLD_TURNS + 1 if it did not end. */
uint32_t world_reap(struct world *w);

/* The daemon is dead as well: the next one adopts the heap, finds that the victim is dead and the others live, and reclaims.
 * Returns likewise. */
uint32_t world_succeed(struct world *w);

/* The victim's id, or SHMI_NOBODY if it is not attached. */
uint32_t world_victim(const struct world *w);

/* ---- other clients ---- */

/* Another client with a thread record. */
struct other *world_other(struct world *w);

/* Carries out w->req for it; w->reply. */
void world_ask(struct world *w, struct other *o);

/* A span of blocks for it: its first page. */
shmi_page world_span(struct world *w, struct other *o, uint32_t size, uint32_t attrs);

/* Its live block in slot `slot`: taken from the bitmap, and given a pattern. Returns the offset. */
uint64_t world_take(struct world *w, shmi_page page, uint32_t slot);

/* Into its magazine. */
void world_cache(struct world *w, struct other *o, shmi_page page, uint32_t word, uint64_t bits);

/* A large block for it: its offset. */
uint64_t world_large(struct world *w, struct other *o, uint32_t pages, uint32_t attrs);

/* It dies, really, and is reclaimed. */
void world_kill_other(struct world *w, struct other *o);

/* ---- patterns ---- */

/* First and last word of a block of `size` bytes. */
void world_mark(unsigned char *block, uint64_t off, uint64_t size);
bool world_is_marked(const unsigned char *block, uint64_t off, uint64_t size);

/* Bytes of the block at `off` (of a small class, or large). */
uint64_t world_size_at(const struct world *w, uint64_t off);

/* Ends the program: the test itself is wrong, or the machine has no memory. */
_Noreturn __attribute__((format(printf, 1, 2))) void world_die(const char *format, ...);

#endif
