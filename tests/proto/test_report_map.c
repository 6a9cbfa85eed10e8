/* The map of a heap: what is drawn is what the rows say, each page once, however they come and however many there are. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "proto/report/mapdraw.h"
#include "proto/report/xml.h"

TestSuite(report_map, .timeout = 60);

#define NOBODY 0xffffu
#define MOST_ROWS 70000u

static const uint32_t class_bytes[] = {0, 16, 32, 48, 64};

/* Rows as a daemon might send them, from a generator with a seed. */
struct rows {
	struct wire_span_row row[MOST_ROWS];
	uint32_t n, end;
};

static uint32_t roll(uint64_t *state, uint32_t sides)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*state >> 33) % sides;
}

static struct rows *random_rows(uint64_t seed, uint32_t n, uint32_t longest)
{
	struct rows *rows = calloc(1, sizeof(*rows));
	uint64_t state = seed;

	cr_assert_not_null(rows);
	rows->end = 1;
	for (; rows->n < n; rows->n++) {
		struct wire_span_row *row = &rows->row[rows->n];

		*row = (struct wire_span_row){
		        .page = rows->end, .pages = 1 + roll(&state, longest), .state = 1 + roll(&state, 8)};
		row->owner = row->state == 5 || row->state == 6 || row->state == 8 ? roll(&state, 20) : NOBODY;
		if (row->state >= 4) {
			row->sclass = 4 * (1 + roll(&state, 4)) + roll(&state, 4);
			row->slots = 1 + roll(&state, 500);
			row->slots_free = roll(&state, row->slots + 1);
		}
		rows->end += row->pages;
	}
	return rows;
}

static struct report_map *map_of(const struct rows *rows, uint32_t max_cells)
{
	struct report_map *map = report_map_new(
	        &(struct report_map_options){.max_cells = max_cells, .class_bytes = class_bytes, .n_classes = 5});

	cr_assert_not_null(map);
	for (uint32_t i = 0; i < rows->n; i += 100) /* in pieces */
		cr_assert_eq(report_map_spans(map, &rows->row[i], rows->n - i < 100 ? rows->n - i : 100), 0);
	return map;
}

static char *drawn(const struct report_map *map, const struct report_map_look *look,
        void (*draw)(const struct report_map *map, const struct report_map_look *look, FILE *to))
{
	char *text;
	size_t len;
	FILE *to = open_memstream(&text, &len);

	cr_assert_not_null(to);
	draw(map, look, to);
	cr_assert_eq(fclose(to), 0);
	return text;
}

static char *svg_of(const struct report_map *map)
{
	return drawn(map, &(struct report_map_look){.heap = "default"}, report_map_svg);
}

/* ---- from the picture back to pages ---- */

/* Of each page: 1 + the kind of the path that shows it. */
struct seen {
	uint8_t *kind;
	uint32_t end, paths;
};

static void see_rect(struct seen *seen, const struct map_grid *grid, const uint32_t rect[4], unsigned kind)
{
	uint32_t row = 0, rows = rect[3] / grid->row_height;

	while (row < grid->rows && map_row_y(grid, row) != rect[1])
		row++;
	cr_assert_lt(row, grid->rows, "no row is at %u", rect[1]);
	cr_assert_eq(rect[3] % grid->row_height, 0);
	for (uint32_t r = row; r < row + rows; r++) {
		/* a rectangle does not reach over the gap between arenas */
		cr_assert_eq(map_row_y(grid, r), rect[1] + (r - row) * grid->row_height);
		for (uint32_t x = rect[0]; x < rect[0] + rect[2]; x++) {
			uint32_t page = r * grid->row_pages + x;

			cr_assert_lt(x, grid->row_pages);
			cr_assert_lt(page, seen->end, "page %u is beyond the end", page);
			cr_assert_eq(seen->kind[page], 0, "page %u is drawn twice", page);
			seen->kind[page] = (uint8_t)(1 + kind);
		}
	}
}

static struct seen see(const struct report_map *map, const char *svg)
{
	struct map_grid grid = map_grid_of(map);
	struct seen seen = {.kind = calloc(map->end, 1), .end = map->end};
	const char *at = strstr(svg, "<g class=\"cells"), *stop;

	cr_assert(seen.kind && at);
	stop = strstr(at, "</g>");
	while ((at = strstr(at, "<path class=\"k")) && at < stop) {
		unsigned kind;
		uint32_t rect[4];
		int used;

		cr_assert_eq(sscanf(at, "<path class=\"k%u", &kind), 1);
		at = strstr(at, " d=\"") + 4;
		while (sscanf(at, "M%u %uh%uv%uh-%*uz%n", &rect[0], &rect[1], &rect[2], &rect[3], &used) == 4) {
			see_rect(&seen, &grid, rect, kind);
			at += used;
		}
		cr_assert_eq(strncmp(at, "\"><title>page ", 14), 0, "%.60s", at);
		seen.paths++;
	}
	cr_assert_eq(seen.kind[0], 0, "page 0 is no run's");
	for (uint32_t page = 1; page < seen.end; page++)
		cr_assert_neq(seen.kind[page], 0, "page %u is not drawn", page);
	return seen;
}

/* Kinds are the states of spans, less 1. */
static void compare(const struct seen *seen, const struct rows *rows)
{
	for (uint32_t i = 0; i < rows->n; i++)
		for (uint32_t page = rows->row[i].page; page < rows->row[i].page + rows->row[i].pages; page++)
			cr_assert_eq(seen->kind[page], rows->row[i].state, "page %u: %u, not %u", page,
			        seen->kind[page], rows->row[i].state);
}

static void draws_all(uint32_t n, uint32_t longest)
{
	struct rows *rows = random_rows(n, n, longest);
	struct report_map *map = map_of(rows, 0);
	char *svg = svg_of(map);
	struct seen seen = see(map, svg);

	cr_assert_eq(map->end, rows->end);
	cr_assert_eq(seen.paths, rows->n);
	compare(&seen, rows);
	free(seen.kind);
	free(svg);
	report_map_free(map);
	free(rows);
}

Test(report_map, draws_every_page_once)
{
	draws_all(1, 1);
	draws_all(40, 10);
	draws_all(3000, 9); /* two arenas */
	draws_all(5000, 400); /* more than one row has pages of 2 MiB */
	draws_all(30, 40000); /* runs longer than an arena */
	draws_all(100, 1000000); /* an arena and more in a row */
}

Test(report_map, what_is_too_much_is_merged)
{
	struct rows *rows = random_rows(7, 20000, 12);
	struct report_map *all = map_of(rows, 0), *few = map_of(rows, 1000);
	char *svg = svg_of(few), *whole = svg_of(all);
	struct seen seen = see(few, svg);
	uint64_t runs = 0;

	cr_assert_leq(few->n_cells, 1000);
	cr_assert_geq(few->n_cells, 250, "only %u", few->n_cells);
	cr_assert_eq(seen.paths, few->n_cells);
	for (uint32_t i = 0; i < few->n_cells; i++)
		runs += few->cells[i].runs;
	cr_assert_eq(runs, rows->n);
	/* the figures are those of all runs */
	cr_assert_arr_eq(few->pages, all->pages, sizeof(few->pages));
	cr_assert_arr_eq(few->runs, all->runs, sizeof(few->runs));
	cr_assert_eq(few->largest_free, all->largest_free);
	cr_assert_eq(few->held_free_bytes, all->held_free_bytes);
	cr_assert_not_null(strstr(svg, "More than 1000 runs: those within blocks of "));
	cr_assert_null(strstr(whole, "More than"));
	free(seen.kind);
	free(svg);
	free(whole);
	report_map_free(all);
	report_map_free(few);
	free(rows);
}

/* A merged cell is what most of its pages are, of the class and owner of the longest run of these. */
Test(report_map, a_merged_cell_is_what_most_of_it_is)
{
	struct rows rows = {.n = 0, .end = 1};
	struct report_map *map;

	for (uint32_t i = 0; i < 64; i++) {
		uint32_t part = i % 4;

		rows.row[rows.n++] = (struct wire_span_row){.page = rows.end,
		        .pages = part == 3 ? 4 : 1,
		        .state = part == 0 ? 1 : 5,
		        .sclass = 4 * part,
		        .owner = part,
		        .slots = 10,
		        .slots_free = part == 3 ? 5 : 10};
		rows.end += rows.row[rows.n - 1].pages;
		if (i == 0) /* so that blocks begin with a part 0 */
			rows.row[0].pages += 6, rows.end += 6;
	}
	map = map_of(&rows, 17);
	cr_assert_leq(map->n_cells, 17);
	for (uint32_t i = 1; i + 1 < map->n_cells; i++) {
		cr_assert_eq(map->cells[i].kind, REPORT_OWNED);
		cr_assert_eq(map->cells[i].sclass, 12);
		cr_assert_eq(map->cells[i].owner, 3);
		cr_assert_float_eq(map->cells[i].live / (float)map->cells[i].main_pages, 1.0 / 3, 0.2);
	}
	report_map_free(map);
}

Test(report_map, what_changes_meanwhile_is_drawn_once)
{
	/* a gap at the start, one between, a run that has grown to the left, and one that is known already */
	struct rows rows = {.row = {{.page = 3, .pages = 5, .state = 1}, {.page = 10, .pages = 10, .state = 4},
	                            {.page = 15, .pages = 10, .state = 5}, {.page = 16, .pages = 2, .state = 6},
	                            {.page = 25, .pages = 5, .state = 9}},
	        .n = 5};
	struct report_map *map = map_of(&rows, 0);
	char *svg = svg_of(map);
	struct seen seen = see(map, svg);
	static const uint64_t pages[REPORT_KINDS] = {
	        [REPORT_UNKNOWN] = 2 + 2 + 5, [REPORT_FREE] = 5, [REPORT_CENTRAL] = 10, [REPORT_OWNED] = 5};

	cr_assert_eq(map->end, 30);
	cr_assert_arr_eq(map->pages, pages, sizeof(pages));
	cr_assert_not_null(strstr(svg, ">changing<"));
	free(seen.kind);
	free(svg);
	report_map_free(map);
}

Test(report_map, rows_that_no_heap_has)
{
	static const struct wire_span_row bad[] = {{.page = 1, .pages = 0, .state = 1},
	        {.page = 1, .pages = REPORT_MAX_PAGES, .state = 1}, {.page = REPORT_MAX_PAGES, .pages = 1, .state = 1},
	        {.page = UINT32_MAX, .pages = UINT32_MAX, .state = 1},
	        {.page = 1, .pages = 1, .state = 5, .sclass = WIRE_SCLASSES}};
	static const struct wire_span_row odd = {.page = 1,
	        .pages = 2,
	        .state = 5,
	        .sclass = 4095,
	        .owner = UINT32_MAX,
	        .slots = 3,
	        .slots_free = UINT32_MAX};
	struct report_map *map = report_map_new(&(struct report_map_options){0});
	static struct wire_client_row clients[3] = {{.client = 5}, {.client = 6}, {.client = 6}};
	char *svg;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert_eq(report_map_spans(map, &bad[i], 1), -EBADMSG, "row %zu", i);
	cr_assert_eq(report_map_clients(map, clients, 3), -EBADMSG);
	cr_assert_eq(report_map_spans(map, &odd, 1), 0);
	svg = svg_of(map);
	cr_assert_not_null(strstr(svg, "owned, blocks of class 1023 scoped noscan, nobody, 0 of 3 slots in use"));
	free(svg);
	report_map_free(map);
}

Test(report_map, an_empty_heap_is_a_picture_too)
{
	struct report_map *map = report_map_new(&(struct report_map_options){0});
	char *svg = svg_of(map), *html = drawn(map, &(struct report_map_look){.heap = "h"}, report_map_html);

	cr_assert_not_null(strstr(svg, "</svg>"));
	cr_assert_not_null(strstr(html, "Nobody holds anything"));
	cr_assert_null(strstr(svg, "nan"));
	free(svg);
	free(html);
	report_map_free(map);
}

/* ---- figures ---- */

Test(report_map, figures)
{
	struct rows rows = {
	        .row = {{.page = 1, .pages = 30, .state = 1}, {.page = 31, .pages = 30, .state = 2},
	                {.page = 61, .pages = 2, .state = 5, .sclass = 16, .owner = 2, .slots = 256, .slots_free = 100},
	                {.page = 63, .pages = 20, .state = 1},
	                {.page = 83,
	                        .pages = 1,
	                        .state = 4,
	                        .sclass = 5,
	                        .owner = NOBODY,
	                        .slots = 512,
	                        .slots_free = 12},
	                {.page = 84, .pages = 200, .state = 6, .sclass = 400, .owner = 9, .slots = 1}},
	        .n = 6};
	struct report_map *map = map_of(&rows, 0);
	uint32_t ids[4], classes[4];
	char name[64];

	cr_assert_eq(map->largest_free, 60, "free and returned runs side by side are one stretch");
	cr_assert_float_eq(report_map_external(map), 0.25, 1e-9);
	cr_assert_eq(map->held_free_bytes, 6400);
	cr_assert_eq(map->central_free_bytes, 192);
	cr_assert_eq(report_map_holders(map, ids, 4), 2);
	cr_assert(ids[0] == 9 && ids[1] == 2);
	cr_assert_eq(report_map_holders(map, ids, 1), 1);
	cr_assert_eq(ids[0], 9);
	cr_assert_eq(report_map_classes(map, classes, 4), 2);
	cr_assert(classes[0] == 16 && classes[1] == 5);
	report_map_class_name(map, 16, name, sizeof(name));
	cr_assert_str_eq(name, "64 B");
	report_map_class_name(map, 5, name, sizeof(name));
	cr_assert_str_eq(name, "16 B scoped");
	report_map_free(map);
}

/* The largest come first, and which they are does not depend on how many are asked for. */
Test(report_map, holders_by_size)
{
	struct rows *rows = random_rows(11, 3000, 50);
	struct report_map *map = map_of(rows, 0);
	uint32_t all[64], few[5], n = report_map_holders(map, all, 64);

	cr_assert_eq(n, 20);
	for (uint32_t i = 1; i < n; i++)
		cr_assert_geq(map->owners[all[i - 1]].pages, map->owners[all[i]].pages);
	cr_assert_eq(report_map_holders(map, few, 5), 5);
	cr_assert_arr_eq(few, all, sizeof(few));
	report_map_free(map);
	free(rows);
}

/* ---- names ---- */

static char *escaped(const char *text)
{
	char *xml;
	size_t len;
	FILE *to = open_memstream(&xml, &len);

	report_xml(text, to);
	fclose(to);
	return xml;
}

Test(report_map, texts_are_escaped)
{
	static const char *const texts[][2] = {{"plain", "plain"},
	        {"<a href=\"x\">&'", "&lt;a href=&quot;x&quot;&gt;&amp;&#39;"}, {"\x1b[31m\n", "\\x1b[31m\\x0a"},
	        {"gr\xc3\xb6\xc3\x9f"
	         "e \xe6\x9d\xb1",
	                "gr\xc3\xb6\xc3\x9f"
	                "e \xe6\x9d\xb1"},
	        {"a\\b", "a\\\\b"}, {"\xc3", "\\xc3"}, {"\xff\xfe", "\\xff\\xfe"}, {"\xc0\xaf", "\\xc0\\xaf"},
	        {"\xed\xa0\x80", "\\xed\\xa0\\x80"}, {"\xef\xbf\xbf", "\\xef\\xbf\\xbf"},
	        {"\xe2\x80\xae", "\\xe2\\x80\\xae"}, {"\xc2\x85", "\\xc2\\x85"}, {"\x7f", "\\x7f"},
	        {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}, {"\xf0\x9f\x90\xa7", "\xf0\x9f\x90\xa7"}};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		char *xml = escaped(texts[i][0]);

		cr_assert_str_eq(xml, texts[i][1]);
		free(xml);
	}
}

Test(report_map, tooltips_legends_and_holders)
{
	struct rows rows = {
	        .row = {{.page = 1, .pages = 2, .state = 5, .sclass = 17, .owner = 3, .slots = 128, .slots_free = 28},
	                {.page = 3, .pages = 1, .state = 6, .sclass = 400, .owner = 4, .slots = 1}},
	        .n = 2};
	struct wire_client_row client = {.client = 3, .pid = 77, .uid = 1000, .label = "<web> & \x1b"};
	struct report_map *map = map_of(&rows, 0);
	struct report_map_look look = {.heap = "a<b", .time_s = 86399, .by = REPORT_BY_OWNER};
	char *html;

	cr_assert_eq(report_map_clients(map, &client, 1), 0);
	html = drawn(map, &look, report_map_html);
	static const char *const wanted[] = {"<title>page 1, 2 pages (16.0 KiB): owned, blocks of 64 B scoped, "
	                                     "&lt;web&gt; &amp; \\x1b (77), 100 of 128 slots in use"
	                                     "</title>",
	        "<title>page 3, 1 page (8.0 KiB): large, client 4</title>", "1970-01-01 23:59:59 UTC", "Heap a&lt;b",
	        "class=\"report-map by-owner\"",
	        "<td class=\"name\">&lt;web&gt; &amp; \\x1b</td><td>3</td><td>77</td><td>1000</td>",
	        "aria-pressed=\"true\">by owner<", "not attached any more", "class=\"k4 c17 f6 w3\""};

	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		cr_assert_not_null(strstr(html, wanted[i]), "no '%s' in\n%s", wanted[i], html);
	cr_assert_null(strstr(html, "<web>"));
	free(html);
	report_map_free(map);
}

/* ---- colours ---- */

Test(report_map, colours_differ)
{
	struct rows *rows = random_rows(3, 500, 20);
	struct report_map *map = map_of(rows, 0);
	struct report_palette palette;
	uint32_t kind[REPORT_KINDS], owner[REPORT_HUES];

	report_palette_of(map, &palette);
	cr_assert_eq(palette.n_holders, REPORT_HUES);
	for (unsigned k = 0; k < REPORT_KINDS; k++) {
		struct report_cell cell = {.kind = (uint8_t)k, .live = 1, .main_pages = 1};

		kind[k] = report_colour(&palette, REPORT_BY_KIND, &cell);
		for (unsigned j = 0; j < k; j++)
			cr_assert_neq(kind[k], kind[j]);
	}
	for (unsigned i = 0; i < REPORT_HUES; i++) {
		struct report_cell cell = {.kind = REPORT_LARGE, .owner = palette.holders[i], .main_pages = 1};

		owner[i] = report_colour(&palette, REPORT_BY_OWNER, &cell);
		for (unsigned j = 0; j < i; j++)
			cr_assert_neq(owner[i], owner[j]);
	}
	/* a fuller span is further from the ground */
	struct report_cell full = {.kind = REPORT_OWNED, .live = 1, .main_pages = 1},
	                   empty = {.kind = REPORT_OWNED, .main_pages = 1};

	cr_assert_gt(report_colour(&palette, REPORT_BY_KIND, &full) & 0xff,
	        report_colour(&palette, REPORT_BY_KIND, &empty) & 0xff);
	report_map_free(map);
	free(rows);
}
