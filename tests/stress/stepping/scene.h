/* The other clients of a variant: what they have before, and what they do while the victim is stepped.
 *
 *	holder   lives; has spans of the class, half used, a scoped one, a large block of each kind, two roots
 *	heir     lives, and has nothing yet
 *	dead     has died before, and left spans of the class with live blocks to nobody
 */
#ifndef TESTS_STRESS_STEPPING_SCENE_H
#define TESTS_STRESS_STEPPING_SCENE_H

#include "shm/walk.h"
#include "tests/stress/stepping/oracle.h"
#include "tests/stress/stepping/victim.h"

#define SCENE_TAKES 64u

struct takes {
	uint32_t count;
	struct shmi_group take[SCENE_TAKES];
};

/* Before the victim is there. */
void scene_make(struct world *w, const struct variant *v);

/* Others free the victim's blocks that note->own names. */
void scene_free_own(struct world *w);

/* The holder asks for a span and for a large block: memory that the victim has just given back goes out again. */
void scene_grab(struct world *w, const struct variant *v, struct oracle *o);

/* The holder dies, and the heir asks for spans of the class and takes all that is free in them. In a trial. */
void scene_hand_over(struct world *w, const struct variant *v, struct oracle *o);

/* The holders take every free slot of their own spans (of those in `some`), as if their threads had run just now; and that did not
 * happen. The bitmaps are put back by world_restore. */
void scene_take(struct world *w, struct oracle *o, struct takes *takes, uint64_t some);
void scene_forget(struct oracle *o, const struct takes *takes);

#endif
