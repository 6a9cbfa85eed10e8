/* What must hold after a death, kept apart from the code that makes it so.
 *
 * At the first marker the victim is at rest: what is allocated then is what its bitmap says, less what the victim's own
 * magazines hold. From there on one operation runs, and after a death at any boundary:
 *
 *	- every block that was allocated is, but the one that the operation frees (either way), and the victim's scoped ones (gone)
 *	- every other slot is free, but for one that the operation allocates (lost: nobody was told; once it is, it stays so), and,
 *	  where a put was in doubt, those of its word, which are written off and counted
 *	- no word of its records is said to make no sense
 *	- the same for large blocks, those of the victim's cache being free
 *	- what others hold, have cached and have named is as it was: state words, magazines, roots, contents
 *	- the victim's id, records and spans are gone; its shared spans are central
 *
 * Slots that another client takes meanwhile are allocated from then on (oracle_taken).
 */
#ifndef TESTS_STRESS_STEPPING_ORACLE_H
#define TESTS_STRESS_STEPPING_ORACLE_H

#include "tests/stress/stepping/world.h"

#define ORACLE_LARGE 64u

struct oracle_block {
	uint32_t page, generation, owner;
	bool scoped;
};

struct oracle {
	struct world *w;
	bool allocates; /* the operation may leave one shared block that nobody was told of */
	uint64_t old; /* offset of the block that the operation frees; 0: none, or somebody else has it by now */
	uint32_t old_generation; /* if it is a large one */
	uint64_t given_up; /* the same offset for good: its content is nobody's business */
	uint64_t lost; /* offset of the block that it allocates, once seen */
	bool freed; /* `old` was seen free */
	uint32_t victim; /* its id; SHMI_NOBODY before an attach */
	uint64_t live[WORLD_PAGES][8]; /* by first page: slots that are allocated */
	struct shmi_word word[WORLD_PAGES]; /* of small spans; state 0: none */
	struct oracle_block large[ORACLE_LARGE];
	uint32_t n_large;
	uint32_t gone; /* bit i: w->other[i] has died meanwhile */
	unsigned char records[WORLD_OTHERS][4096]; /* the begin of the other clients' records, for comparison */
	/* of the state that is about to be reclaimed */
	struct shmi_group doubt[8]; /* puts whose bits are not set */
	uint32_t n_doubt;
	uint64_t written_off, bad_words;
	/* the most that was seen */
	uint32_t most_written_off;
	char text[256]; /* the first violation */
};

/* The victim is at rest, at the first marker. */
void oracle_begin(struct oracle *o, struct world *w, bool allocates);

/* A death is about to be tried: notes what is in doubt, and who the victim is by now. */
void oracle_before(struct oracle *o);

/* Slots that another client has taken since. */
void oracle_taken(struct oracle *o, shmi_page page, uint32_t word, uint64_t bits);

/* A large block, or a span, that another client has been given since. */
void oracle_given(struct oracle *o, shmi_page page);

/* Another client has died since: what it had cached and its scoped blocks are free, nobody holds the rest. */
void oracle_died(struct oracle *o, uint32_t other, uint32_t client);

/* The heap check, at any boundary. NULL, or what is wrong. */
const char *oracle_check(struct oracle *o);

/* After the reclaim. NULL, or what is wrong. */
const char *oracle_verify(struct oracle *o);

/* At the second marker: the operation's result is what was lost before it was told. NULL, or what is wrong. */
const char *oracle_end(struct oracle *o, uint64_t result);

#endif
