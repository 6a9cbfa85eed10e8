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
 * live block. The daemon may be killed as well, at any store of this. So it works as the thread would have done, in the
 * thread's own record: first what stood there is resolved and the spill put, group by group, each under an intent; then each magazine
 * goes through the spill, up to 512 entries at a time from the top. Whoever comes next finds a record of the same kind,
 * to which the same rules apply, with one difference. The intent says RECLAIM and not PUT; with none of its bits set and in a span
 * of the dead client it was not put, for nobody takes from such a span before the reclaim has ended. (Of a PUT that cannot be
 * said: another thread of the client may have taken the slots while it lived.) So a daemon's death costs at most the slots
 * of one word, of another's span, written off and counted, and nothing silently.
 *
 *	store                        a daemon that dies right after it leaves
 *	entry of 0 (closing up)      one place less for a slot that had two; the next one finds the others
 *	spill, spill_top             slots in spill and magazine: closing up finds them
 *	top of the magazine          slots in the spill
 *	intent, op = RECLAIM         this group in doubt; see above
 *	or on the bitmap word        a bit is set, or all were taken: done, or in doubt
 *	spill_top                    done
 *	op = NONE                    the next group
 *
 * Slots are written off through a note in the state object (struct shmi_write_off): span record, counter and the end of the
 * put are several stores, and must not be done in part nor twice. The next daemon carries an open note out before all else.
 *
 * Nothing in the record is believed: it is read once, into a private copy, and each word checked against meta; what is
 * written into it for the next daemon is not read again by this one. No work is more than the record has room for. Called
 * by the daemon only.
 */
#ifndef SHM_RECLAIM_H
#define SHM_RECLAIM_H

#include "shm/threadrec.h"

struct shmi_reclaim {
	uint32_t thread, client, parts; /* the record, whose it was, which parts are backed */
	uint32_t at; /* next span class to look at */
	bool begun;
	struct shmi_write_off *write_off; /* of the state object; NULL: nobody comes after us */
	uint32_t put; /* slots put back */
	uint32_t written_off; /* slots of unknown fate */
	uint32_t bad; /* words that made no sense */
	uint32_t big_count; /* freed large spans found ... */
	uint64_t big[SHMI_BIG_MAX]; /* ... as they stood in the record: first page | generation << 32 */
};

void shmi_reclaim_init(struct shmi_reclaim *r, uint32_t thread, uint32_t client, uint32_t parts);

/* Goes on for at least `budget` entries and at most one magazine more. `copy` is a private snapshot of the record taken after the
 * death: its head and those parts that are backed, geo.record_bytes long; it is used up. Large spans
 * are listed in r->big for the caller to free, if each is still what it was when it was found. True when done. */
bool shmi_reclaim_step(struct shmi_image *img, struct shmi_reclaim *r, struct shmi_threadrec *copy, uint32_t budget);

/* Does what an open note of an earlier daemon says; before any reclaim of this one. Its page and thread are good. */
void shmi_reclaim_redo(struct shmi_image *img, struct shmi_write_off *note);

#endif
