#include "shm/seize.h"

#include "shm/slots.h"

static const struct shmi_class *class_at(const struct shmi_image *img, shmi_page page)
{
	return &img->classes[shmi_sclass_size_class(shmi_span_word(img, page).sclass)];
}

static bool is_whole(const struct shmi_image *img, shmi_page page)
{
	if (shmi_span_word(img, page).state != SHMI_SPAN_OWNED)
		return false;
	const struct shmi_class *class = class_at(img, page);
	shmi_a64 *bitmap = shmi_bitmap_at(img, page);

	for (uint32_t w = 0; w < class->words; w++)
		if (shmi_load(&bitmap[w]) !=
		        shmi_slots_mask(class, w)) /* a bit beyond the last slot: not to be trusted */
			return false;
	return true;
}

/* Takes words from the first on, as the holder does, so that whoever of the two comes second sees it at once. Returns how many. */
static uint32_t take_words(shmi_a64 *bitmap, const struct shmi_class *class, struct shmi_seizing *note)
{
	for (uint32_t w = 0; w < class->words; w++) {
		shmi_store_release(&note->step, w + 1);
		if (!shmi_slots_take_all(bitmap, class, w))
			return w;
	}
	shmi_store_release(&note->step, class->words + 1);
	return class->words;
}

/* Puts back the first `n` words. */
static void put_words(shmi_a64 *bitmap, const struct shmi_class *class, struct shmi_seizing *note, uint32_t n)
{
	while (n--) {
		shmi_store_release(&note->step, n + 1);
		(void)shmi_slots_put(bitmap, n, shmi_slots_mask(class, n));
	}
	shmi_store_release(&note->step, 0);
}

bool shmi_seize(struct shmi_image *img, shmi_page page, struct shmi_seizing *note)
{
	if (!is_whole(img, page))
		return false;
	const struct shmi_class *class = class_at(img, page);
	shmi_a64 *bitmap = shmi_bitmap_at(img, page);

	shmi_then(); /* the note of the last one is void before it becomes another's */
	note->span = page.i;
	note->generation = shmi_span_word(img, page).generation;
	uint32_t got = take_words(bitmap, class, note);

	if (got < class->words) {
		put_words(bitmap, class, note, got);
		return false;
	}
	shmi_span_seize(img, page);
	shmi_store_release(&note->step, 0);
	return true;
}

/* ---- after a restart ---- */

/* Carries out what the note says of word `w`, and lets go of it. */
static void write_off(struct shmi_image *img, shmi_page page, struct shmi_seizing *note, uint32_t w)
{
	struct shmi_span *span = shmi_span_at(img, page);

	shmi_then(); /* the note says it before it is done */
	span->written_off = (uint16_t)note->written_off;
	span->written_off_word = w;
	span->written_off_bits = shmi_slots_mask(class_at(img, page), w);
	shmi_store(&img->super->counters.slots_written_off, note->counter);
	shmi_store_release(&note->step, w); /* the words below are our own still */
}

/* Slots may be in doubt more than once: they count once as long as we know them, and never more than the span has. */
static uint32_t doubt(struct shmi_image *img, shmi_page page, struct shmi_seizing *note, uint32_t w)
{
	const struct shmi_span *span = shmi_span_at(img, page);
	uint64_t known = span->written_off_word == w ? span->written_off_bits : 0;
	uint32_t n = (uint32_t)__builtin_popcountll(shmi_slots_mask(class_at(img, page), w) & ~known);
	uint32_t room = span->slots - span->written_off;

	n = n < room ? n : room;
	note->written_off = span->written_off + n;
	note->counter = shmi_load(&img->super->counters.slots_written_off) + n;
	shmi_store_release(&note->step, (w + 1) | SHMI_SEIZING_DOUBT);
	write_off(img, page, note, w);
	return n;
}

/* Whether the span is still what it was. */
static bool is_under_way(const struct shmi_image *img, const struct shmi_seizing *note)
{
	struct shmi_word word = shmi_span_word(img, (shmi_page){note->span});

	return word.state == SHMI_SPAN_OWNED && word.generation == note->generation;
}

uint32_t shmi_seize_settle(struct shmi_image *img, struct shmi_seizing *note)
{
	uint32_t step = shmi_load(&note->step), w = (step & ~SHMI_SEIZING_DOUBT) - 1, n = 0;
	shmi_page page = {note->span};

	if (!step || !is_under_way(img, note)) {
		shmi_store_release(&note->step, 0);
		return 0;
	}
	const struct shmi_class *class = class_at(img, page);
	shmi_a64 *bitmap = shmi_bitmap_at(img, page);

	w = w < class->words ? w : class->words;
	if (w < class->words && step & SHMI_SEIZING_DOUBT)
		write_off(img, page, note, w);
	else if (w < class->words && !shmi_slots_peek(bitmap, class, w))
		n = doubt(img, page, note, w);
	put_words(bitmap, class, note, w);
	return n;
}
