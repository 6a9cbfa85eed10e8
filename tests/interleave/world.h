/* What the actors of a scenario live in: a small heap, thread caches for threads of several clients, a daemon, and a book in
 * which it is written who really has each block.
 *
 * Real: shm/ (slots, threadrec, reclaim, central, span, adopt, image, sizeclass, arena) and client/ (tcache, tcput, held), compiled with hook.h.
 * Written here, after daemon/reaper.c, daemon/refill.c and daemon/scavenger.c: the daemon's loop. It does one thing after the other in
 * any order: a message, the next piece of a reclaim, a look at one page. The page heap is a handful of pages. Messages are mailboxes.
 *
 * What must hold after every step: no block that somebody has is free in its bitmap, or in a magazine of a living thread; no slot
 * is free and in a living thread's magazine. When a span is closed: nobody has anything of it. When a block is allocated: nobody
 * has it. Of a seized span nobody has or caches anything, and no slot is free. When all have come to rest: every slot is in exactly one place, lost slots are at most one for each killed thread, written-off ones
 * at most what the intents of killed threads named; central spans with free slots are on the list of those or reported (P2), wholly free
 * ones are gone; lists and counts agree; dead threads' records are given up.
 */
#ifndef TESTS_INTERLEAVE_WORLD_H
#define TESTS_INTERLEAVE_WORLD_H

#include "tests/interleave/explore.h"

#include "client/tcache.h"
#include "shm/reclaim.h"

#define PAGES 6u /* of the heap, with page 0 */
#define TRACKED 8u /* slots of a span that the book knows */
#define MAILS 3u /* spans in a message */
#define BLOCKS 8u

#define NOBODY 0u
#define IMMORTAL 15u /* a program that never frees what it has */

struct mail {
	uint8_t kind; /* enum mail_kind */
	uint8_t n_wants, n_returns, n_reports, n_grants;
	uint8_t error;
	uint32_t sclass, report[MAILS], grant[MAILS], grant_generation[MAILS];
	struct shmi_tc_span give_back[MAILS];
};

enum mail_kind { MAIL_NONE, MAIL_REFILL, MAIL_DETACH, MAIL_ANSWER };

/* What the daemon knows while it lives. */
struct job {
	uint8_t stage;
	bool in_record;
	uint32_t thread, cursor;
	struct shmi_reclaim reclaim;
};

/* All that is about actors and no part of the real heap. */
struct world {
	struct mail mail[ACTORS];
	uint8_t has[PAGES][TRACKED]; /* actor + 1 that has the block; NOBODY; IMMORTAL */
	uint8_t doubt[PAGES]; /* slots that standing puts of killed threads named, as bits of the tracked ones */
	uint8_t killed_threads; /* each may lose a block */
	uint8_t kills_left, daemon_kills_left, seizes_left;
	uint8_t may_die; /* clients, as bits */
	uint8_t leaving, dead, gone; /* clients, as bits */
	bool in_reclaim; /* the daemon is at what it may be killed at */
	bool adopts;
	uint64_t block[BLOCKS]; /* offsets: who gets which is the scenario's business */
};

extern struct world world;

struct scenario {
	const char *name, *what;
	enum model model;
	uint32_t actors; /* with the daemon */
	uint8_t client[ACTORS]; /* of each; [0] is the daemon */
	uint32_t size, attrs; /* of blocks */
	uint16_t track[TRACKED]; /* slots, in ascending order; the others are out for ever */
	uint32_t pages; /* free pages besides the first */
	uint32_t limit; /* of magazines */
	uint8_t kills, daemon_kills, may_die;
	uint8_t seizes; /* times that the daemon tries to take page 1 from its holder, whenever it likes */
	bool spare; /* slots that the book does not know are free, and nobody comes by them */
	bool wide, soak;
	bool blind; /* the daemon does not look at all central spans when a client has gone: P2 alone must do */
	bool turns; /* the reclaim of a record takes several turns of the daemon's loop */
	void (*prepare)(void);
	void (*body[ACTORS])(void); /* [0] unused */
	void (*end)(void);
	bool empty; /* in the end no span of blocks is left */
};

/* Explores one scenario. */
void world_run(const struct scenario *s, struct explore_result *result);

/* ---- what actors do; in `prepare` after world_as ---- */

void world_as(uint32_t actor);
uint64_t world_malloc(void); /* 0: none */
void world_free(uint64_t off);
void world_flush(void); /* puts all that is in the magazine */
void world_put(uint32_t entries); /* the oldest of it */
void world_trim(void);
void world_send(void); /* tells the daemon what waits */
void world_detach(void);
void world_give(uint64_t off, uint32_t actor); /* the block is that actor's from here on */
uint32_t world_owner(uint64_t off); /* which actor has it; NO_CLIENT: none */

/* In `prepare`: nobody holds page 1 any more. */
void world_let_go(void);

/* The span on page 1. */
struct shmi_span *world_span(void);

#endif
