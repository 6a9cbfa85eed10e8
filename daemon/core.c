#include "daemon/core.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/clients.h"
#include "daemon/guard.h"
#include "daemon/limits.h"
#include "daemon/passing.h"
#include "daemon/policy.h"
#include "daemon/reaper.h"
#include "daemon/survey.h"

int core_init(struct core *core, struct heap *heap, const struct core_hooks *hooks, const struct limits *limits)
{
	memset(core, 0, sizeof(*core));
	core->heap = heap;
	core->hooks = *hooks;
	core->users.heap = &core->all;
	limits_apply(core, limits);
	core->looks = POLICY_LEASE_LOOKS;
	core->copy = malloc(heap->img.geo.record_bytes);
	jobs_init(&core->jobs);
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++)
		core->client[i] = (struct client){.id = i, .peer.pidfd = -1};
	return core->copy ? survey_open(core) : -ENOMEM;
}

void core_deinit(struct core *core)
{
	survey_close(core);
	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++)
		if (core->client[i].state != CLIENT_FREE)
			peer_close(&core->client[i].peer);
	free(core->copy);
	core->copy = NULL;
}

void core_tick(struct core *core, uint64_t now_ms)
{
	if (!core->started_ms)
		core->started_ms = now_ms;
	core->now_ms = now_ms;
	core->heap->now = (uint32_t)now_ms;
}

/* ---- jobs ---- */

void core_queue(struct core *core, struct job *job)
{
	jobs_add(&core->jobs, job);
}

void core_unqueue(struct core *core, struct job *job)
{
	jobs_remove(&core->jobs, job);
}

bool core_has_jobs(const struct core *core)
{
	return jobs_any(&core->jobs);
}

struct step {
	struct core *core;
	struct job *job;
};

static int step_guarded(void *ctx)
{
	struct step *step = ctx;

	return step->job->step(step->core, step->job);
}

bool core_turn(struct core *core)
{
	struct step step = {core, jobs_next(&core->jobs)};

	if (!step.job)
		return false;
	int done = guard_run(step_guarded, &step);

	if (done == GUARD_E_BUS)
		core_fence(core); /* the next step sees it and ends the job */
	if (done != 1)
		core_queue(core, step.job);
	return true;
}

void core_fence(struct core *core)
{
	if (core->heap->fenced)
		return;
	core->heap->fenced = true;
	log_event(LEVEL_ERROR, LOG_FENCED, core_about_heap(core),
	        "heap '%s' is damaged: a client has cut one of its objects short; it is fenced, nothing is granted "
	        "from it "
	        "any more; stop its clients and start shmallocd with --reset",
	        core->heap->name);
}

/* ---- the log ---- */

struct log_fields core_about_heap(const struct core *core)
{
	return (struct log_fields){.heap = core->heap->name};
}

struct log_fields core_about_peer(const struct core *core, const struct peer *peer)
{
	return (struct log_fields){
	        .known = LOG_HAS_PROCESS, .pid = peer->pid, .uid = peer->uid, .heap = core->heap->name};
}

struct log_fields core_about(const struct core *core, const struct client *client)
{
	struct log_fields about = core_about_peer(core, &client->peer);

	about.known |= LOG_HAS_CLIENT;
	about.client = client->id;
	return about;
}

/* ---- answers ---- */

enum outcome core_fail(struct core *core, enum wire_error_code code, const char *format, ...)
{
	va_list args;

	core->reply.kind = WIRE_ERROR;
	core->reply.u.error.code = code;
	va_start(args, format);
	vsnprintf(core->reply.u.error.text, sizeof(core->reply.u.error.text), format, args);
	va_end(args);
	return OUTCOME_ANSWERED;
}

bool core_refuses(struct core *core, const struct caller *caller, const char *heap)
{
	if (caller->peer.uid != 0 && caller->peer.uid != core->uid)
		core_fail(core, WIRE_E_ACCESS, "only root and uid %u may ask for that", core->uid);
	else if (heap[0] && strcmp(heap, core->heap->name) != 0)
		core_fail(core, WIRE_E_NO_HEAP, "there is no heap '%.60s' here", heap);
	else
		return false;
	return true;
}

void answer_encode(struct wire_msg *reply, struct codec_scratch *scratch, unsigned char out[WIRE_MAX], uint64_t serial,
        enum outcome outcome, struct answer *answer)
{
	reply->serial = serial;
	*answer = (struct answer){.outcome = outcome, .bytes = out};
	if (outcome == OUTCOME_LATER)
		return;
	if (!shmi_codec_encode(reply, scratch, out, WIRE_MAX, &answer->len))
		return;
	/* Cannot happen: every reply is bounded. But a client must not wait for an answer for ever. */
	log_limited(
	        LEVEL_ERROR, LOG_PROTOCOL, "a reply of kind %s could not be encoded", shmi_wire_kind_name(reply->kind));
	reply->kind = WIRE_ERROR;
	reply->u.error = (struct wire_error){.code = WIRE_E_INVALID, .text = "the reply could not be encoded"};
	(void)shmi_codec_encode(reply, scratch, out, WIRE_MAX, &answer->len);
}

void core_encode(struct core *core, uint64_t serial, enum outcome outcome, struct answer *answer)
{
	answer_encode(&core->reply, &core->scratch, core->out, serial, outcome, answer);
}

void core_finish(struct core *core, struct client *client, struct caller *caller, uint64_t serial, bool last)
{
	struct answer answer;

	if (core->reply.kind == WIRE_ERROR)
		clients_count_failure(client);
	core_encode(core, serial, OUTCOME_ANSWERED, &answer);
	if (client)
		clients_remember(core, client, serial, &answer);
	if (caller)
		core->hooks.finished(core->hooks.ctx, caller, &answer, last);
}

/* ---- pages on their way back ---- */

/* The run to go on with; false when there is none. */
static bool next_drop(struct core *core)
{
	struct drops *drops = &core->drops;
	shmi_page page = {drops->waiting.head};

	if (drops->now.pages.n)
		return true;
	if (!page.i)
		return false;
	shmi_list_remove(&core->heap->img, &drops->waiting, page);
	drops->now = (struct shmi_run){.first = page, .pages = {shmi_span_at(&core->heap->img, page)->pages}};
	drops->done = 0;
	drops->kept = false;
	return true;
}

/* Drops up to `most` pages of the run. How many there were. */
static uint32_t drop_some(struct core *core, uint32_t most)
{
	struct drops *drops = &core->drops;
	uint32_t pages = drops->now.pages.n - drops->done;

	if (pages > most)
		pages = most;
	/* Pages that cannot be dropped are still there when the run is backed again: nothing is lost but the zeros. */
	drops->kept |=
	        heap_decommit(core->heap, (shmi_page){drops->now.first.i + drops->done}, (shmi_npages){pages}) != 0;
	drops->done += pages;
	if (drops->done == drops->now.pages.n) {
		if (!drops->kept)
			passing_dropped(core->heap, drops->now.first);
		heap_put(core->heap, drops->now);
		drops->now.pages.n = 0;
	}
	return pages;
}

static bool step_drops(struct core *core, struct job *job)
{
	uint32_t left = POLICY_TURN_PAGES;

	(void)job;
	if (core->heap->fenced)
		return true;
	while (left && next_drop(core))
		left -= drop_some(core, left);
	return !next_drop(core);
}

void core_drop_run(struct core *core, struct shmi_run run)
{
	struct drops *drops = &core->drops;

	shmi_list_push(&core->heap->img, &drops->waiting, run.first);
	drops->job.step = step_drops;
	core_queue(core, &drops->job);
}

void core_close_large(struct core *core, shmi_page page)
{
	struct shmi_run run = shmi_span_close(&core->heap->img, page);

	if (run.backed)
		heap_put(core->heap, run);
	else
		core_drop_run(core, run); /* a lazy one: whoever touched its pages has backed them */
}

void core_free_large(struct core *core, shmi_page page)
{
	uint32_t owner = shmi_span_word(&core->heap->img, page).owner;

	core_close_large(core, page);
	clients_settle(core, owner);
	shmi_bump(&core->heap->img.super->counters.large_freed, 1);
}

/* ---- callers ---- */

void core_caller_left(struct core *core, struct caller *caller)
{
	struct client *client = caller->client;

	core_unqueue(core, &caller->trim.job);
	survey_forget(core, &caller->asking.wait);
	caller->client = NULL;
	if (!client)
		return;
	client->caller = NULL;
	if (client->state == CLIENT_ATTACHED) {
		client->state = CLIENT_DETACHED;
		client->unleased_ms = 0;
		log_event(LEVEL_DEBUG, LOG_CLIENT, core_about(core, client),
		        "client %u (pid %d) has lost its connection and may resume", client->id, client->peer.pid);
	}
}

void core_drop_lease(struct caller *caller)
{
	if (caller->lease >= 0)
		close(caller->lease);
	caller->lease = -1;
}

struct caller *core_client_died(struct core *core, uint32_t id)
{
	struct client *client = &core->client[id];

	clients_unwatch(core, client);
	if (client->state == CLIENT_LEAVING)
		client->reclaim.dead = true; /* it had left: that goes on */
	else if (client->state != CLIENT_FREE)
		reaper_start(core, client, true);
	return client->caller;
}
