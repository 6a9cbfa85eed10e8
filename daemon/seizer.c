#include "daemon/seizer.h"

#include "daemon/clients.h"
#include "daemon/log.h"
#include "daemon/policy.h"
#include "shm/seize.h"

#define STEPS_AT_ONCE 4u /* for a request that cannot wait: a millisecond or two */

/* ---- whose turn it is ---- */

static bool is_alive(const struct client *client)
{
	return client->state == CLIENT_ATTACHED || client->state == CLIENT_DETACHED;
}

static bool may_seize(const struct core *core, const struct client *client)
{
	if (!is_alive(client))
		return false;
	return client->seize_now || policy_sleeps(core->now_ms - client->heard_ms);
}

/* The client to go on with: one that was named, else the one that holds most of those that have not had their turn. */
static struct client *pick(struct core *core)
{
	struct client *best = NULL;
	uint32_t most = 0;

	for (uint32_t i = 0; i < SHMI_MAX_CLIENTS; i++) {
		struct client *client = &core->client[i];
		uint32_t pages = shmi_owner_at(&core->heap->img, i)->pages;

		if (!may_seize(core, client))
			continue;
		if (client->seize_now)
			return client;
		if (client->seize_round != core->seizer.round && pages > most) {
			best = client;
			most = pages;
		}
	}
	return core->seizer.got < core->seizer.want ? best : NULL;
}

/* ---- spans ---- */

static uint32_t take(struct core *core, shmi_page page)
{
	struct shmi_image *img = &core->heap->img;
	uint32_t pages = shmi_span_at(img, page)->pages;

	if (!shmi_seize(img, page, &core->heap->state->seizing))
		return 0;
	/* What cannot be dropped now is dropped when the span comes back. */
	(void)heap_decommit(core->heap, page, (shmi_npages){pages});
	return pages;
}

static bool is_listed(const struct core *core, const struct client *client, shmi_page page)
{
	const struct shmi_image *img = &core->heap->img;

	if (!shmi_image_page_ok(img, page))
		return false;
	struct shmi_word word = shmi_span_word(img, page);

	return shmi_state_in_use(word.state) && word.owner == client->id;
}

static void account_for(struct core *core, struct client *client, uint32_t pages)
{
	core->seizer.got += pages;
	shmi_bump(&core->heap->img.super->counters.seized_pages, pages);
	clients_count_given(core, pages);
	shmi_bump(&shmi_owner_at(&core->heap->img, client->id)->seizures, 1);
	clients_settle(core, client->id);
}

/* Goes on with the client's list. True at its end, or when it has changed so that the place is lost. */
static bool walk_on(struct core *core, struct client *client, uint32_t *cursor)
{
	const struct shmi_image *img = &core->heap->img;
	shmi_page page = {*cursor};
	uint32_t looks = 0, pages = 0;

	if (!is_listed(core, client, page))
		return true;
	for (; page.i && looks < POLICY_TURN_SPANS && pages < POLICY_TURN_PAGES; looks++) {
		uint32_t next = shmi_span_at(img, page)->next;

		pages += take(core, page);
		page.i = next;
	}
	*cursor = page.i;
	if (pages)
		account_for(core, client, pages);
	return !page.i;
}

/* ---- the job ---- */

static void begin_client(struct core *core, struct client *client)
{
	struct seizer *s = &core->seizer;

	client->seize_round = s->round;
	s->client = client->id;
	s->cursor = shmi_owner_at(&core->heap->img, client->id)->spans.head;
}

static void end_client(struct core *core)
{
	core->client[core->seizer.client].seize_now = false;
	core->seizer.cursor = 0;
}

static bool is_enough(const struct core *core, const struct client *client)
{
	return core->seizer.got >= core->seizer.want && !client->seize_now;
}

/* True when the round is over. */
static bool step(struct core *core)
{
	struct seizer *s = &core->seizer;
	struct client *client = s->cursor ? &core->client[s->client] : pick(core);

	if (core->heap->fenced || !client) {
		s->running = false;
		return true;
	}
	if (!s->cursor)
		begin_client(core, client);
	if (!may_seize(core, client) || is_enough(core, client) || walk_on(core, client, &s->cursor))
		end_client(core);
	return false;
}

static bool step_seizer(struct core *core, struct job *job)
{
	(void)job;
	return step(core);
}

static void begin_round(struct core *core)
{
	struct seizer *s = &core->seizer;

	if (s->running)
		return;
	s->running = true;
	s->round++;
	s->cursor = 0;
	s->want = s->got = 0;
	s->job.step = step_seizer;
	core_queue(core, &s->job);
}

void seizer_start(struct core *core, uint64_t pages)
{
	begin_round(core);
	core->seizer.want += pages < UINT64_MAX - core->seizer.want ? pages : UINT64_MAX - core->seizer.want;
}

uint64_t seizer_now(struct core *core, uint64_t pages)
{
	seizer_start(core, pages);
	uint64_t before = core->seizer.got;

	for (uint32_t n = 0; n < STEPS_AT_ONCE && core->seizer.got - before < pages && !step(core);)
		n++;
	return core->seizer.got - before;
}

void seizer_client(struct core *core, struct client *client)
{
	client->seize_now = true;
	begin_round(core);
}

bool seizer_is_running(const struct core *core)
{
	return core->seizer.running;
}

/* ---- the end of a seized span ---- */

void seizer_close(struct core *core, shmi_page page)
{
	core_drop_run(core, shmi_span_close(&core->heap->img, page));
}

void seizer_settle(struct core *core)
{
	struct shmi_seizing *note = &core->heap->state->seizing;

	if (!shmi_load(&note->step))
		return;
	if (!shmi_image_page_ok(&core->heap->img, (shmi_page){note->span})) {
		shmi_store_release(&note->step, 0);
		return;
	}
	uint32_t slots = shmi_seize_settle(&core->heap->img, note);

	log_line(LEVEL_INFO,
	        "a span was being taken from a client that sleeps; it has it back; %u slots are written off", slots);
}
