/* Taking a wholly free span from a holder that sleeps, without its help.
 *
 * The daemon takes the slots out of the bitmap as the holder would, but word by word and each word whole: one compare-and-swap of
 * `all free` for `none free`. If it gets every word, then nobody has a slot of the span and nobody will: the state word says
 * SEIZED, the pages are the daemon's to drop, and what is left to the owner is the address space, until it has heard of it
 * (struct shmi_owner, seizures) and gives the span back. If a word is not wholly free, what was got is put back.
 *
 * The holder may run meanwhile. Its take uses what the atomic and returned, and may get nothing where it has just seen slots; it
 * finds them again when it looks again. A put into the span, of a slot that was allocated, means that the daemon cannot have
 * got all. A compare-and-swap and not an and: an and may get a part of a word, which has to be put back, and so is in doubt
 * twice if the daemon dies.
 *
 * If the daemon dies on the way, the note in the state object (struct shmi_seizing) tells the next one, before it serves anybody:
 *
 *	store                        a daemon that dies right after it leaves
 *	step = w + 1                 words below w: its own for certain. Word w in doubt: a slot is free: it has not been taken,
 *	                             or has been put back, for while all are the daemon's nobody can set a bit. None is: the
 *	                             daemon has them, or the holder has taken them all: written off, never guessed
 *	swap of word w, or put       the same
 *	step = words + 1             all words its own
 *	state word SEIZED            done: the note is void, and the pages are dropped once more
 *	step = 0                     no note
 *
 * Going back, words are put from the last to the first, each with step = w + 1 stored before: so the note means the same. Slots are
 * written off through the note as well (SHMI_SEIZING_DOUBT): the stores of it are repeated if this daemon dies, too.
 *
 * Called by the daemon only. Invariant: I25 of README.md.
 */
#ifndef SHM_SEIZE_H
#define SHM_SEIZE_H

#include "shm/span.h"

/* Takes an OWNED span of blocks. True: it is SEIZED, and its pages are to be dropped. False: it is as it was. */
bool shmi_seize(struct shmi_image *img, shmi_page page, struct shmi_seizing *note);

/* Settles what an earlier daemon was about. Its page is good. Returns how many slots were written off. */
uint32_t shmi_seize_settle(struct shmi_image *img, struct shmi_seizing *note);

#endif
