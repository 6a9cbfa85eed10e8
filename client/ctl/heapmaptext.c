/* The map of a heap as text.
 *
 * A cell of the text stands for a number of pages, a power of two, that is large enough that the picture has at most HEIGHT
 * lines. It shows what most of its pages are. In colours a character has two cells, as the upper half block with a ground of its own; the
 * cells still go from left to right, line by line of half the height.
 */
#include <langinfo.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "client/ctl/heapmap.h"
#include "client/ctl/show.h"

#define LABEL 9u /* columns of the offset beside a line, with a space */
#define COLUMNS_DEFAULT 80u
#define COLUMNS_LEAST 24u
#define COLUMNS_MOST 512u
#define STEP 16u /* cells beside each other: a multiple, so that the offsets beside the lines are easy to read */
#define HEIGHT 32u /* lines of the picture: more would not fit on most screens with what is below it */
#define LISTED 12u /* classes and owners below the picture */
#define OUTSIDE REPORT_KINDS /* a cell beyond the last page */

struct ctl_paper ctl_paper_of(FILE *to)
{
	const char *columns = getenv("COLUMNS"), *none = getenv("NO_COLOR"), *term = getenv("TERM"),
	           *deep = getenv("COLORTERM");
	struct ctl_paper paper = {.columns = columns ? (uint32_t)strtoul(columns, NULL, 10) : 0};
	struct winsize size;
	int fd = fileno(to);

	if (!paper.columns && fd >= 0 && ioctl(fd, TIOCGWINSZ, &size) == 0)
		paper.columns = size.ws_col;
	if (!paper.columns)
		paper.columns = COLUMNS_DEFAULT;
	if (paper.columns < COLUMNS_LEAST)
		paper.columns = COLUMNS_LEAST;
	if (paper.columns > COLUMNS_MOST)
		paper.columns = COLUMNS_MOST;
	setlocale(LC_CTYPE, "");
	if (fd < 0 || !isatty(fd) || (none && *none) || !term || strcmp(term, "dumb") == 0 ||
	        strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
		return paper;
	paper.ink = deep && (strcmp(deep, "truecolor") == 0 || strcmp(deep, "24bit") == 0) ? CTL_TRUECOLOR : CTL_256;
	return paper;
}

/* ---- cells ---- */

struct drawing {
	const struct report_map *map;
	const struct report_map_look *look;
	const struct ctl_paper *paper;
	FILE *to;
	struct report_palette palette;
	uint32_t width, lines; /* cells beside each other; lines of cells */
	uint32_t pages; /* of a cell */
	uint32_t next; /* the first cell of the map that has pages at or behind the next cell of the text */
};

/* What a cell of the text shows: a cell of the map that is cut to it. They are asked for in rising order. */
static struct report_cell cell_at(struct drawing *d, uint32_t index)
{
	uint32_t begin = index * d->pages, end = begin + d->pages, pages[REPORT_KINDS] = {0};
	struct report_cell best[REPORT_KINDS] = {{0}}, none = {.kind = OUTSIDE};
	const struct report_map *map = d->map;
	unsigned most = 0;

	while (d->next < map->n_cells && map->cells[d->next].page + map->cells[d->next].pages <= begin)
		d->next++;
	for (uint32_t i = d->next; i < map->n_cells && map->cells[i].page < end; i++) {
		const struct report_cell *cell = &map->cells[i];
		uint32_t from = cell->page > begin ? cell->page : begin, last = cell->page + cell->pages;
		uint32_t here = (last < end ? last : end) - from;
		float full = cell->live / (float)cell->main_pages;

		pages[cell->kind] += here;
		struct report_cell *of = &best[cell->kind];

		if (here > of->run_pages) {
			of->sclass = cell->sclass;
			of->owner = cell->owner;
			of->run_pages = here;
		}
		of->kind = cell->kind;
		of->live += full * (float)here;
		of->main_pages = pages[cell->kind];
		most = pages[cell->kind] > pages[most] ? cell->kind : most;
	}
	return pages[most] ? best[most] : none;
}

/* ---- ink ---- */

static char letter(const struct drawing *d, const struct report_cell *cell)
{
	static const char kinds[] = "-.mcolqs? ", ranks[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
	bool slots = cell->kind == REPORT_OWNED || cell->kind == REPORT_CENTRAL;
	char c = kinds[cell->kind];

	if (d->look->by == REPORT_BY_CLASS && slots)
		return ranks[(uint32_t)(d->palette.rank[cell->sclass] - 1) % (sizeof(ranks) - 1)];
	if (d->look->by == REPORT_BY_CLASS && cell->kind == REPORT_LARGE)
		return '#'; /* l is a class here */
	if (d->look->by == REPORT_BY_OWNER && (cell->kind == REPORT_OWNED || cell->kind == REPORT_LARGE)) {
		for (uint32_t i = 0; i < d->palette.n_holders; i++)
			if (d->palette.holders[i] == cell->owner)
				return (char)('1' + i);
		return '+';
	}
	if (d->look->by == REPORT_BY_KIND && slots && 2 * cell->live >= (float)cell->main_pages)
		c = (char)(c - 'a' + 'A');
	return c;
}

/* The nearest of the 6 x 6 x 6 colours. */
static unsigned cube(uint32_t colour)
{
	unsigned sum = 16;

	for (unsigned i = 0, weight = 36; i < 3; i++, weight /= 6) {
		unsigned c = colour >> (16 - 8 * i) & 0xff;

		sum += weight * (c < 48 ? 0 : c < 115 ? 1 : (c - 35) / 40);
	}
	return sum;
}

/* Sets the foreground (38) or the ground (48); OUTSIDE is the terminal's own. */
static void ink(const struct drawing *d, unsigned what, const struct report_cell *cell)
{
	if (cell->kind == OUTSIDE) {
		fprintf(d->to, "\x1b[%um", what + 1);
		return;
	}
	uint32_t c = report_colour(&d->palette, d->look->by, cell);

	if (d->paper->ink == CTL_TRUECOLOR)
		fprintf(d->to, "\x1b[%u;2;%u;%u;%um", what, c >> 16, c >> 8 & 0xff, c & 0xff);
	else
		fprintf(d->to, "\x1b[%u;5;%um", what, cube(c));
}

static void draw_pair(const struct drawing *d, const struct report_cell *upper, const struct report_cell *lower)
{
	ink(d, 48, lower);
	if (upper->kind != OUTSIDE) {
		ink(d, 38, upper);
		fputs("\xe2\x96\x80", d->to); /* upper half block */
	} else {
		fputc(' ', d->to);
	}
}

/* A sample of a colour, or its letter. */
static void sample(const struct drawing *d, const struct report_cell *cell)
{
	if (d->paper->ink == CTL_LETTERS) {
		fprintf(d->to, "%c", letter(d, cell));
		return;
	}
	ink(d, 48, cell);
	fputs("  \x1b[0m", d->to);
}

/* ---- the picture ---- */

static void measure(struct drawing *d)
{
	uint32_t most = HEIGHT * (d->paper->ink == CTL_LETTERS ? 1 : 2);

	d->width = (d->paper->columns - LABEL) / STEP * STEP;
	if (!d->width)
		d->width = d->paper->columns - LABEL;
	d->pages = 1;
	while ((uint64_t)d->pages * d->width * most < d->map->end)
		d->pages *= 2;
	d->lines = (d->map->end + d->pages * d->width - 1) / (d->pages * d->width);
}

static void draw_label(const struct drawing *d, uint32_t line)
{
	static const char *const units[] = {"K", "M", "G", "T"};
	double n = (double)line * d->width * d->pages * (REPORT_PAGE_BYTES / 1024.0);
	unsigned unit = 0;
	char offset[24];

	for (; unit < 3 && n >= 1024; unit++)
		n /= 1024;
	snprintf(offset, sizeof(offset), "%.5g%s", n, n > 0 ? units[unit] : "");
	fprintf(d->to, "%*s ", (int)LABEL - 1, offset);
}

static void draw_lines(struct drawing *d)
{
	unsigned step = d->paper->ink == CTL_LETTERS ? 1 : 2;
	struct report_cell cells[2][COLUMNS_MOST] = {{{0}}};

	for (uint32_t line = 0; line < d->lines; line += step) {
		draw_label(d, line);
		for (uint32_t i = 0; i < step * d->width; i++)
			cells[i / d->width][i % d->width] = cell_at(d, line * d->width + i);
		for (uint32_t x = 0; x < d->width; x++) {
			if (step == 2)
				draw_pair(d, &cells[0][x], &cells[1][x]);
			else
				fputc(letter(d, &cells[0][x]), d->to);
		}
		fputs(step == 2 ? "\x1b[0m\n" : "\n", d->to);
	}
}

/* ---- what is below it ---- */

static void amount(const struct drawing *d, uint64_t pages, uint64_t runs)
{
	char size[32];

	report_human(pages * REPORT_PAGE_BYTES, size, sizeof(size));
	fprintf(d->to, "%10s %6.1f %% %8llu\n", size, d->map->end > 1 ? 100.0 * (double)pages / (d->map->end - 1) : 0.0,
	        (unsigned long long)runs);
}

static void list_kinds(const struct drawing *d)
{
	uint64_t runs = 0;

	fprintf(d->to, "\n%-26s %10s %8s %8s\n", "Pages", "memory", "of heap", "runs");
	for (unsigned k = 0; k < REPORT_KINDS; k++) {
		struct report_cell cell = {.kind = (uint8_t)k, .live = 1, .main_pages = 1};

		runs += d->map->runs[k];
		if (!d->map->pages[k])
			continue;
		if (d->look->by == REPORT_BY_KIND || (k != REPORT_OWNED && k != REPORT_CENTRAL && k != REPORT_LARGE) ||
		        (d->look->by == REPORT_BY_CLASS && k == REPORT_LARGE))
			sample(d, &cell);
		else
			fputs(d->paper->ink == CTL_LETTERS ? " " : "  ", d->to);
		fprintf(d->to, " %-*s", d->paper->ink == CTL_LETTERS ? 24 : 23, report_kind_name(k));
		fputc(' ', d->to);
		amount(d, d->map->pages[k], d->map->runs[k]);
	}
	fprintf(d->to, "%-26s ", "published");
	amount(d, d->map->end - 1, runs);
}

static void list_classes(const struct drawing *d)
{
	uint32_t listed[LISTED], n = report_map_classes(d->map, listed, LISTED);
	char name[64];

	fprintf(d->to, "\nBlocks of: %u classes in use\n", d->palette.used);
	for (uint32_t i = 0; i < n; i++) {
		struct report_cell cell = {.kind = REPORT_OWNED, .sclass = listed[i], .live = 1, .main_pages = 1};

		sample(d, &cell);
		report_map_class_name(d->map, listed[i], name, sizeof(name));
		fprintf(d->to, " %-*s ", d->paper->ink == CTL_LETTERS ? 24 : 23, name);
		amount(d, d->map->classes[listed[i]].pages, d->map->classes[listed[i]].runs);
	}
}

static void list_owners(const struct drawing *d)
{
	uint32_t ids[LISTED], n = report_map_holders(d->map, ids, LISTED);
	char label[CTL_CELL], name[CTL_CELL + 32];

	fputs("\nHeld by, with pid\n", d->to);
	for (uint32_t i = 0; i < n; i++) {
		struct report_cell cell = {.kind = REPORT_OWNED, .owner = ids[i], .live = 1, .main_pages = 1};
		const struct report_client *client = report_map_client(d->map, ids[i]);

		sample(d, &cell);
		report_clean(client ? client->label : "?", label, sizeof(label));
		if (client)
			snprintf(name, sizeof(name), "%s (%u)", label, client->pid);
		else
			snprintf(name, sizeof(name), ids[i] == REPORT_OWNERS - 1 ? "nobody" : "client %u", ids[i]);
		fprintf(d->to, " %-*s ", d->paper->ink == CTL_LETTERS ? 24 : 23, name);
		amount(d, d->map->owners[ids[i]].pages, d->map->owners[ids[i]].runs);
	}
}

static void list_fragmentation(const struct drawing *d)
{
	const struct report_map *map = d->map;
	uint64_t held = map->pages[REPORT_OWNED] * REPORT_PAGE_BYTES;
	char idle[32], largest[32], inside[32];

	report_human((map->pages[REPORT_FREE] + map->pages[REPORT_RETURNED]) * REPORT_PAGE_BYTES, idle, sizeof(idle));
	report_human(map->largest_free * REPORT_PAGE_BYTES, largest, sizeof(largest));
	report_human(map->held_free_bytes, inside, sizeof(inside));
	fprintf(d->to, "\nFree: %s, longest stretch %s; outside it %.1f %% (external fragmentation)\n", idle, largest,
	        100 * report_map_external(map));
	fprintf(d->to, "Free slots in owned spans: %s, %.1f %% of them (internal)", inside,
	        held ? 100.0 * (double)map->held_free_bytes / (double)held : 0.0);
	report_human(map->central_free_bytes, inside, sizeof(inside));
	fprintf(d->to, "; in central spans: %s\n", inside);
}

void ctl_heapmap_text(
        const struct report_map *map, const struct report_map_look *look, const struct ctl_paper *paper, FILE *to)
{
	struct drawing d = {.map = map, .look = look, .paper = paper, .to = to};
	char heap[CTL_CELL], size[32];

	report_palette_of(map, &d.palette);
	measure(&d);
	report_clean(look->heap, heap, sizeof(heap));
	report_human((uint64_t)d.pages * REPORT_PAGE_BYTES, size, sizeof(size));
	fprintf(to, "Heap %s by %s; a cell is %s\n", heap, report_by_name(look->by), size);
	draw_lines(&d);
	list_kinds(&d);
	if (look->by == REPORT_BY_CLASS)
		list_classes(&d);
	else if (look->by == REPORT_BY_OWNER)
		list_owners(&d);
	list_fragmentation(&d);
	if (paper->ink == CTL_LETTERS && look->by == REPORT_BY_KIND)
		fputs("O and C: at least half of the slots in use; o and c: less\n", to);
}
