/* What a dead thread left in its record goes back.
 *
 * A killed thread leaves a prefix of its stores in program order (shm/threadrec.h has the orders):
 *
 *	TAKE standing, all bits still set   it did not happen
 *	TAKE standing, else                 the slots are the thread's, in the magazine already or not: put back
 *	PUT standing, spill not yet closed  a bit is set: it happened (nobody else could set it). None is: it did not happen, or
 *	                                    it did and all were taken again; nobody can say, so the slots are written off
 *	PUT standing, spill closed          it happened
 *	groups of the spill                 the thread's: put back
 *	entries below top                   the thread's: put back; in a magazine whose spill was being closed up some stand
 *	                                    twice, or in the spill too: each is put once
 *	a generation that is not the span's void
 *
 * Each slot is put back once: after the first time its holder may take it and give it out, and a second put would free a
 * live block. So that holds over the daemon's own death, too, slots of others' spans are taken out of the record before they
 * are put, at most 64 at a time: whoever reclaims the record again does not meet them, and no more than those are lost.
 * (Slots of the dead client's own spans nobody can take before the reclaim has ended.) The one moment when more could be lost is
 * while a magazine that the thread died closing up is written anew: its top is 0 for as long as that takes.
 *
 * Nothing in the record is believed: each word is checked against meta. Called by the daemon only.
 */
#ifndef SHM_RECLAIM_H
#define SHM_RECLAIM_H

#include "shm/threadrec.h"

struct shmi_reclaim {
	uint32_t thread, client, parts; /* the record, whose it was, which parts are backed */
	uint32_t at; /* next span class to look at */
	bool begun;
	uint32_t put; /* slots put back */
	uint32_t written_off; /* slots of unknown fate */
	uint32_t bad; /* words that made no sense */
	uint32_t big_count; /* freed large spans found ... */
	uint64_t big[SHMI_BIG_MAX]; /* ... as they stood in the record: first page | generation << 32 */
};

void shmi_reclaim_init(struct shmi_reclaim *r, uint32_t thread, uint32_t client, uint32_t parts);

/* Goes on for at least `budget` entries and at most one magazine more. `copy` is a private snapshot of the record taken after the
 * death: its head and those parts that are backed, geo.record_bytes long; its magazines may be reordered. Large spans
 * are listed in r->big for the caller to free, if each is still what it was when it was found. True when done. */
bool shmi_reclaim_step(struct shmi_image *img, struct shmi_reclaim *r, struct shmi_threadrec *copy, uint32_t budget);

#endif
