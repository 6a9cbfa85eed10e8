/* The daemon dies after every store to shared memory, and the next one takes over: what must hold, and the walk over all of it.
 *
 * A case is a history, made by a real core over the master memory (tests/lib/world.h), and a deed of that core: a request, a client's
 * death, a turn of the scavenger. The deed is recorded store by store (tests/lib/stores.h). Then, for each prefix of its stores:
 * the daemon is killed there, that is, the memory is as the prefix left it and the core is forgotten; a new core adopts it, finds
 * its clients, the client that had asked comes back and repeats its request under its old number, jobs run. And the judge looks:
 *
 *	the heap's check finds nothing, and what is in use is backed
 *	all is as after the deed with no death at all (tests/lib/digest.h): no span or record twice, none lost, no block touched
 *	every span that the client has and did not have before, it was told of in the answer; and the other way round
 *	adopting twice is the same as once
 *	while the new core adopts, no word that a living client reads is changed, not even for a moment
 *	the next request of another client is answered
 *
 * The recovery is a deed as well, and recorded; so the daemon that recovers can be killed after each of its stores, and the one after.
 *
 * The same is done with the asking client dead, too: then all is as if it had died before the request, or after it.
 *
 * A deed that nobody asked for, and that the next daemon does when it comes to it, is a case with `again`. A seizure is one. What a
 * death in it leaves need not be as without: a word of the bitmap of which the next daemon cannot know is written off, one for each
 * death that left the note standing over a word with no slot free, and its span stays with its client.
 */
#ifndef TESTS_LIB_DEATHS_H
#define TESTS_LIB_DEATHS_H

#include "tests/lib/digest.h"
#include "tests/lib/random.h"
#include "tests/lib/world.h"

#define DEATHS_LEVELS 3u

struct deaths;

struct death_case {
	const char *name;
	uint32_t limit; /* pages of the heap */
	void (*prepare)(struct deaths *d); /* what is there before; sets d->req if somebody asks */
	void (*act)(struct deaths *d); /* the deed; NULL: the request */
	void (*again)(struct deaths *d); /* how the next daemon does it by itself; NULL: it does not */
	bool recovery; /* the daemon dies before the deed: only its recovery is stepped */
};

/* How much of it: at most so many deaths for each deed of a level, and so many of those are looked at one level deeper. */
struct death_plan {
	uint32_t deaths[DEATHS_LEVELS], deeper[DEATHS_LEVELS];
	bool orphans; /* with the asking client dead, too */
};

/* What the note of a seizure says when the daemon dies. */
struct death_note {
	uint32_t span, words; /* of that span, so many words are the daemon's for certain; 0: there is none */
	bool doubt; /* and nobody can know about the next one */
};

/* A client that outlives daemons. */
struct death_client {
	struct peer peer;
	struct dialogue *dialogue; /* its connection to d->t */
	uint32_t id;
	uint64_t nonce;
};

struct deaths {
	const struct death_case *c;
	const struct death_plan *plan;
	struct world w;
	struct test_core *t; /* the daemon that lives just now */
	struct death_client asker, other;
	struct wire_msg req, reply; /* of the asker; kind WIRE_NONE: nobody asks */
	struct digest before, after; /* around the deed that nobody cut short */
	uint32_t answer; /* the kind of reply to it */
	uint32_t thread; /* the record that an attach brought */
	bool orphaned; /* the asker is dead */
	struct digest orphan[2]; /* what may come of that */
	/* the death that is looked at */
	uint32_t level;
	size_t at[DEATHS_LEVELS], of[DEATHS_LEVELS];
	struct death_note note[DEATHS_LEVELS];
	uint32_t variant;
	bool watched;
	size_t adopted; /* stores of the recovery when it had adopted */
	struct test_random random;
	/* the book */
	uint64_t kills, by_level[DEATHS_LEVELS], traps, violations;
	double told; /* when there was a line about it */
};

/* Goes through a case and prints a line of figures. Returns the violations, the first few of which it has described. */
uint64_t deaths_run(const struct death_case *c, const struct death_plan *plan);

/* ---- the judge ---- */

/* What was found, with the deaths that led there; counted, and described unless there are many. */
void deaths_violation(struct deaths *d, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The heap's own check. */
void deaths_check(struct deaths *d, const char *when);

/* The state in the end, on the copy. */
void deaths_judge(struct deaths *d);

/* No store of the adoption was to a word that a living client reads. */
void deaths_judge_stores(struct deaths *d, const struct stores *log);

/* For prepare: attaches a client that lives. */
struct death_client deaths_attach(struct deaths *d, struct peer peer);

#endif
