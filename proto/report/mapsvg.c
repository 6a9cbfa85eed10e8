/* The picture as SVG: rows of pages, arena below arena, with the figures at the right.
 *
 * A cell is one path of up to three rectangles and a title, which browsers show as a tooltip. Its classes are the numbers of what
 * it is: k kind, c span class, w owner, f how full; the colours of these are in the style sheet (mapstyle.c).
 */
#include <time.h>

#include "proto/report/mapdraw.h"
#include "proto/report/report.h"
#include "proto/report/xml.h"

#define ROW_PAGES_LEAST 256u /* 2 MiB */
#define ROWS_MOST 256u
#define HEIGHT_AIM 768u /* of all rows together; a row has ROW_LEAST to ROW_MOST */
#define ROW_LEAST 4u
#define ROW_MOST 24u
#define LABEL_APART 72u /* offsets at the left: at least so far from each other */
#define NEAR_WIDTH 3u /* a page so wide, and a row so high, have room for lines between spans */
#define NEAR_HEIGHT 8u

/* ---- geometry ---- */

struct map_grid map_grid_of(const struct report_map *map)
{
	struct map_grid grid = {.row_pages = ROW_PAGES_LEAST};

	while (map->end > (uint64_t)grid.row_pages * ROWS_MOST)
		grid.row_pages *= 2;
	grid.rows = (uint32_t)(((uint64_t)map->end + grid.row_pages - 1) / grid.row_pages);
	grid.row_height = HEIGHT_AIM / grid.rows;
	if (grid.row_height < ROW_LEAST)
		grid.row_height = ROW_LEAST;
	if (grid.row_height > ROW_MOST)
		grid.row_height = ROW_MOST;
	if (grid.row_pages < REPORT_ARENA_PAGES) {
		grid.arena_rows = REPORT_ARENA_PAGES / grid.row_pages;
		grid.gap = grid.arena_rows * grid.row_height / 8;
		grid.gap = grid.gap < 1 ? 1 : grid.gap > 6 ? 6 : grid.gap;
	}
	grid.height = map_row_y(&grid, grid.rows - 1) + grid.row_height;
	return grid;
}

uint32_t map_row_y(const struct map_grid *grid, uint32_t row)
{
	return row * grid->row_height + (grid->arena_rows ? row / grid->arena_rows * grid->gap : 0);
}

/* ---- cells ---- */

static void draw_shape(const struct map_grid *grid, uint32_t page, uint32_t end, FILE *to)
{
	while (page < end) {
		uint32_t row = page / grid->row_pages, x = page % grid->row_pages, rows = 1, left = end - page;
		uint32_t width = left < grid->row_pages - x ? left : grid->row_pages - x;

		if (x == 0 && left > grid->row_pages) {
			rows = left / grid->row_pages;
			if (grid->arena_rows && rows > grid->arena_rows - row % grid->arena_rows)
				rows = grid->arena_rows - row % grid->arena_rows;
		}
		fprintf(to, "M%u %uh%uv%uh-%uz", x, map_row_y(grid, row), width, rows * grid->row_height, width);
		page += width * rows;
	}
}

static void draw_classes(const struct report_cell *cell, FILE *to)
{
	bool slots = cell->kind == REPORT_OWNED || cell->kind == REPORT_CENTRAL;

	fprintf(to, "k%u", cell->kind);
	if (slots)
		fprintf(to, " c%u f%u", cell->sclass,
		        (unsigned)(cell->live / (float)cell->main_pages * (float)MAP_FILLS + 0.5F));
	if (cell->kind == REPORT_OWNED || cell->kind == REPORT_LARGE)
		fprintf(to, " w%u", cell->owner);
}

static void describe(const struct report_map *map, const struct report_cell *cell, FILE *to)
{
	char size[32], class[64];

	report_human((uint64_t)cell->pages * REPORT_PAGE_BYTES, size, sizeof(size));
	fprintf(to, "page %u, %u page%s (%s): ", cell->page, cell->pages, cell->pages == 1 ? "" : "s", size);
	if (cell->runs > 1)
		fprintf(to, "%u runs, most of it ", cell->runs);
	fputs(report_kind_name(cell->kind), to);
	if (cell->kind == REPORT_OWNED || cell->kind == REPORT_CENTRAL) {
		report_map_class_name(map, cell->sclass, class, sizeof(class));
		fprintf(to, ", blocks of %s", class);
	}
	if (cell->kind == REPORT_OWNED || cell->kind == REPORT_LARGE || cell->kind == REPORT_SEIZED) {
		fputs(", ", to);
		map_owner_name(map, cell->owner, to);
	}
	if (cell->slots && cell->kind != REPORT_LARGE)
		fprintf(to, ", %u of %u slots in use", cell->slots - cell->slots_free, cell->slots);
}

static void draw_cells(const struct report_map *map, const struct map_grid *grid, FILE *to)
{
	/* at which magnification the lines appear */
	double unit = (double)MAP_WIDTH / grid->row_pages, wide = NEAR_WIDTH / unit,
	       high = (double)NEAR_HEIGHT / grid->row_height;
	double near = wide > high ? wide : high;

	fprintf(to, "<g class=\"cells%s\" data-near=\"%.10g\" transform=\"scale(%.10g 1)\">\n",
	        near <= 1 ? " near" : "", near, unit);
	for (uint32_t i = 0; i < map->n_cells; i++) {
		const struct report_cell *cell = &map->cells[i];

		fputs("<path class=\"", to);
		draw_classes(cell, to);
		fputs("\" d=\"", to);
		draw_shape(grid, cell->page, cell->page + cell->pages, to);
		fputs("\"><title>", to);
		describe(map, cell, to);
		fputs("</title></path>\n", to);
	}
	fputs("</g>\n", to);
}

/* ---- scales ---- */

/* "64 MiB", "1.25 MiB" */
static void print_offset(uint64_t bytes, FILE *to)
{
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
	double n = (double)bytes / 1024;
	unsigned unit = 0;

	for (; unit < 3 && n >= 1024; unit++)
		n /= 1024;
	fprintf(to, "%.6g", n);
	if (bytes)
		fprintf(to, " %s", units[unit]);
}

/* Offsets at the left: a power of two of rows apart, so that arenas have theirs. */
static void draw_offsets(const struct map_grid *grid, FILE *to)
{
	uint32_t step = 1;

	while (step * grid->row_height < LABEL_APART)
		step *= 2;
	for (uint32_t row = 0; row < grid->rows; row += step) {
		fprintf(to, "<text x=\"-10\" y=\"%u\" class=\"mute small end\">", map_row_y(grid, row) + 11);
		print_offset((uint64_t)row * grid->row_pages * REPORT_PAGE_BYTES, to);
		fputs("</text>\n", to);
	}
}

static void draw_ticks(const struct map_grid *grid, FILE *to)
{
	for (unsigned i = 0; i <= 8; i++) {
		fprintf(to, "<path class=\"line\" d=\"M%u -6v6\"/><text x=\"%u\" y=\"-10\" class=\"mute small %s\">+",
		        i * MAP_WIDTH / 8, i * MAP_WIDTH / 8, i < 8 ? "mid" : "end");
		print_offset((uint64_t)i * grid->row_pages / 8 * REPORT_PAGE_BYTES, to);
		fputs("</text>\n", to);
	}
}

static void draw_title(
        const struct report_map *map, const struct report_map_look *look, const struct map_grid *grid, FILE *to)
{
	char when[40] = "", size[32];
	time_t time = (time_t)look->time_s;
	struct tm tm;

	if (look->time_s && gmtime_r(&time, &tm))
		strftime(when, sizeof(when), ", %Y-%m-%d %H:%M:%S UTC", &tm);
	report_human((uint64_t)(map->end - 1) * REPORT_PAGE_BYTES, size, sizeof(size));
	fprintf(to, "<text x=\"%u\" y=\"30\" class=\"title\">Heap ", MAP_LEFT);
	report_xml(look->heap, to);
	fprintf(to, "</text><text x=\"%u\" y=\"54\" class=\"mute\">%s published%s. A row is ", MAP_LEFT, size, when);
	print_offset((uint64_t)grid->row_pages * REPORT_PAGE_BYTES, to);
	fputs(", a page 8 KiB, a block of rows an arena of 64 MiB. ", to);
	if (map->block > 1)
		fprintf(to, "More than %u runs: those within blocks of %u pages are one.", map->options.max_cells,
		        map->block);
	fputs("</text>\n", to);
}

void report_map_svg(const struct report_map *map, const struct report_map_look *look, FILE *to)
{
	struct map_grid grid = map_grid_of(map);
	uint32_t side = map_side_height(map),
	         height = MAP_TOP + (grid.height > side - MAP_TOP ? grid.height : side - MAP_TOP) + 24;
	uint32_t width = MAP_SIDE + MAP_SIDE_WIDTH + 24;

	fprintf(to,
	        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"report-map by-%s\" viewBox=\"0 0 %u %u\" "
	        "width=\"%u\" height=\"%u\" "
	        "role=\"img\">\n<title>Map of the heap ",
	        report_by_name(look->by), width, height, width, height);
	report_xml(look->heap, to);
	fputs("</title>\n", to);
	map_style(map, to);
	fprintf(to, "<rect class=\"bg\" width=\"%u\" height=\"%u\"/>\n", width, height);
	draw_title(map, look, &grid, to);
	/* what is zoomed */
	fprintf(to, "<svg class=\"view\" x=\"0\" y=\"%u\" width=\"%u\" height=\"%u\" viewBox=\"-%u -28 %u %u\">\n",
	        MAP_TOP - 28, MAP_SIDE - 14, grid.height + 32, MAP_LEFT, MAP_SIDE - 14, grid.height + 32);
	draw_ticks(&grid, to);
	draw_offsets(&grid, to);
	draw_cells(map, &grid, to);
	fputs("</svg>\n", to);
	map_side(map, to);
	fputs("</svg>\n", to);
}
