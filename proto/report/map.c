#include "proto/report/map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What a span's state is in the picture; states are numbers of shm/layout.h. */
static const uint8_t kinds[] = {REPORT_UNKNOWN, REPORT_FREE, REPORT_RETURNED, REPORT_MOVING, REPORT_CENTRAL,
        REPORT_OWNED, REPORT_LARGE, REPORT_QUARANTINED, REPORT_SEIZED};

struct report_map *report_map_new(const struct report_map_options *options)
{
	struct report_map *map = calloc(1, sizeof(*map));

	if (!map)
		return NULL;
	map->options = *options;
	if (!map->options.max_cells)
		map->options.max_cells = REPORT_MAX_CELLS;
	map->block = 1;
	map->end = 1;
	map->owners = calloc(REPORT_OWNERS, sizeof(*map->owners));
	if (map->owners)
		return map;
	free(map);
	return NULL;
}

void report_map_free(struct report_map *map)
{
	if (!map)
		return;
	free(map->cells);
	free(map->owners);
	free(map->clients);
	free(map);
}

/* ---- cells ---- */

static bool has_slots(enum report_kind kind)
{
	return kind == REPORT_CENTRAL || kind == REPORT_OWNED;
}

/* Do both lie in one aligned block? */
static bool one_block(const struct report_map *map, const struct report_cell *first, const struct report_cell *next)
{
	return first->page / map->block == (next->page + next->pages - 1) / map->block;
}

static void merge(struct report_cell *into, const struct report_cell *next)
{
	uint32_t pages = into->pages + next->pages, runs = into->runs + next->runs, page = into->page;

	if (next->kind == into->kind) {
		if (next->run_pages > into->run_pages) {
			into->sclass = next->sclass;
			into->owner = next->owner;
			into->run_pages = next->run_pages;
		}
		into->main_pages += next->main_pages;
		into->live += next->live;
	} else if (next->main_pages > into->main_pages) {
		*into = *next;
	}
	into->page = page;
	into->pages = pages;
	into->runs = runs;
	into->slots = into->slots_free = 0;
}

/* Doubles the blocks until the cells are few. A block has at most one merged cell and the beginning of one that is longer, so
 * this comes to an end. */
static void coarsen(struct report_map *map)
{
	while (map->n_cells >= map->options.max_cells && map->block < REPORT_MAX_PAGES) {
		uint32_t n = 0;

		map->block *= 2;
		for (uint32_t i = 1; i < map->n_cells; i++) {
			if (one_block(map, &map->cells[n], &map->cells[i]))
				merge(&map->cells[n], &map->cells[i]);
			else
				map->cells[++n] = map->cells[i];
		}
		map->n_cells = n + 1;
	}
}

static int append(struct report_map *map, const struct report_cell *cell)
{
	if (map->block > 1 && map->n_cells && one_block(map, &map->cells[map->n_cells - 1], cell)) {
		merge(&map->cells[map->n_cells - 1], cell);
		return 0;
	}
	if (map->n_cells >= map->options.max_cells)
		coarsen(map);
	if (map->n_cells == map->room) {
		uint32_t room = map->room ? 2 * map->room : 256;
		struct report_cell *cells = realloc(map->cells, room * sizeof(*cells));

		if (!cells)
			return -ENOMEM;
		map->cells = cells;
		map->room = room;
	}
	map->cells[map->n_cells++] = *cell;
	return 0;
}

/* ---- rows ---- */

static uint32_t block_bytes(const struct report_map *map, const struct report_cell *cell)
{
	uint32_t class = cell->sclass / WIRE_ATTRS;

	if (map->options.class_bytes && class < map->options.n_classes && map->options.class_bytes[class])
		return map->options.class_bytes[class];
	return (uint32_t)((uint64_t)cell->pages * REPORT_PAGE_BYTES / cell->slots);
}

static void share(struct report_share *of, const struct report_cell *cell)
{
	of->pages += cell->pages;
	of->runs++;
	of->live += (double)cell->live;
}

static void count(struct report_map *map, const struct report_cell *cell)
{
	bool idle = cell->kind == REPORT_FREE || cell->kind == REPORT_RETURNED;

	map->pages[cell->kind] += cell->pages;
	map->runs[cell->kind]++;
	map->stretch = idle ? map->stretch + cell->pages : 0;
	if (map->stretch > map->largest_free)
		map->largest_free = map->stretch;
	if (has_slots(cell->kind)) {
		share(&map->classes[cell->sclass], cell);
		if (cell->slots)
			*(cell->kind == REPORT_OWNED ? &map->held_free_bytes : &map->central_free_bytes) +=
			        (uint64_t)block_bytes(map, cell) * cell->slots_free;
	}
	if (cell->kind == REPORT_OWNED || cell->kind == REPORT_LARGE)
		share(&map->owners[cell->owner], cell);
}

static int add(struct report_map *map, const struct report_cell *cell)
{
	count(map, cell);
	map->end = cell->page + cell->pages;
	return append(map, cell);
}

static int add_gap(struct report_map *map, uint32_t until)
{
	struct report_cell gap = {.page = map->end,
	        .pages = until - map->end,
	        .runs = 1,
	        .kind = REPORT_UNKNOWN,
	        .owner = REPORT_OWNERS - 1};

	gap.main_pages = gap.run_pages = gap.pages;
	return add(map, &gap);
}

static int add_row(struct report_map *map, const struct wire_span_row *row)
{
	uint32_t page = row->page > map->end ? row->page : map->end, end = row->page + row->pages;
	struct report_cell cell = {.page = page,
	        .pages = end - page,
	        .runs = 1,
	        .main_pages = end - page,
	        .run_pages = end - page,
	        .sclass = row->sclass,
	        .owner = row->owner < REPORT_OWNERS ? row->owner : REPORT_OWNERS - 1,
	        .slots = row->slots,
	        .slots_free = row->slots_free < row->slots ? row->slots_free : row->slots,
	        .kind = row->state < sizeof(kinds) ? kinds[row->state] : REPORT_UNKNOWN};
	int error = 0;

	if (end <= map->end) /* known already */
		return 0;
	if (page > map->end)
		error = add_gap(map, page);
	cell.live = (float)cell.pages;
	if (has_slots(cell.kind) && cell.slots)
		cell.live *= (float)(cell.slots - cell.slots_free) / (float)cell.slots;
	return error ? error : add(map, &cell);
}

int report_map_spans(struct report_map *map, const struct wire_span_row *rows, uint32_t n)
{
	int error = 0;

	for (uint32_t i = 0; i < n && !error; i++) {
		const struct wire_span_row *row = &rows[i];

		if (!row->pages || row->page >= REPORT_MAX_PAGES || row->pages > REPORT_MAX_PAGES - row->page ||
		        row->sclass >= WIRE_SCLASSES)
			return -EBADMSG;
		error = add_row(map, row);
	}
	return error;
}

int report_map_clients(struct report_map *map, const struct wire_client_row *rows, uint32_t n)
{
	if (n > map->clients_room - map->n_clients) {
		uint32_t room = map->n_clients + n + WIRE_ROWS;
		struct report_client *clients;

		if (room > 2 * REPORT_OWNERS) /* more than there are ids */
			return -EBADMSG;
		clients = realloc(map->clients, room * sizeof(*clients));
		if (!clients)
			return -ENOMEM;
		map->clients = clients;
		map->clients_room = room;
	}
	for (uint32_t i = 0; i < n; i++) {
		struct report_client *client = &map->clients[map->n_clients];

		if (map->n_clients && rows[i].client <= client[-1].client)
			return -EBADMSG;
		*client = (struct report_client){.client = rows[i].client, .pid = rows[i].pid, .uid = rows[i].uid};
		memcpy(client->label, rows[i].label, sizeof(client->label));
		map->n_clients++;
	}
	return 0;
}
