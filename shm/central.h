/* The central lists: per span class, the spans that nobody holds; those with free slots and those without, after Go's
 * mcentral.
 *
 * Nobody may take from a span that nobody holds, so its set bits only grow; the lists say what was found when the daemon
 * last looked. It looks when a span comes in, when a put reports the span (a put fences and reads the state word after its
 * or: P2), and before the heap grows. A span all of whose slots are set is empty for good: its pages go to the page heap.
 *
 * Slots that a death left in doubt (written off) may be some live client's blocks: the put may have happened and the slots
 * been taken again. So they keep their span from being empty until one of them is seen free, which proves just that.
 *
 * What the bitmap says decides whether pages are free, and any client can write it. A bitmap that no life of the span and no death
 * of a client could have left so is not believed: the span is set aside (SHMI_SPAN_QUARANTINE), whenever we come by it here.
 * Its blocks stay valid, and whoever has one keeps it; its pages are never used again. That is the case if
 *
 *	a bit behind the last slot is set    nobody sets one, whatever instruction he dies at
 *
 * A span on the `free` list that turns out to have no free slot has lost its bitmap, to a hole punched into it say. All it
 * says then is that everything is allocated, which harms nobody: it goes to the `full` list. (A bit that is set for a block in use
 * cannot be told from a free: clients of a heap can do that to each other.)
 *
 * Called by the daemon only. Invariants: I6, I7 of README.md.
 */
#ifndef SHM_CENTRAL_H
#define SHM_CENTRAL_H

#include "shm/pageheap.h"

/* A span of `sclass` that nobody holds and that has free slots, or SHMI_NO_PAGE. Passes over at most SHMI_GRANT_LOOKS spans that
 * have been overwritten. */
#define SHMI_GRANT_LOOKS 16u
shmi_page shmi_central_find(struct shmi_image *img, shmi_sclass sclass);

/* The same, but one whose blocks are all of this user (last_user of its record), among the first SHMI_GRANT_LOOKS of the list. */
shmi_page shmi_central_find_of(struct shmi_image *img, shmi_sclass sclass, uint32_t user);

/* Gives it to `owner`. Between the two a daemon may note that it will. */
void shmi_central_give(struct shmi_image *img, shmi_page page, uint32_t owner);

/* Both. */
shmi_page shmi_central_grant(struct shmi_image *img, shmi_sclass sclass, uint32_t owner);

/* Takes in a span of blocks (state OWNED): it is CENTRAL from here on, or, if empty, its pages are free, or
 * it is set aside. Returns true if its pages are free. */
bool shmi_central_accept(struct shmi_image *img, shmi_page page, uint32_t now);

/* Looks at a span again that a client says has free slots. Anything but a central span is ignored. True if it was empty. */
bool shmi_central_report(struct shmi_image *img, shmi_page page, uint32_t now);

/* Looks again at up to `most` spans on the full list of `sclass`, from where the last sweep ended. Returns how many were found
 * to have slots or to be empty (those are gone). */
uint32_t shmi_central_sweep(struct shmi_image *img, shmi_sclass sclass, uint32_t most, uint32_t now);

#endif
