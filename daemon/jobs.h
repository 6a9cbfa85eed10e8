/* Jobs: what would hold up the loop if it were done at once, in steps of less than a millisecond.
 *
 * One step of one job is done in each turn of the loop. Whose turn it is goes by who pays: each user, and the daemon itself, has a
 * clock that is moved on by one with each step done for it, and the job of the payer whose clock is behind is next; jobs of one
 * payer take turns. So a user with hundreds of large blocks on their way slows down its own, and another user's one block goes on at
 * the speed of one of two. A payer who comes anew starts with the clock of the last step: nothing is saved up by wanting nothing.
 * (Start-time fair queueing, Goyal, Vin and Cheng 1996, with steps of one length.)
 */
#ifndef DAEMON_JOBS_H
#define DAEMON_JOBS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct core;

struct payer {
	uint64_t clock;
	uint32_t jobs; /* queued */
};

struct job {
	TAILQ_ENTRY(job) link;
	bool (*step)(struct core *core, struct job *job); /* true: done, and the job must not be touched again */
	struct payer *payer; /* lives as long as the job; NULL: the daemon */
	bool queued;
};

TAILQ_HEAD(job_queue, job);

struct jobs {
	struct job_queue queue;
	uint64_t clock; /* of the payer of the last step */
	struct payer daemon;
};

void jobs_init(struct jobs *jobs);

/* Puts it at the end, unless it is queued already. */
void jobs_add(struct jobs *jobs, struct job *job);

/* Takes it out; harmless if it is not queued. */
void jobs_remove(struct jobs *jobs, struct job *job);

bool jobs_any(const struct jobs *jobs);

/* Takes out the one whose step is next; NULL when there is none. */
struct job *jobs_next(struct jobs *jobs);

#endif
