/* What the thread cache asks the daemon for, and when.
 *
 * Demand: for each class the spans that were granted to it and begun are counted, and the count decays with the bytes of spans that
 * all classes begin. So a class that begins a steady share of them comes to have that share of `a while`, which is a part of what the
 * thread holds; one that has stopped growing is forgotten after a few whiles; a span given back is one less. A span that is emptied
 * and begun again counts for nothing. Every message tops up all classes to what they are expected to begin in the next while, so
 * that they run dry at about the same time, and the number of messages grows with the logarithm of what is held.
 *
 * Ahead: a class that grows and has little left has a request sent for it (with all others in it) that nobody waits for; its
 * answer is fetched when the class is dry. One at a time. A class that cannot be expected to grow is asked for when it is dry, and
 * has to wait.
 *
 * Keeping: as many wholly free spans as are expected to be begun are kept, and a share of what is held; further ones are given back.
 * A class that asks for what it gave back learns to keep more.
 */
#include <errno.h>

#include "client/tcache.h"

#define AGE_ROUNDS 12u /* looks at every class while what the thread holds doubles */
#define AGE_FROM SHMI_MIB /* bytes held up to which that does not pay: the same spans would come and go */
#define WHILE_LEAST (64 * 1024u) /* bytes of spans begun that a while lasts: so many at least, ... */
#define WHILE_SHARE 32u /* ... or this part of what the thread holds, ... */
#define WHILE_MOST (2 * SHMI_MIB) /* ... up to so many */
#define SOON 2u /* whiles that what is left of a class should last */
#define SPARE_SHARE 24u /* the part of its spans that a class may keep though they are wholly free, and one more */
#define PUT_OFF 16u /* refills of magazines before the next attempt to ask ahead, when one could not be sent */

/* ---- demand ---- */

static uint32_t bounded(uint32_t spans, const struct shmi_class *class)
{
	uint32_t most = SHMI_TC_ASK_MAX / (class->pages << SHMI_PAGE_SHIFT);

	return spans < most ? spans : most ? most : 1;
}

static uint64_t a_while(const struct shmi_tcache *tc)
{
	uint64_t bytes = tc->held_bytes / WHILE_SHARE;

	return bytes < WHILE_LEAST ? WHILE_LEAST : bytes < WHILE_MOST ? bytes : WHILE_MOST;
}

/* Before a message. In the steady state rate = (rate + begun) * next / (next + all begun), which is begun * next / all begun. */
static void expect(struct shmi_tcache *tc)
{
	uint64_t next = a_while(tc), all = next + tc->begun_bytes;

	for (uint32_t i = 0; i < SHMI_SPAN_CLASSES; i++) {
		struct shmi_tc_class *c = &tc->cls[i];

		c->rate = (uint32_t)((c->rate + c->begun * SHMI_TC_RATE_ONE) * next / all);
		c->begun = 0;
	}
	tc->begun_bytes = 0;
}

uint32_t shmi_tcache_expected(const struct shmi_tcache *tc, shmi_sclass sclass)
{
	uint32_t rate = tc->cls[sclass.c].rate;

	return bounded((rate + SHMI_TC_RATE_ONE / 2) / SHMI_TC_RATE_ONE, shmi_tcache_class(tc, sclass));
}

/* ---- keeping ---- */

static uint32_t share_of_held(const struct shmi_tcache *tc, shmi_sclass sclass)
{
	uint32_t held = tc->full[sclass.c].count + tc->ready[sclass.c].count;

	return bounded(held / SPARE_SHARE + 1, shmi_tcache_class(tc, sclass));
}

uint32_t shmi_tcache_keep_size(const struct shmi_tcache *tc, shmi_sclass sclass)
{
	uint32_t expected = shmi_tcache_expected(tc, sclass), keep = tc->keep[sclass.c],
	         least = share_of_held(tc, sclass);

	keep = keep > least ? keep : least;
	return expected > keep ? expected : keep;
}

void shmi_tcache_keep_less(struct shmi_tcache *tc, shmi_sclass sclass, uint32_t by)
{
	tc->keep[sclass.c] = (uint16_t)(tc->keep[sclass.c] - by);
	tc->keep_bytes -= (uint64_t)by * shmi_tcache_class(tc, sclass)->pages << SHMI_PAGE_SHIFT;
}

/* Spans of this class were given back, and now there are none: too early, if there is room to keep more. */
static void learn_to_keep(struct shmi_tcache *tc, shmi_sclass sclass)
{
	uint64_t most = tc->held_bytes / SHMI_TC_KEEP_SHARE;
	uint64_t bytes = shmi_tcache_class(tc, sclass)->pages << SHMI_PAGE_SHIFT;
	uint32_t more = tc->given[sclass.c];

	most = most < SHMI_TC_KEEP_LEAST ? SHMI_TC_KEEP_LEAST : most;
	most = most > tc->keep_bytes ? (most - tc->keep_bytes) / bytes : 0;
	more = more < most ? more : (uint32_t)most;
	more = tc->keep[sclass.c] + more < UINT16_MAX ? more : 0;
	tc->keep[sclass.c] = (uint16_t)(tc->keep[sclass.c] + more);
	tc->keep_bytes += more * bytes;
	tc->given[sclass.c] = 0;
}

/* ---- what goes into a message ---- */

/* How many spans' worth of blocks are at hand without a look at what others have freed. */
static uint32_t at_hand(const struct shmi_tcache *tc, shmi_sclass sclass)
{
	uint32_t slots = shmi_tcache_class(tc, sclass)->slots;

	return tc->ready[sclass.c].count + (shmi_load(&tc->mag[sclass.c]->top) + slots / 2) / slots;
}

static void want_spans(struct shmi_tcache *tc, shmi_sclass sclass, uint32_t spans)
{
	if (!at_hand(tc, sclass))
		learn_to_keep(tc, sclass);
	tc->ask.wants[tc->ask.n_wants].sclass = sclass.c;
	tc->ask.wants[tc->ask.n_wants++].spans = spans;
}

/* Whether the slots that are left are likely to be used up before the class is thought of again, if it grows no less than the heap. */
static bool ends_soon(const struct shmi_tcache *tc, shmi_sclass sclass)
{
	const struct shmi_class *class = shmi_tcache_class(tc, sclass);
	uint32_t page = tc->ready[sclass.c].head, held = tc->full[sclass.c].count + 1;
	uint32_t left = shmi_load(&tc->mag[sclass.c]->top);

	if (page)
		left += shmi_slots_count(shmi_bitmap_at(&tc->env->img, (shmi_page){page}), class);
	return left * WHILE_SHARE <= (uint64_t) class->slots * held * SOON;
}

/* What a class should be given while a message goes out anyway: what it lacks for the next while; a span if it ran dry, or soon will. */
static uint32_t lacks(const struct shmi_tcache *tc, shmi_sclass sclass, bool dry)
{
	uint32_t expected = shmi_tcache_expected(tc, sclass), have = at_hand(tc, sclass);

	if (dry && !tc->ready[sclass.c].head && shmi_load(&tc->mag[sclass.c]->top) <= tc->limit[sclass.c] / 4)
		return expected ? expected : 1;
	if (expected > have)
		return expected - have;
	return have <= 1 && tc->cls[sclass.c].active && ends_soon(tc, sclass);
}

/* One message serves all classes that ran out since the last one, and those that will. */
static void want_others(struct shmi_tcache *tc, shmi_sclass but)
{
	for (uint32_t i = 0; i < SHMI_SPAN_CLASSES && tc->ask.n_wants < SHMI_TC_WANTS; i++) {
		bool dry = tc->cls[i].dry;
		uint32_t spans = tc->mag[i] && i != but.c ? lacks(tc, (shmi_sclass){(uint16_t)i}, dry) : 0;

		tc->cls[i].dry = 0;
		if (spans)
			want_spans(tc, (shmi_sclass){(uint16_t)i}, spans);
	}
}

int shmi_tcache_send(struct shmi_tcache *tc, bool wait)
{
	int error = tc->env->ops->refill(tc->env->ctx, tc, &tc->ask, wait);

	tc->ask.n_wants = 0;
	if (!tc->ask.n_returns)
		tc->return_bytes = 0;
	return error;
}

/* ---- asking ---- */

/* Before the thread holds more than ever, classes that it does not use now give back a part of what they cache. Below that they may keep
 * it: a program that uses its classes in turn would ask for what it has just given back. And some spans are looked at for what others
 * have freed. */
static void make_do(struct shmi_tcache *tc, shmi_sclass sclass, uint32_t spans)
{
	uint64_t will = tc->held_bytes + ((uint64_t)spans * shmi_tcache_class(tc, sclass)->pages << SHMI_PAGE_SHIFT);

	if (will > tc->peak_bytes && will > AGE_FROM)
		shmi_tcache_age(tc, (uint32_t)(SHMI_SPAN_CLASSES * AGE_ROUNDS * (will - tc->peak_bytes) / will) + 1);
	if (will > tc->peak_bytes)
		tc->peak_bytes = will;
	shmi_tcache_reap(tc, SHMI_TC_REAP_LEAST + 4 * spans);
}

int shmi_tcache_ask(struct shmi_tcache *tc, shmi_sclass sclass, uint32_t want)
{
	uint32_t slots = shmi_tcache_class(tc, sclass)->slots, need = (want + slots - 1) / slots, spans;

	expect(tc);
	spans = shmi_tcache_expected(tc, sclass);
	make_do(tc, sclass, spans ? spans : 1);
	if (tc->ready[sclass.c].head) /* the class's own turn has come */
		return 0;
	want_spans(tc, sclass, spans < need ? need : spans);
	want_others(tc, sclass);
	int error = shmi_tcache_send(tc, true);

	if (tc->ready[sclass.c].head)
		return 0;
	if (error != ENOMEM)
		return error;
	shmi_tcache_trim(tc);
	want_spans(tc, sclass, 1);
	return shmi_tcache_send(tc, true);
}

bool shmi_tcache_runs_low(const struct shmi_tcache *tc, shmi_sclass sclass, uint32_t want)
{
	uint32_t expected = shmi_tcache_expected(tc, sclass), quarter = expected / 4;
	uint32_t next = want / shmi_tcache_class(tc, sclass)->slots;

	if (!expected || tc->posted || tc->put_off)
		return false;
	return at_hand(tc, sclass) <= (next > quarter && next < expected ? next : quarter);
}

void shmi_tcache_ask_ahead(struct shmi_tcache *tc, shmi_sclass sclass)
{
	expect(tc);
	make_do(tc, sclass, shmi_tcache_expected(tc, sclass));
	uint32_t spans = lacks(tc, sclass, false);

	if (!spans)
		return;
	want_spans(tc, sclass, spans);
	want_others(tc, sclass);
	if (shmi_tcache_send(tc, false))
		tc->put_off = PUT_OFF;
}
