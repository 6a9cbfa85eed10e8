/* Beside the picture: what is how much, how fragmented it is, and what the colours mean. */
#include "proto/report/mapdraw.h"
#include "proto/report/report.h"
#include "proto/report/xml.h"

#define LINE 20u
#define SWATCH 13u
#define NUMBER 250u /* where the first column of numbers ends, from MAP_SIDE ... */
#define PART 322u /* ... the second ... */
#define RUNS MAP_SIDE_WIDTH /* ... and the third */

static uint64_t bytes_of(uint64_t pages)
{
	return pages * REPORT_PAGE_BYTES;
}

static void text(FILE *to, uint32_t x, uint32_t y, const char *class, const char *words)
{
	fprintf(to, "<text x=\"%u\" y=\"%u\" class=\"%s\">%s</text>", MAP_SIDE + x, y, class, words);
}

static void swatch(FILE *to, uint32_t y, const char *class)
{
	fprintf(to, "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" class=\"%s\"/>", MAP_SIDE, y - SWATCH + 1,
	        SWATCH, SWATCH, class);
}

/* The numbers of a line: bytes, part of all, runs. */
static void numbers(const struct report_map *map, FILE *to, uint32_t y, uint64_t pages, uint64_t runs)
{
	char words[32];

	report_human(bytes_of(pages), words, sizeof(words));
	text(to, NUMBER, y, "end", words);
	snprintf(words, sizeof(words), "%.1f %%", map->end > 1 ? 100.0 * (double)pages / (map->end - 1) : 0.0);
	text(to, PART, y, "end", words);
	snprintf(words, sizeof(words), "%llu", (unsigned long long)runs);
	text(to, RUNS, y, "end", words);
	fputc('\n', to);
}

static void heads(FILE *to, uint32_t y, const char *what)
{
	text(to, 0, y, "head", what);
	text(to, NUMBER, y, "mute end small", "memory");
	text(to, PART, y, "mute end small", "share");
	text(to, RUNS, y, "mute end small", "runs");
	fputc('\n', to);
}

static uint32_t kinds(const struct report_map *map, FILE *to, uint32_t y)
{
	uint64_t runs = 0;
	char class[16];

	heads(to, y, "Pages");
	for (unsigned k = 0; k < REPORT_KINDS; k++) {
		runs += map->runs[k];
		if (k == REPORT_UNKNOWN && !map->pages[k])
			continue;
		y += LINE;
		snprintf(class, sizeof(class), "k%u", k);
		swatch(to, y, class);
		text(to, SWATCH + 8, y, "", report_kind_name(k));
		numbers(map, to, y, map->pages[k], map->runs[k]);
	}
	y += LINE;
	fprintf(to, "<path class=\"line\" d=\"M%u %uh%u\"/>", MAP_SIDE, y - 15, MAP_SIDE_WIDTH);
	text(to, 0, y, "", "published");
	numbers(map, to, y, map->end - 1, runs);
	return y;
}

static uint32_t fullness(FILE *to, uint32_t y)
{
	y += LINE + 8;
	text(to, 0, y, "", "a span's slots in use");
	text(to, NUMBER - 26, y, "end small", "none");
	for (unsigned f = 0; f <= MAP_FILLS; f++)
		fprintf(to, "<rect x=\"%u\" y=\"%u\" width=\"14\" height=\"%u\" class=\"k%d f%u\"/>",
		        MAP_SIDE + NUMBER - 20 + 14 * f, y - SWATCH + 1, SWATCH, REPORT_OWNED, f);
	text(to, NUMBER + 14 * MAP_FILLS, y, "small", "all");
	fputc('\n', to);
	return y;
}

static uint32_t fact(FILE *to, uint32_t y, const char *what, const char *value)
{
	y += LINE;
	text(to, 0, y, "", what);
	text(to, MAP_SIDE_WIDTH, y, "end", value);
	fputc('\n', to);
	return y;
}

static uint32_t fragmentation(const struct report_map *map, FILE *to, uint32_t y)
{
	uint64_t idle = map->pages[REPORT_FREE] + map->pages[REPORT_RETURNED],
	         held = bytes_of(map->pages[REPORT_OWNED]);
	char value[32];

	y += LINE + 16;
	text(to, 0, y, "head", "Fragmentation");
	report_human(bytes_of(idle), value, sizeof(value));
	y = fact(to, y, "free pages, with memory or not", value);
	report_human(bytes_of(map->largest_free), value, sizeof(value));
	y = fact(to, y, "longest stretch of them", value);
	snprintf(value, sizeof(value), "%.1f %%", 100 * report_map_external(map));
	y = fact(to, y, "outside it (external)", value);
	report_human(map->held_free_bytes, value, sizeof(value));
	y = fact(to, y, "free slots in owned spans", value);
	snprintf(value, sizeof(value), "%.1f %%", held ? 100.0 * (double)map->held_free_bytes / (double)held : 0.0);
	y = fact(to, y, "part of those spans (internal)", value);
	report_human(map->central_free_bytes, value, sizeof(value));
	return fact(to, y, "free slots in central spans", value);
}

static void classes(const struct report_map *map, FILE *to, uint32_t y)
{
	uint32_t listed[MAP_LISTED], n = report_map_classes(map, listed, MAP_LISTED), used = 0;
	char class[16], name[64];

	fputs("<g class=\"legend legend-class\">", to);
	heads(to, y, "Blocks of");
	for (uint32_t c = 0; c < WIRE_SCLASSES; c++)
		used += map->classes[c].pages != 0;
	for (uint32_t i = 0; i < n; i++) {
		y += LINE;
		snprintf(class, sizeof(class), "c%u", listed[i]);
		swatch(to, y, class);
		report_map_class_name(map, listed[i], name, sizeof(name));
		text(to, SWATCH + 8, y, "", name);
		numbers(map, to, y, map->classes[listed[i]].pages, map->classes[listed[i]].runs);
	}
	y += LINE;
	snprintf(name, sizeof(name), "light is large; %u classes in use", used);
	text(to, 0, y, "mute small", name);
	fputs("</g>\n", to);
}

void map_owner_name(const struct report_map *map, uint32_t owner, FILE *to)
{
	const struct report_client *client = report_map_client(map, owner);

	if (owner == REPORT_OWNERS - 1) {
		fputs("nobody", to);
	} else if (client) {
		report_xml(client->label, to);
		fprintf(to, " (%u)", client->pid);
	} else {
		fprintf(to, "client %u", owner);
	}
}

static void owners(const struct report_map *map, FILE *to, uint32_t y)
{
	uint32_t ids[MAP_LISTED], n = report_map_holders(map, ids, MAP_LISTED);
	char class[16];

	fputs("<g class=\"legend legend-owner\">", to);
	heads(to, y, "Held by, with pid");
	for (uint32_t i = 0; i < n; i++) {
		y += LINE;
		snprintf(class, sizeof(class), i < REPORT_HUES ? "w%u" : "other", ids[i]);
		swatch(to, y, class);
		/* a label may be long: what is not its own is drawn over it */
		fprintf(to, "<svg x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\"><text y=\"15\">", MAP_SIDE + SWATCH + 8,
		        y - 15, NUMBER - SWATCH - 8 - 76, LINE);
		map_owner_name(map, ids[i], to);
		fputs("</text></svg>", to);
		numbers(map, to, y, map->owners[ids[i]].pages, map->owners[ids[i]].runs);
	}
	fputs("</g>\n", to);
}

void map_side(const struct report_map *map, FILE *to)
{
	uint32_t y = kinds(map, to, MAP_TOP);

	y = fullness(to, y);
	y = fragmentation(map, to, y) + LINE + 16;
	classes(map, to, y);
	owners(map, to, y);
}

uint32_t map_side_height(const struct report_map *map)
{
	uint32_t ids[MAP_LISTED], n = report_map_holders(map, ids, MAP_LISTED),
	                          c = report_map_classes(map, ids, MAP_LISTED) + 1;
	uint32_t lines = REPORT_KINDS + (map->pages[REPORT_UNKNOWN] ? 1u : 0u) + 9 + (n > c ? n : c);

	return MAP_TOP + lines * LINE + 40;
}
