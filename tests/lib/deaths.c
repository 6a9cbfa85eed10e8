#include "tests/lib/deaths.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "daemon/clients.h"
#include "daemon/scavenger.h"

#define PROGRESS_S 15

/* ---- clients ---- */

struct death_client deaths_attach(struct deaths *d, struct peer peer)
{
	struct death_client client = {.peer = peer, .dialogue = test_core_attach_as(d->t, peer)};

	client.id = test_core_client(client.dialogue);
	client.nonce = d->t->reply.u.attach_ok.nonce;
	return client;
}

/* A new connection, and the client resumes. */
static enum wire_kind come_back(struct deaths *d, struct death_client *client)
{
	client->dialogue = test_core_connect_as(d->t, client->peer);
	d->t->req = (struct wire_msg){.kind = WIRE_ATTACH};
	d->t->req.u.attach =
	        (struct wire_attach){.heap = "default", .resume = true, .client = client->id, .nonce = client->nonce};
	return test_core_send(d->t, client->dialogue);
}

static void ask(struct deaths *d)
{
	struct test_core *t = d->t;

	t->req = d->req;
	if (test_core_send(t, d->asker.dialogue) == WIRE_NONE)
		while (!t->answered && core_turn(&t->core))
			;
	d->reply = t->reply;
}

/* What a client does that has had no answer. */
static void ask_again(struct deaths *d)
{
	switch (d->req.kind) {
	case WIRE_NONE:
		return;
	case WIRE_ATTACH:
	case WIRE_TRIM:
		d->asker.dialogue = test_core_connect_as(d->t, d->asker.peer);
		break;
	default:
		if (come_back(d, &d->asker) != WIRE_ATTACH_OK) {
			if (d->req.kind != WIRE_DETACH) /* that has happened then */
				deaths_violation(d, "its client cannot resume: %s", d->t->reply.u.error.text);
			d->reply.kind = d->answer;
			return;
		}
	}
	ask(d);
	if (d->reply.kind != d->answer)
		deaths_violation(d, "the repeated request is answered with %s (%s), and not with %s",
		        shmi_wire_kind_name(d->reply.kind), d->reply.kind == WIRE_ERROR ? d->reply.u.error.text : "",
		        shmi_wire_kind_name((enum wire_kind)d->answer));
}

/* ---- taking over ---- */

static bool adopt(struct deaths *d)
{
	const char *why;

	d->t = world_core(&d->w, d->w.copy, 0, &why);
	if (!d->t) {
		deaths_violation(d, "refused: %s", why);
		return false;
	}
	d->t->serial = 1000000; /* beyond all that earlier daemons have answered */
	clients_adopt(&d->t->core);
	return true;
}

/* A new daemon over what is there. */
static void recover(void *ctx)
{
	struct deaths *d = ctx;

	if (!adopt(d))
		return;
	d->adopted = stores_now();
	if (!d->watched && d->variant & 1) {
		static struct digest once, twice;

		deaths_check(d, "adopted");
		digest_take(&once, &d->t->heap);
		test_core_free(d->t); /* killed once more */
		if (!adopt(d))
			return;
		digest_take(&twice, &d->t->heap);
		const char *why = digest_differs(&twice, &once, NULL);

		if (why)
			deaths_violation(d, "adopted twice is not as once: %s", why);
	}
	scavenger_drop_stale(&d->t->core);
	scavenger_look(&d->t->core);
	if (d->variant & 2)
		test_core_run(d->t);
	if (!d->orphaned)
		ask_again(d);
	if (d->c->again)
		d->c->again(d);
	test_core_run(d->t);
	scavenger_look(&d->t->core); /* so that what is central and empty has been found, here and there */
	test_core_run(d->t);
}

/* Somebody else asks, and is served. */
static void judge_service(struct deaths *d)
{
	if (come_back(d, &d->other) != WIRE_ATTACH_OK)
		deaths_violation(d, "another client cannot resume: %s", d->t->reply.u.error.text);
	else if (test_core_refill(d->t, d->other.dialogue, 7 * SHMI_ATTRS, 1) != 1)
		deaths_violation(d, "another client gets no span");
	test_core_run(d->t);
	deaths_check(d, "after one more request");
}

/* ---- the walk ---- */

/* Who asks is dead: where its entry stands, it is that of a process that does not live. */
static void bury(struct deaths *d)
{
	struct shmi_state *state = (struct shmi_state *)(void *)d->w.master[HEAP_STATE].start;
	struct shmi_client_state *entry = &state->clients[d->asker.id];

	if (shmi_load(&entry->in_use) == 1)
		entry->pidfd_inode = d->asker.peer.inode + (d->orphaned ? 1 : 0);
}

/* Of a note under SHMI_SEIZING_DOUBT the word is not in doubt any more: an earlier death was. */
static struct death_note read_note(const struct deaths *d)
{
	const struct shmi_geometry *geo = &d->w.geo;
	const struct shmi_state *state = (const void *)d->w.master[HEAP_STATE].start;
	const struct shmi_span *spans = (const void *)(d->w.master[HEAP_META].start + geo->spans);
	uint32_t step = shmi_load(&state->seizing.step), page = state->seizing.span;
	const shmi_a64 *bitmap =
	        (const void *)(d->w.master[HEAP_CTL].start + geo->bitmaps + page * SHMI_BITMAP_BYTES_PER_PAGE);
	uint32_t words = (step & ~SHMI_SEIZING_DOUBT) - 1;

	if (!step || (shmi_load(&spans[page].word) & 15) == SHMI_SPAN_SEIZED)
		return (struct death_note){0};
	return (struct death_note){.span = page,
	        .words = words,
	        .doubt = !(step & SHMI_SEIZING_DOUBT) && words * 64 < spans[page].slots && !shmi_load(&bitmap[words])};
}

/* The daemon has been killed with the master memory as it is: the next one comes. With `log`, its stores are recorded. */
static void take_over(struct deaths *d, struct stores *log)
{
	bury(d);
	d->note[d->level] = read_note(d);
	world_fresh(&d->w);
	d->t = NULL;
	d->reply.kind = WIRE_NONE;
	d->watched = log != NULL;
	d->variant = (uint32_t)test_random_below(&d->random, 4);
	if (log) {
		stores_record(log, d->w.copy, WORLD_RANGES, recover, d);
		d->traps += log->traps;
		if (d->t)
			deaths_judge_stores(d, log);
	} else {
		recover(d);
	}
	if (!d->t)
		return;
	deaths_judge(d);
	judge_service(d);
	test_core_free(d->t);
	d->t = NULL;
}

/* Whether to look at the i-th of n with at most `most`: all, or evenly spread from a random one on. */
static bool is_chosen(size_t i, size_t n, uint32_t most, uint64_t shift)
{
	size_t stride = most ? (n + most - 1) / most : 0;

	return most && (stride <= 1 || (i + shift) % stride == 0);
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A line now and then, in a campaign. */
static void progress(struct deaths *d)
{
	double now = seconds();

	if (now - d->told < PROGRESS_S)
		return;
	d->told = now;
	fprintf(stderr, "%s%s: %llu kills, after store %zu of %zu\n", d->c->name, d->orphaned ? " with its client" : "",
	        (unsigned long long)d->kills, d->at[0], d->of[0]);
}

static void explore(struct deaths *d, const struct stores *log)
{
	uint32_t level = d->level, deaths = d->plan->deaths[level], deeper = d->plan->deeper[level];
	uint64_t shift = test_random_next(&d->random), deep_shift = test_random_next(&d->random);

	d->of[level] = log->count;
	for (size_t k = 0; k <= log->count; k++) {
		bool deep = level + 1 < DEATHS_LEVELS && is_chosen(k, log->count + 1, deeper, deep_shift);

		d->at[level] = k;
		if (is_chosen(k, log->count + 1, deaths, shift)) {
			d->kills++;
			d->by_level[level]++;
			take_over(d, NULL);
			progress(d);
		}
		if (deep) {
			struct stores next;

			stores_init(&next);
			take_over(d, &next);
			d->level++;
			explore(d, &next);
			d->level--;
			stores_deinit(&next);
		}
		if (k < log->count)
			stores_apply(log, d->w.master, k, k + 1);
	}
	stores_apply(log, d->w.master, log->count, 0);
}

/* ---- a case ---- */

static void act(void *ctx)
{
	struct deaths *d = ctx;

	if (d->c->act)
		d->c->act(d);
	else
		ask(d);
}

static void settle(void *ctx)
{
	struct deaths *d = ctx;

	test_core_run(d->t);
	scavenger_look(&d->t->core);
	test_core_run(d->t);
}

/* Makes the history, does the deed and remembers what came of it; the memory is as before the deed then. */
static void rehearse(struct deaths *d, struct stores *deed)
{
	const char *why;
	struct stores rest;

	d->t = world_core(&d->w, d->w.master, d->c->limit, &why);
	cr_assert(d->t != NULL, "%s", why);
	d->c->prepare(d);
	test_core_run(d->t);
	digest_take(&d->before, &d->t->heap);
	stores_record(deed, d->w.master, WORLD_RANGES, act, d);
	d->traps += deed->traps;
	d->answer = d->reply.kind;
	d->thread = d->answer == WIRE_ATTACH_OK ? d->reply.u.attach_ok.thread : SHMI_NO_THREAD;
	stores_init(&rest);
	stores_record(&rest, d->w.master, WORLD_RANGES, settle, d);
	deaths_check(d, "without a death");
	digest_take(&d->after, &d->t->heap);
	test_core_free(d->t);
	stores_apply(&rest, d->w.master, rest.count, 0);
	stores_apply(deed, d->w.master, deed->count, 0);
	stores_deinit(&rest);
	if (d->c->recovery)
		deed->count = 0;
}

/* What is left when the client has died before the deed, or after it. */
static void orphan(struct deaths *d, const struct stores *deed)
{
	d->orphaned = true;
	for (uint32_t i = 0; i < 2; i++) {
		stores_apply(deed, d->w.master, 0, i ? deed->count : 0);
		bury(d);
		world_fresh(&d->w);
		d->watched = false;
		d->variant = 0;
		recover(d);
		digest_take(&d->orphan[i], &d->t->heap);
		test_core_free(d->t);
		stores_apply(deed, d->w.master, i ? deed->count : 0, 0);
	}
	explore(d, deed);
	d->orphaned = false;
}

uint64_t deaths_run(const struct death_case *c, const struct death_plan *plan)
{
	static struct deaths d;
	struct stores deed;
	double begun = seconds();

	d = (struct deaths){.c = c, .plan = plan, .random = test_random_init(c->name), .told = begun};
	stores_init(&deed);
	world_init(&d.w, c->limit);
	rehearse(&d, &deed);
	explore(&d, &deed);
	if (plan->orphans && (c->again || d.req.kind != WIRE_NONE) && d.req.kind != WIRE_ATTACH)
		orphan(&d, &deed);
	world_deinit(&d.w);
	fprintf(stderr,
	        "daemon killed during %s: %zu stores, injections %llu, of these again in recovery %llu, in the one "
	        "after %llu; violations %llu, %.1f s\n",
	        c->name, deed.count, (unsigned long long)d.kills, (unsigned long long)d.by_level[1],
	        (unsigned long long)d.by_level[2], (unsigned long long)d.violations, seconds() - begun);
	stores_deinit(&deed);
	return d.violations;
}
