#include "daemon/jobs.h"

#include <stddef.h>

static struct payer *payer_of(struct jobs *jobs, const struct job *job)
{
	return job->payer ? job->payer : &jobs->daemon;
}

void jobs_init(struct jobs *jobs)
{
	*jobs = (struct jobs){.clock = 0};
	TAILQ_INIT(&jobs->queue);
}

void jobs_add(struct jobs *jobs, struct job *job)
{
	struct payer *payer = payer_of(jobs, job);

	if (job->queued)
		return;
	if (!payer->jobs++ && payer->clock < jobs->clock)
		payer->clock = jobs->clock;
	TAILQ_INSERT_TAIL(&jobs->queue, job, link);
	job->queued = true;
}

void jobs_remove(struct jobs *jobs, struct job *job)
{
	if (!job->queued)
		return;
	payer_of(jobs, job)->jobs--;
	TAILQ_REMOVE(&jobs->queue, job, link);
	job->queued = false;
}

bool jobs_any(const struct jobs *jobs)
{
	return !TAILQ_EMPTY(&jobs->queue);
}

struct job *jobs_next(struct jobs *jobs)
{
	struct job *next = NULL;

	for (struct job *job = TAILQ_FIRST(&jobs->queue); job; job = TAILQ_NEXT(job, link))
		if (!next || payer_of(jobs, job)->clock < payer_of(jobs, next)->clock)
			next = job;
	if (!next)
		return NULL;
	jobs_remove(jobs, next);
	/* The clock of the payers goes on even if this was its last job: it may come back with the next request. */
	jobs->clock = payer_of(jobs, next)->clock++;
	return next;
}
