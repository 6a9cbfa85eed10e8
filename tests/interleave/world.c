#include "tests/interleave/parts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shm/central.h"

struct world world;
struct parts parts;

static uint32_t me(void)
{
	return explore_active() ? explore_self() : parts.as;
}

uint32_t parts_tracked(void)
{
	uint32_t n = 1;

	while (n < TRACKED && parts.scenario->track[n])
		n++;
	return n;
}

uint32_t parts_slot(uint32_t slot)
{
	for (uint32_t i = 0; i < parts_tracked(); i++)
		if (parts.scenario->track[i] == slot)
			return i;
	return TRACKED;
}

uint64_t parts_off(uint32_t page, uint32_t index)
{
	return ((uint64_t)page << SHMI_PAGE_SHIFT) + (uint64_t)parts.scenario->track[index] * parts.class->size;
}

bool parts_alive(uint32_t client)
{
	return !(world.dead >> client & 1);
}

uint32_t parts_cached(uint32_t actor, uint64_t off)
{
	struct shmi_magazine *mag = shmi_magazine_at(&parts.img, shmi_threadrec_at(&parts.img, actor), parts.sclass);
	uint32_t n = 0;

	for (uint32_t i = 0, top = (uint32_t)explore_peek(&mag->top, 4); i < top; i++)
		n += explore_peek(&mag->entry[i], 8) == off;
	return n;
}

/* ---- clients ---- */

static void call(struct mail *m, enum mail_kind kind)
{
	if (!explore_active()) {
		m->kind = MAIL_REFILL;
		daemon_serve(parts.as);
	} else {
		shmi_fence(); /* sendmsg */
		m->kind = (uint8_t)kind;
		explore_wait(me());
	}
	m->kind = MAIL_NONE;
}

static int op_refill(void *ctx, struct shmi_tcache *tc, struct shmi_tc_ask *ask, bool wait)
{
	struct mail *m = &world.mail[me()];

	(void)ctx, (void)wait;
	memset(m, 0, sizeof(*m));
	if (ask->n_wants > 1 || ask->n_returns > MAILS || ask->n_reports > MAILS)
		explore_fail("a message of a kind that is not expected");
	m->n_wants = (uint8_t)(ask->n_wants ? ask->wants[0].spans : 0);
	m->sclass = ask->n_wants ? ask->wants[0].sclass : 0;
	if (m->n_wants > 1)
		m->n_wants = 1;
	for (; m->n_returns < ask->n_returns; m->n_returns++)
		m->give_back[m->n_returns] = ask->returns[m->n_returns];
	for (; m->n_reports < ask->n_reports; m->n_reports++)
		m->report[m->n_reports] = ask->reports[m->n_reports];
	ask->n_returns = ask->n_reports = 0;
	call(m, MAIL_REFILL);
	for (uint32_t i = 0; i < m->n_grants; i++) {
		uint32_t free = shmi_slots_count(shmi_bitmap_at(&parts.img, (shmi_page){m->grant[i]}), parts.class);

		shmi_tcache_grant(tc, m->grant[i], m->grant_generation[i], (shmi_sclass){(uint16_t)m->sclass},
		        free == parts.class->slots);
	}
	int error = m->error;

	memset(m, 0, sizeof(*m));
	return error;
}

static void op_pool(void *ctx, struct shmi_tcache *tc, shmi_sclass wanted)
{
	(void)ctx, (void)tc, (void)wanted;
}

static int op_part(void *ctx, struct shmi_tcache *tc, uint32_t attrs)
{
	(void)ctx, (void)tc, (void)attrs;
	return 0;
}

const struct shmi_tc_ops parts_ops = {.refill = op_refill, .pool = op_pool, .part = op_part};

void shmi_misuse(const struct shmi_tc_env *env, enum shmi_tc_free what, uint64_t off)
{
	(void)env;
	explore_fail("misuse %d is seen where there is none: block at 0x%llx", (int)what, (unsigned long long)off);
	abort();
}

static uint8_t *book(uint64_t off)
{
	uint32_t page = (uint32_t)(off >> SHMI_PAGE_SHIFT);
	uint32_t index = parts_slot((uint32_t)((off & (SHMI_PAGE_SIZE - 1)) / parts.class->size));

	if (page >= PAGES || index == TRACKED)
		explore_fail("a block that is not there: 0x%llx", (unsigned long long)off);
	return &world.has[page][index];
}

void world_as(uint32_t actor)
{
	parts.as = actor;
}

uint64_t world_malloc(void)
{
	struct shmi_tcache *tc = &parts.caches[me()];
	int error = 0;
	void *block;

	if (!shmi_tcache_pop(tc, parts.sclass, &block))
		block = shmi_tcache_refill(tc, parts.sclass, false, &error);
	if (!block) {
		if (error != ENOMEM)
			explore_fail("malloc fails with error %d", error);
		return 0;
	}
	uint64_t off = (uint64_t)(uintptr_t)block - tc->base;
	uint8_t *has = book(off);

	if (*has)
		explore_fail(
		        "actor %u is given block 0x%llx, which actor %u has", me(), (unsigned long long)off, *has - 1u);
	*has = (uint8_t)(me() + 1);
	return off;
}

void world_free(uint64_t off)
{
	struct shmi_tcache *tc = &parts.caches[me()];

	if (!off)
		return;
	uint8_t *has = book(off);

	if (*has != me() + 1 && !shmi_sclass_scoped(parts.sclass))
		explore_fail("actor %u frees what it has not", me());
	*has = NOBODY;
	if (shmi_tcache_push(tc, (void *)(uintptr_t)(tc->base + off)))
		return;
	enum shmi_tc_free what = shmi_tcache_free(tc, off);

	/* A scoped block ends with its client: it may be none by the time that it is freed. */
	if (what != SHMI_FREED && !(what == SHMI_FREE_NOTHING && world.dead && shmi_sclass_scoped(parts.sclass)))
		explore_fail("free says %d", (int)what);
}

void world_put(uint32_t entries)
{
	struct shmi_tcache *tc = &parts.caches[me()];

	shmi_tcache_put_oldest(tc, parts.sclass, entries);
}

void world_flush(void)
{
	world_put(shmi_load(&parts.caches[me()].mag[parts.sclass.c]->top));
}

void world_trim(void)
{
	shmi_tcache_trim(&parts.caches[me()]);
}

void world_send(void)
{
	struct shmi_tcache *tc = &parts.caches[me()];

	if (tc->ask.n_returns || tc->ask.n_reports)
		(void)shmi_tcache_send(tc, true);
}

static void keep_span(void *ctx, uint32_t page, shmi_sclass kept)
{
	(void)ctx, (void)page, (void)kept;
}

void world_detach(void)
{
	struct mail *m = &world.mail[me()];

	shmi_tcache_retire(&parts.caches[me()], keep_span, NULL);
	memset(m, 0, sizeof(*m));
	call(m, MAIL_DETACH);
}

void world_give(uint64_t off, uint32_t actor)
{
	*book(off) = (uint8_t)(actor + 1);
}

uint32_t world_owner(uint64_t off)
{
	uint8_t has = *book(off);

	return has ? has - 1u : NO_CLIENT;
}

void world_let_go(void)
{
	shmi_store(&parts.held[parts.scenario->client[1]][1].thread, 0);
	shmi_central_accept(&parts.img, (shmi_page){1}, 0);
}

struct shmi_span *world_span(void)
{
	return shmi_span_at(&parts.img, (shmi_page){1});
}

/* ---- what the explorer asks ---- */

static void body(uint32_t actor)
{
	if (actor == DAEMON)
		daemon_run();
	else
		parts.scenario->body[actor]();
}

static uint32_t choices(uint32_t actor)
{
	if (actor == DAEMON)
		return daemon_events();
	return world.mail[actor].kind == MAIL_ANSWER;
}

static bool killable(uint32_t client)
{
	if (client == NO_CLIENT)
		return world.daemon_kills_left && world.in_reclaim;
	return world.kills_left && world.may_die >> client & 1 && !((world.dead | world.gone) >> client & 1);
}

/* Slots that a standing put names, of the thread or of a daemon in its stead. */
static void note_doubt(uint32_t thread)
{
	const struct shmi_threadrec *rec = shmi_threadrec_at(&parts.img, thread);
	const struct shmi_group *g = &rec->intent.group;
	uint32_t op = (uint32_t)explore_peek(&rec->intent.op, 4);

	if (op != SHMI_INTENT_PUT && op != SHMI_INTENT_RECLAIM)
		return;
	if (explore_peek(&shmi_span_at(&parts.img, (shmi_page){g->span})->word, 8) >> 32 != g->generation)
		return;
	for (uint32_t i = 0; i < parts_tracked(); i++) {
		uint32_t slot = parts.scenario->track[i];

		if (slot / 64 == g->word && g->bits >> slot % 64 & 1)
			world.doubt[g->span] |= (uint8_t)(1u << i);
	}
}

/* Slots of the word that the daemon was taking, or putting back. */
static void note_seizing(void)
{
	uint32_t step = (uint32_t)explore_peek(&parts.seizing.step, 4) & ~SHMI_SEIZING_DOUBT;

	for (uint32_t i = 0; step && i < parts_tracked(); i++)
		if (parts.scenario->track[i] / 64u == step - 1)
			world.doubt[parts.seizing.span] |= (uint8_t)(1u << i);
}

static void daemon_killed(void)
{
	memset(&parts.daemon, 0, sizeof(parts.daemon));
	memset(parts.copy, 0, RECORD_HEAD);
	memset(shmi_magazine_at(&parts.img, parts.copy, parts.sclass), 0, MAGAZINE_BYTES);
	world.daemon_kills_left--;
	world.in_reclaim = true;
	world.adopts = true;
	parts.scoped_death = false;
	note_seizing();
	for (uint32_t a = 1; a < parts.scenario->actors; a++)
		if (!parts_alive(parts.scenario->client[a]))
			note_doubt(a);
}

static void killed(uint32_t client)
{
	if (client == NO_CLIENT) {
		daemon_killed();
		return;
	}
	world.kills_left--;
	world.dead |= (uint8_t)(1u << client);
	for (uint32_t a = 1; a < parts.scenario->actors; a++) {
		if (parts.scenario->client[a] != client)
			continue;
		world.killed_threads++;
		note_doubt(a);
	}
}

static bool in_range(uint64_t at, const void *from, uint64_t len, uint64_t *delta)
{
	*delta = at - (uint64_t)(uintptr_t)from;
	return *delta < len;
}

static enum touch touch(uint64_t at, bool load)
{
	uint64_t d;

	if (in_range(at, parts.ctl + parts.img.geo.records, ACTORS * parts.img.geo.record_bytes, &d))
		return load ? TOUCH_PRIVATE : TOUCH_RECORD;
	if (in_range(at, parts.ctl + parts.img.geo.bitmaps, PAGES * SHMI_BITMAP_BYTES_PER_PAGE, &d))
		return d % SHMI_BITMAP_BYTES_PER_PAGE / 8 < parts.class->words ? TOUCH_SHARED : TOUCH_PRIVATE;
	if (in_range(at, parts.meta + parts.img.geo.spans, PAGES * sizeof(struct shmi_span), &d))
		return explore_self() == DAEMON && load ? TOUCH_PRIVATE : TOUCH_SHARED;
	if (in_range(at, parts.meta + parts.img.geo.owners, CLIENTS * sizeof(struct shmi_owner), &d))
		return parts.scenario->seizes && d % sizeof(struct shmi_owner) == offsetof(struct shmi_owner, seizures)
		               ? TOUCH_SHARED
		               : TOUCH_PRIVATE;
	if (load)
		return TOUCH_PRIVATE;
	if (in_range(at, parts.meta + parts.img.geo.page_class, PAGES * 2, &d) ||
	        in_range(at, parts.meta + parts.img.geo.page_span, PAGES * 4, &d) ||
	        in_range(at, &parts.img.super->counters.slots_written_off, 8, &d) ||
	        in_range(at, &parts.write_off, sizeof(parts.write_off), &d) ||
	        in_range(at, &parts.seizing, sizeof(parts.seizing), &d))
		return TOUCH_RECORD;
	return TOUCH_PRIVATE;
}

static const char *name(uint64_t at, char *buf, size_t len)
{
	uint64_t d;

	if (!at)
		buf[0] = 0;
	else if (in_range(at, parts.ctl + parts.img.geo.records, ACTORS * parts.img.geo.record_bytes, &d)) {
		uint64_t in = d % parts.img.geo.record_bytes;
		const char *what = in < SHMI_THREAD_HEAD_BYTES ? "head" : "magazine";

		if (in == offsetof(struct shmi_threadrec, intent) + offsetof(struct shmi_intent, op))
			what = "op";
		else if (in == offsetof(struct shmi_threadrec, spill_top))
			what = "spill_top";
		snprintf(buf, len, "record %u %s +%llu", (unsigned)(d / parts.img.geo.record_bytes), what,
		        (unsigned long long)(in < SHMI_THREAD_HEAD_BYTES
		                                     ? in
		                                     : in - SHMI_THREAD_HEAD_BYTES - parts.class->mag_off -
		                                               shmi_sclass_attrs(parts.sclass) *
		                                                       parts.img.geo.part_bytes));
	} else if (in_range(at, parts.ctl + parts.img.geo.bitmaps, PAGES * SHMI_BITMAP_BYTES_PER_PAGE, &d))
		snprintf(buf, len, "bitmap of page %u word %u", (unsigned)(d / SHMI_BITMAP_BYTES_PER_PAGE),
		        (unsigned)(d % SHMI_BITMAP_BYTES_PER_PAGE / 8));
	else if (in_range(at, parts.meta + parts.img.geo.spans, PAGES * sizeof(struct shmi_span), &d))
		snprintf(buf, len, "state word of page %u", (unsigned)(d / sizeof(struct shmi_span)));
	else
		snprintf(buf, len, "%#llx", (unsigned long long)at);
	return buf;
}

void parts_explore(struct explore *e)
{
	e->body = body;
	e->touch = touch;
	e->choices = choices;
	e->killable = killable;
	e->killed = killed;
	e->step = audit_step;
	e->end = audit_end;
	e->name = name;
}
