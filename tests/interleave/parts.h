/* What world.c, daemon.c, audit.c and prepare.c share. */
#ifndef TESTS_INTERLEAVE_PARTS_H
#define TESTS_INTERLEAVE_PARTS_H

#include "tests/interleave/world.h"

#define MAGAZINE_BYTES (8 + 8 * 6u) /* of a magazine: what the scenarios use of it */
#define RECORD_HEAD 256u /* of the head of a record */
#define EVENT_JOB                                                                                                      \
	8u /* choices of the daemon: mail of actor n; the job of client n; a look; taking page 1 from who sleeps */
#define EVENT_LOOK 16u
#define EVENT_SEIZE 17u

/* What the daemon alone has, and loses. */
struct daemon_world {
	struct job job[CLIENTS];
	uint32_t look_page; /* 0: no look is due */
	uint8_t copying; /* client + 1 */
};

struct parts {
	const struct scenario *scenario;
	struct shmi_image img;
	unsigned char *meta, *ctl;
	shmi_sclass sclass;
	const struct shmi_class *class; /* of the scenario's blocks */
	struct shmi_threadrec *copy; /* the daemon's, of a dead thread's record */
	struct daemon_world daemon;
	struct shmi_write_off write_off; /* what the state object has of it */
	struct shmi_seizing seizing; /* likewise */
	struct shmi_tcache *caches; /* by actor */
	struct shmi_tc_env envs[CLIENTS];
	struct shmi_held held[CLIENTS][PAGES];
	shmi_a64 own_scoped[CLIENTS];
	uint32_t as; /* whose part is played in a preparation */
	bool scoped_death; /* a dead client's scoped span is being closed */
};

extern struct parts parts;
extern const struct shmi_tc_ops parts_ops;

uint32_t parts_tracked(void); /* slots of a span that the book knows */
uint32_t parts_slot(uint32_t slot); /* which of them it is, or TRACKED */
uint64_t parts_off(uint32_t page, uint32_t index);
bool parts_alive(uint32_t client);
uint32_t parts_cached(uint32_t actor, uint64_t off); /* how often it stands in the actor's magazine */
void parts_explore(struct explore *e); /* what the explorer asks */

bool daemon_take_page(struct shmi_run *run);
void daemon_serve(uint32_t actor);
uint32_t daemon_events(void); /* as bits */
void daemon_run(void);

void audit_closed(uint32_t page);
void audit_step(void);
void audit_end(void);

#endif
