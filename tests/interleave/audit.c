#include "tests/interleave/parts.h"

/* A span is being closed: nobody may have anything of it. A scoped one of a dead client ends with all that is in it. */
void audit_closed(uint32_t page)
{
	for (uint32_t i = 0; i < parts_tracked(); i++) {
		if (parts.scoped_death)
			world.has[page][i] = NOBODY;
		if (world.has[page][i])
			explore_fail("page %u is closed, but block %u is in use", page, i);
		for (uint32_t a = 1; a < parts.scenario->actors; a++)
			if (parts_alive(parts.scenario->client[a]) && parts_cached(a, parts_off(page, i)))
				explore_fail("page %u is closed, but actor %u has slot %u", page, a, i);
	}
	world.doubt[page] = 0;
}

/* ---- what must hold ---- */

static bool is_blocks(uint32_t state)
{
	return state == SHMI_SPAN_OWNED || state == SHMI_SPAN_CENTRAL;
}

static struct shmi_word word_of(uint32_t page)
{
	return shmi_word_unpack(explore_peek(&shmi_span_at(&parts.img, (shmi_page){page})->word, 8));
}

static uint32_t audit_is_free(uint32_t page, uint32_t index)
{
	uint32_t slot = parts.scenario->track[index];

	return explore_word(&shmi_bitmap_at(&parts.img, (shmi_page){page})[slot / 64], 8) >> slot % 64 & 1;
}

/* Nobody has anything of a seized span, and nobody can take from it. */
static void check_seized(uint32_t page)
{
	for (uint32_t i = 0; i < parts_tracked(); i++) {
		if (audit_is_free(page, i) || world.has[page][i])
			explore_fail("slot %u of seized page %u is free or in use (I25)", i, page);
		for (uint32_t a = 1; a < parts.scenario->actors; a++)
			if (parts_alive(parts.scenario->client[a]) && parts_cached(a, parts_off(page, i)))
				explore_fail(
				        "slot %u of seized page %u is in a magazine of actor %u (I25)", i, page, a);
	}
}

void audit_step(void)
{
	for (uint32_t p = 1; p <= 1 + parts.scenario->pages; p++) {
		if (word_of(p).state == SHMI_SPAN_SEIZED)
			check_seized(p);
		if (!is_blocks(word_of(p).state))
			continue;
		for (uint32_t i = 0; i < parts_tracked(); i++) {
			if (!audit_is_free(p, i))
				continue;
			if (world.has[p][i] && !shmi_sclass_scoped(parts.sclass))
				explore_fail(
				        "slot %u of page %u is free, and actor %u has it", i, p, world.has[p][i] - 1u);
			for (uint32_t a = 1; a < parts.scenario->actors; a++)
				if (parts_alive(parts.scenario->client[a]) && parts_cached(a, parts_off(p, i)))
					explore_fail(
					        "slot %u of page %u is free, and in a magazine of actor %u", i, p, a);
		}
	}
}

static bool in_doubt(uint32_t page, uint32_t index)
{
	const struct shmi_span *span = shmi_span_at(&parts.img, (shmi_page){page});
	uint32_t slot = parts.scenario->track[index];

	return span->written_off_word == slot / 64 && span->written_off_bits >> slot % 64 & 1;
}

/* Where a slot is when all have come to rest. */
static uint32_t check_slot(uint32_t page, uint32_t index)
{
	uint32_t places = audit_is_free(page, index) + (world.has[page][index] != NOBODY);

	for (uint32_t a = 1; a < parts.scenario->actors; a++)
		if (parts_alive(parts.scenario->client[a]))
			places += parts_cached(a, parts_off(page, index));
	if (places > 1)
		explore_fail("slot %u of page %u is in %u places", index, page, places);
	return !places && !in_doubt(page, index);
}

static bool is_reported(uint32_t page)
{
	for (uint32_t a = 1; a < parts.scenario->actors; a++) {
		if (!parts_alive(parts.scenario->client[a]))
			continue;
		for (uint32_t i = 0; i < parts.caches[a].ask.n_reports; i++)
			if (parts.caches[a].ask.reports[i] == page)
				return true;
	}
	return false;
}

static void check_central(uint32_t page)
{
	const struct shmi_span *span = shmi_span_at(&parts.img, (shmi_page){page});
	uint32_t free = 0;

	for (uint32_t w = 0; w < parts.class->words; w++)
		free += (uint32_t)__builtin_popcountll(
		        explore_peek(&shmi_bitmap_at(&parts.img, (shmi_page){page})[w], 8));
	if (free == parts.class->slots && !is_reported(page))
		explore_fail("page %u is wholly free and kept", page);
	if (free && span->list != SHMI_LIST_FREE && !is_reported(page))
		explore_fail("page %u has %u free slots, and nobody knows (P2)", page, free);
	if (!free && span->list != SHMI_LIST_FULL)
		explore_fail("page %u has no free slot, and is on list %u (I7)", page, span->list);
}

static uint32_t list_length(const struct shmi_list *list)
{
	uint32_t n = 0;

	for (uint32_t p = list->head; p && n < PAGES; p = shmi_span_at(&parts.img, (shmi_page){p})->next)
		n++;
	if (n != list->count)
		explore_fail("a list of %u spans says that it has %u", n, list->count);
	return n;
}

static void check_counts(uint32_t central, uint32_t owned, uint32_t seized)
{
	const struct shmi_central_lists *lists = shmi_central_at(&parts.img, parts.sclass);
	uint32_t listed = 0;

	if (list_length(&lists->free) + list_length(&lists->full) != central)
		explore_fail("%u central spans are not all on the lists (I6)", central);
	for (uint32_t c = 0; c < CLIENTS; c++)
		listed += list_length(&shmi_owner_at(&parts.img, c)->spans);
	if (listed != owned + seized)
		explore_fail("%u owned spans are not all on their owners' lists (I5)", owned);
	if (explore_peek(&parts.img.super->pages.central, 8) != central ||
	        explore_peek(&parts.img.super->pages.owned, 8) != owned ||
	        explore_peek(&parts.img.super->pages.seized, 8) != seized)
		explore_fail("the page counts are wrong (I9)");
}

static void check_actors(void)
{
	for (uint32_t a = 1; a < parts.scenario->actors; a++) {
		const struct shmi_threadrec *rec = shmi_threadrec_at(&parts.img, a);
		uint32_t c = parts.scenario->client[a];

		if (!parts_alive(c) || world.gone >> c & 1) {
			if (shmi_thread_slot_at(&parts.img, a)->client != SHMI_NOBODY || !(world.gone >> c & 1))
				explore_fail("client %u is gone, and its record is not", c);
			continue;
		}
		if (explore_actor[a].pending != AT_END)
			explore_fail("actor %u waits for ever", a);
		if (explore_peek(&rec->spill_top, 4) || explore_peek(&rec->intent.op, 4) != SHMI_INTENT_NONE)
			explore_fail("actor %u has come to rest in the middle of a put or take", a);
	}
}

/* Returns how many slots are written off of which the record does not say any more which they are. */
static uint32_t check_written_off(uint32_t page)
{
	const struct shmi_span *span = shmi_span_at(&parts.img, (shmi_page){page});
	uint32_t doubt = (uint32_t)__builtin_popcount(world.doubt[page]);

	if (doubt && parts.scenario->spare) /* whole words, of which the book knows a few slots */
		doubt = parts.class->slots;
	if (span->written_off > doubt || (uint32_t)__builtin_popcountll(span->written_off_bits) > span->written_off)
		explore_fail("%u slots of page %u are written off, %u were in doubt", span->written_off, page, doubt);
	if (span->written_off > explore_peek(&parts.img.super->counters.slots_written_off, 8))
		explore_fail("slots are written off and not counted");
	return span->written_off - (uint32_t)__builtin_popcountll(span->written_off_bits);
}

void audit_end(void)
{
	uint32_t lost = 0, known = world.killed_threads, central = 0, owned = 0, seized = 0;

	check_actors();
	for (uint32_t p = 1; p <= 1 + parts.scenario->pages; p++) {
		struct shmi_word word = word_of(p);

		seized += word.state == SHMI_SPAN_SEIZED;
		if (!is_blocks(word.state))
			continue;
		if (parts.scenario->empty)
			explore_fail("page %u is still a span of blocks", p);
		for (uint32_t i = 0; i < parts_tracked(); i++)
			lost += check_slot(p, i);
		owned += word.state == SHMI_SPAN_OWNED;
		central += word.state == SHMI_SPAN_CENTRAL;
		if (word.state == SHMI_SPAN_CENTRAL)
			check_central(p);
		known += check_written_off(p);
	}
	if (lost > known)
		explore_fail("%u slots are lost, %u threads were killed", lost, world.killed_threads);
	check_counts(central, owned, seized);
	if (explore_peek(&parts.seizing.step, 4))
		explore_fail("a note of a seizure is left");
	if (parts.scenario->end)
		parts.scenario->end();
}
