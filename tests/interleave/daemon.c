#include "tests/interleave/parts.h"

#include <errno.h>
#include <string.h>

#include "shm/adopt.h"
#include "shm/central.h"
#include "shm/seize.h"

#define RECLAIM_BUDGET 40u /* so that a record takes two turns */

/* ---- the page heap: single pages, each a free run ---- */

void shmi_pageheap_put(struct shmi_image *image, struct shmi_run run, uint32_t now)
{
	(void)now;
	for (uint32_t p = run.first.i; p < run.first.i + run.pages.n; p++) {
		if (!world.adopts && image == &parts.img && parts.class)
			audit_closed(p);
		shmi_span_blank(image, (shmi_page){p}, (shmi_npages){1});
		shmi_span_set(image, (shmi_page){p}, (struct shmi_word){.state = SHMI_SPAN_FREE, .owner = SHMI_NOBODY});
		shmi_store(shmi_page_span_at(image, (shmi_page){p}), p);
	}
}

bool daemon_take_page(struct shmi_run *run)
{
	for (uint32_t p = 1; p < PAGES; p++) {
		if (shmi_span_word(&parts.img, (shmi_page){p}).state != SHMI_SPAN_FREE || p > 1 + parts.scenario->pages)
			continue;
		*run = (struct shmi_run){.first = {p}, .pages = {1}, .backed = true};
		shmi_store(shmi_page_span_at(&parts.img, run->first), 0);
		shmi_span_set(
		        &parts.img, run->first, (struct shmi_word){.state = SHMI_SPAN_MOVING, .owner = SHMI_NOBODY});
		return true;
	}
	return false;
}

/* ---- the daemon: requests ---- */

static bool is_theirs(uint32_t client, const struct shmi_tc_span *span)
{
	struct shmi_word word = shmi_span_word(&parts.img, (shmi_page){span->page});

	return (word.state == SHMI_SPAN_OWNED || word.state == SHMI_SPAN_SEIZED) && word.owner == client &&
	       word.generation == span->generation;
}

static void close_seized(shmi_page page)
{
	shmi_pageheap_put(&parts.img, shmi_span_close(&parts.img, page), 0);
}

static shmi_page grant_one(uint32_t client, shmi_sclass wanted)
{
	struct shmi_run run;
	shmi_page page = shmi_central_grant(&parts.img, wanted, client);

	if (!page.i && shmi_central_sweep(&parts.img, wanted, 8, 0))
		page = shmi_central_grant(&parts.img, wanted, client);
	if (page.i || !daemon_take_page(&run))
		return page;
	shmi_span_open(&parts.img, run, wanted, client);
	return run.first;
}

static void serve_refill(uint32_t client, struct mail *m)
{
	for (uint32_t i = 0; i < m->n_returns; i++) {
		if (!is_theirs(client, &m->give_back[i])) {
			if (world.dead >> client & 1) /* it went with all else that the client had */
				continue;
			explore_fail(
			        "page %u was given back by client %u and is not its", m->give_back[i].page, client);
		}
		shmi_page page = {m->give_back[i].page};

		if (shmi_span_word(&parts.img, page).state == SHMI_SPAN_SEIZED)
			close_seized(page);
		else
			shmi_central_accept(&parts.img, page, 0);
	}
	for (uint32_t i = 0; i < m->n_reports; i++)
		shmi_central_report(&parts.img, (shmi_page){m->report[i]}, 0);
	m->n_grants = 0;
	while (m->n_grants < m->n_wants) {
		shmi_page page = grant_one(client, (shmi_sclass){(uint16_t)m->sclass});

		if (!page.i)
			break;
		m->grant[m->n_grants] = page.i;
		m->grant_generation[m->n_grants++] = shmi_span_word(&parts.img, page).generation;
	}
	m->error = m->n_wants && !m->n_grants ? ENOMEM : 0;
}

static void answer(struct mail *m)
{
	shmi_fence(); /* sendmsg */
	m->kind = MAIL_ANSWER;
}

void daemon_serve(uint32_t actor)
{
	struct mail *m = &world.mail[actor];
	uint32_t client = parts.scenario->client[actor];

	if (m->kind == MAIL_DETACH) {
		world.leaving |= (uint8_t)(1u << client);
		return; /* answered when all is done */
	}
	serve_refill(client, m);
	answer(m);
}

/* ---- the daemon: death ---- */

enum { STAGE_RECORDS, STAGE_SPANS };

static bool next_record(uint32_t client, struct job *job)
{
	for (; job->thread < ACTORS; job->thread++) {
		const struct shmi_thread_slot *slot = shmi_thread_slot_at(&parts.img, job->thread);

		if (slot->client != client)
			continue;
		unsigned char *from = (unsigned char *)shmi_threadrec_at(&parts.img, job->thread);
		struct shmi_magazine *mag =
		        shmi_magazine_at(&parts.img, (struct shmi_threadrec *)(void *)from, parts.sclass);
		size_t at = (size_t)((unsigned char *)mag - from);

		memcpy(parts.copy, from, RECORD_HEAD);
		memcpy((unsigned char *)parts.copy + at, mag, MAGAZINE_BYTES);
		shmi_reclaim_init(&job->reclaim, job->thread, client, slot->parts);
		job->reclaim.write_off = &parts.write_off;
		job->in_record = true;
		parts.daemon.copying = (uint8_t)(client + 1);
		return true;
	}
	return false;
}

static void drop_record(uint32_t thread)
{
	struct shmi_threadrec *rec = shmi_threadrec_at(&parts.img, thread);
	struct shmi_magazine *mag = shmi_magazine_at(&parts.img, rec, parts.sclass);

	memset(rec, 0, RECORD_HEAD);
	memset(mag, 0, MAGAZINE_BYTES);
	explore_point(thread);
	shmi_thread_slot_at(&parts.img, thread)->parts = 0;
	shmi_thread_slot_at(&parts.img, thread)->client = SHMI_NOBODY;
	explore_point(thread);
}

/* True when there are no more records. */
static bool step_records(uint32_t client, struct job *job)
{
	if (!job->in_record && !next_record(client, job))
		return true;
	if (!shmi_reclaim_step(
	            &parts.img, &job->reclaim, parts.copy, parts.scenario->turns ? RECLAIM_BUDGET : UINT32_MAX))
		return false;
	if (job->reclaim.bad)
		explore_fail("the reclaim finds %u words that make no sense", job->reclaim.bad);
	drop_record(job->thread++);
	memset(parts.copy, 0, RECORD_HEAD);
	memset(shmi_magazine_at(&parts.img, parts.copy, parts.sclass), 0, MAGAZINE_BYTES);
	memset(&job->reclaim, 0, sizeof(job->reclaim));
	job->in_record = false;
	parts.daemon.copying = 0;
	return false;
}

/* One span of the client. True when there are no more. */
static bool step_spans(uint32_t client, bool scoped)
{
	shmi_page page = {shmi_owner_at(&parts.img, client)->spans.head};

	while (page.i && shmi_sclass_scoped(shmi_span_word(&parts.img, page).sclass) != scoped)
		page.i = shmi_span_at(&parts.img, page)->next;
	if (!page.i)
		return true;
	if (shmi_span_word(&parts.img, page).state == SHMI_SPAN_SEIZED) {
		close_seized(page);
		return false;
	}
	if (!scoped) {
		shmi_central_accept(&parts.img, page, 0);
		return false;
	}
	parts.scoped_death = true;
	shmi_pageheap_put(&parts.img, shmi_span_close(&parts.img, page), 0);
	parts.scoped_death = false;
	return false;
}

static void finish_job(uint32_t client, struct job *job)
{
	memset(job, 0, sizeof(*job));
	world.gone |= (uint8_t)(1u << client);
	parts.daemon.look_page = !parts.scenario->blind;
	for (uint32_t a = 1; a < parts.scenario->actors; a++)
		if (parts.scenario->client[a] == client && world.mail[a].kind == MAIL_DETACH)
			answer(&world.mail[a]);
}

/* One turn: a piece of a record, or a span. */
static void step_job(uint32_t client)
{
	struct job *job = &parts.daemon.job[client];

	world.in_reclaim = true;
	if (job->stage == STAGE_RECORDS && !step_records(client, job))
		return;
	if (job->stage == STAGE_RECORDS)
		job->stage = STAGE_SPANS;
	if (step_spans(client, false) && step_spans(client, true))
		finish_job(client, job);
}

/* What the scavenger's walk does when a client has gone. */
static void step_look(void)
{
	world.in_reclaim = true;
	for (; parts.daemon.look_page && parts.daemon.look_page <= 1 + parts.scenario->pages; parts.daemon.look_page++)
		shmi_central_report(&parts.img, (shmi_page){parts.daemon.look_page}, 0);
	parts.daemon.look_page = 0;
}

/* Page 1 is wholly free, as far as a look can tell, and its client lives. */
static bool may_seize(void)
{
	struct shmi_word word = shmi_word_unpack(explore_peek(&shmi_span_at(&parts.img, (shmi_page){1})->word, 8));

	return world.seizes_left && word.state == SHMI_SPAN_OWNED && !((world.dead | world.leaving) >> word.owner & 1);
}

/* What daemon/seizer.c does with a span. */
static void step_seize(void)
{
	shmi_page page = {1};

	world.in_reclaim = true;
	world.seizes_left--;
	if (shmi_seize(&parts.img, page, &parts.seizing))
		shmi_bump(&shmi_owner_at(&parts.img, shmi_span_word(&parts.img, page).owner)->seizures, 1);
}

uint32_t daemon_events(void)
{
	uint32_t bits = parts.daemon.look_page ? 1u << EVENT_LOOK : 0, ends = world.dead | world.leaving;

	bits |= may_seize() ? 1u << EVENT_SEIZE : 0;
	for (uint32_t a = 1; a < parts.scenario->actors; a++) {
		uint32_t c = parts.scenario->client[a];

		if (world.mail[a].kind == MAIL_REFILL && !(world.gone >> c & 1))
			bits |= 1u << a;
		else if (world.mail[a].kind == MAIL_DETACH && !(ends >> c & 1))
			bits |= 1u << a;
	}
	for (uint32_t c = 0; c < CLIENTS; c++) {
		bool waits = parts.daemon.copying && parts.daemon.copying != c + 1 &&
		             parts.daemon.job[c].stage == STAGE_RECORDS;

		if ((ends & ~(uint32_t)world.gone) >> c & 1 && !waits)
			bits |= 1u << (EVENT_JOB + c);
	}
	return bits;
}

void daemon_run(void)
{
	shmi_page where;

	if (world.adopts) {
		world.in_reclaim = true;
		if (shmi_adopt(&parts.img, 0, NULL, NULL, &where))
			explore_fail("the heap cannot be adopted: page %u", where.i);
		shmi_reclaim_redo(&parts.img, &parts.write_off);
		(void)shmi_seize_settle(&parts.img, &parts.seizing);
		world.adopts = false;
		parts.daemon.look_page = 1;
	}
	for (;;) {
		world.in_reclaim = false;
		uint32_t event = explore_wait(DAEMON);

		if (event < EVENT_JOB)
			daemon_serve(event);
		else if (event == EVENT_LOOK)
			step_look();
		else if (event == EVENT_SEIZE)
			step_seize();
		else
			step_job(event - EVENT_JOB);
	}
}
