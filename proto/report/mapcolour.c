/* The colours of the picture.
 *
 * Kinds and owners have those of Okabe and Ito, which people who see fewer colours tell apart; what is free has none, and is light or
 * dark only. Classes have a ramp from dark to light (viridis), by rising size, so that lightness alone says which is larger. How full
 * a span is shows in its opacity: pale is empty.
 */
#include "proto/report/mapdraw.h"

#define DARK 0x0d1117u /* what shines through in a terminal */

static const struct {
	uint32_t light, dark;
} kind_colours[REPORT_KINDS] = {
        [REPORT_FREE] = {0x9aa3ad, 0x7d858f},
        [REPORT_RETURNED] = {0xe4e8ec, 0x262d36},
        [REPORT_MOVING] = {0xf0e442, 0xf0e442},
        [REPORT_CENTRAL] = {0xe69f00, 0xf0ad1f},
        [REPORT_OWNED] = {0x0072b2, 0x3d9be0},
        [REPORT_LARGE] = {0x009e73, 0x1cbf92},
        [REPORT_QUARANTINED] = {0xd55e00, 0xff7a2a},
        [REPORT_SEIZED] = {0xcc79a7, 0xd98db8},
        [REPORT_UNKNOWN] = {0x1b1f24, 0xf0f3f6},
};

uint32_t map_kind_colour(enum report_kind kind, bool dark)
{
	return dark ? kind_colours[kind].dark : kind_colours[kind].light;
}

double map_opacity(double full)
{
	return 0.28 + 0.72 * full;
}

/* From `a` to `b`, which is all at 1. */
static uint32_t blend(uint32_t a, uint32_t b, double part)
{
	uint32_t sum = 0;

	for (unsigned shift = 0; shift < 24; shift += 8) {
		double from = a >> shift & 0xff, to = b >> shift & 0xff;

		sum |= (uint32_t)(from + (to - from) * part + 0.5) << shift;
	}
	return sum;
}

void report_palette_of(const struct report_map *map, struct report_palette *palette)
{
	*palette = (struct report_palette){0};
	for (uint32_t c = 0; c < WIRE_SCLASSES; c++)
		if (map->classes[c].pages)
			palette->rank[c] = (uint16_t)++palette->used;
	palette->n_holders = report_map_holders(map, palette->holders, REPORT_HUES);
}

uint32_t map_class_colour(const struct report_palette *palette, uint32_t sclass)
{
	static const uint32_t ramp[] = {0x46327e, 0x3b528b, 0x2c728e, 0x21918c, 0x28ae80, 0x5ec962, 0xaddc30, 0xe8d820};
	unsigned last = sizeof(ramp) / sizeof(ramp[0]) - 1;
	double x = palette->used > 1 ? (double)last * (palette->rank[sclass] - 1) / (palette->used - 1) : last / 2.0;
	unsigned i = x < last ? (unsigned)x : last - 1;

	return blend(ramp[i], ramp[i + 1], x - i);
}

uint32_t map_owner_colour(const struct report_palette *palette, uint32_t owner)
{
	static const uint32_t hues[REPORT_HUES] = {
	        0x0072b2, 0xe69f00, 0x009e73, 0xcc79a7, 0xd55e00, 0x56b4e9, 0xf0e442, 0x7a4fa3};

	for (uint32_t i = 0; i < palette->n_holders; i++)
		if (palette->holders[i] == owner)
			return hues[i];
	return MAP_OTHER;
}

uint32_t report_colour(const struct report_palette *palette, enum report_by by, const struct report_cell *cell)
{
	bool slots = cell->kind == REPORT_OWNED || cell->kind == REPORT_CENTRAL, large = cell->kind == REPORT_LARGE;
	uint32_t colour = map_kind_colour(cell->kind, true);

	if (by == REPORT_BY_CLASS && slots)
		colour = map_class_colour(palette, cell->sclass);
	else if (by == REPORT_BY_CLASS && large)
		colour = MAP_LARGE;
	else if (by == REPORT_BY_OWNER && (cell->kind == REPORT_OWNED || large))
		colour = map_owner_colour(palette, cell->owner);
	else if (by == REPORT_BY_OWNER && slots)
		colour = MAP_NOBODY;
	return slots ? blend(DARK, colour, map_opacity((double)cell->live / cell->main_pages)) : colour;
}
