/* A picture of a heap: every page of the published part, by what it is.
 *
 * It is made from the rows of WIRE_Q_SPANS, in the order of their pages, and from those of WIRE_Q_CLIENTS for names; the rows
 * may come in pieces, and those of clients before or after the others:
 *
 *	struct report_map *map = report_map_new(&(struct report_map_options){0});
 *
 *	report_map_spans(map, rows, n);		... for each page of rows
 *	report_map_clients(map, rows, n);
 *	report_map_svg(map, &(struct report_map_look){.heap = name}, file);
 *	report_map_free(map);
 *
 * The heap goes on while rows are fetched. A run that begins before the end of the last one has grown meanwhile: what is new of
 * it counts. Pages between two runs changed hands just then, and are of the kind REPORT_UNKNOWN. So each page from 1 to the end of
 * the last run is in exactly one cell, and the figures add up.
 *
 * A cell is a run. When there would be more than `max_cells`, neighbours are merged: those that lie within one aligned block of 2,
 * 4, 8 ... pages become one cell, which is of the kind that most of its pages have. The figures stay exact. So memory and
 * output are bounded, however large the heap and whatever the rows say.
 */
#ifndef PROTO_REPORT_MAP_H
#define PROTO_REPORT_MAP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "proto/wire.h"

#define REPORT_PAGE_BYTES 8192u
#define REPORT_ARENA_PAGES 8192u /* 64 MiB */
#define REPORT_MAX_PAGES (1u << 28) /* 2 TiB: no heap has more */
#define REPORT_MAX_CELLS 60000u /* about 12 MB of SVG, and still quick in a browser */
#define REPORT_OWNERS 65536u /* owners have 16 bits of a span's state word */

/* In the order of the states of spans, from which they follow; the numbers are of the picture alone. */
enum report_kind {
	REPORT_FREE, /* with memory */
	REPORT_RETURNED, /* free, without memory */
	REPORT_MOVING,
	REPORT_CENTRAL,
	REPORT_OWNED,
	REPORT_LARGE,
	REPORT_QUARANTINED,
	REPORT_SEIZED,
	REPORT_UNKNOWN, /* changed while the rows were fetched */
	REPORT_KINDS
};

enum report_by { REPORT_BY_KIND, REPORT_BY_CLASS, REPORT_BY_OWNER, REPORT_BYS };

struct report_cell {
	uint32_t page, pages;
	uint32_t runs; /* 1: a run, and the rest is its own */
	uint32_t main_pages; /* pages of `kind` */
	uint32_t sclass, owner; /* of the longest run of `kind`, whose pages are `run_pages` */
	uint32_t run_pages;
	uint32_t slots, slots_free; /* of a run alone */
	float live; /* pages' worth of slots that are not free, of spans of `kind` */
	uint8_t kind;
};

struct report_client {
	uint32_t client, pid, uid;
	char label[WIRE_NAME];
};

struct report_share { /* of a span class, or of an owner */
	uint64_t pages, runs;
	double live; /* pages' worth */
};

struct report_map_options {
	uint32_t max_cells; /* 0: REPORT_MAX_CELLS */
	const uint32_t *
	        class_bytes; /* block sizes by size class (span class / WIRE_ATTRS), or NULL; it must outlive the map */
	uint32_t n_classes;
};

/* Read only, but for map.c. */
struct report_map {
	struct report_map_options options;
	struct report_cell *cells;
	uint32_t n_cells, room;
	uint32_t block; /* pages of an aligned block whose runs are merged; 1: none are */
	uint32_t end; /* one past the last page */
	uint64_t pages[REPORT_KINDS], runs[REPORT_KINDS];
	uint64_t stretch,
	        largest_free; /* pages of neighbours that are free or returned: the last one so far, the longest */
	uint64_t held_free_bytes, central_free_bytes; /* in free slots */
	struct report_share classes[WIRE_SCLASSES]; /* small ones */
	struct report_share *owners; /* REPORT_OWNERS of them: owned and large */
	struct report_client *clients; /* by rising id */
	uint32_t n_clients, clients_room;
};

/* NULL without memory. */
struct report_map *report_map_new(const struct report_map_options *options);
void report_map_free(struct report_map *map);

/* 0, -ENOMEM, or -EBADMSG for rows that no heap has. */
int report_map_spans(struct report_map *map, const struct wire_span_row *rows, uint32_t n);
int report_map_clients(struct report_map *map, const struct wire_client_row *rows, uint32_t n);

/* ---- figures ---- */

const char *report_kind_name(enum report_kind kind);
const char *report_by_name(enum report_by by);
const struct report_client *report_map_client(const struct report_map *map, uint32_t id); /* NULL: not known */

/* Part of the free pages that lie outside the longest stretch of them: 0 is one stretch, near 1 is many small ones. */
double report_map_external(const struct report_map *map);

/* The owners that hold most, the largest first. Returns how many there are, at most `most`. */
uint32_t report_map_holders(const struct report_map *map, uint32_t *ids, uint32_t most);

/* The small span classes that have most pages, the largest first. */
uint32_t report_map_classes(const struct report_map *map, uint32_t *sclasses, uint32_t most);

/* "64 B scoped"; "class 5 scoped" if sizes are not known. */
void report_map_class_name(const struct report_map *map, uint32_t sclass, char *to, size_t room);

/* ---- colours ---- */

#define REPORT_HUES 8u /* owners that have a colour of their own: those that hold most */

struct report_palette {
	uint32_t used; /* span classes in use */
	uint16_t rank[WIRE_SCLASSES]; /* from 1 by rising number, which is by rising size; 0: not in use */
	uint32_t n_holders, holders[REPORT_HUES];
};

void report_palette_of(const struct report_map *map, struct report_palette *palette);

/* 0xrrggbb, for a dark ground. */
uint32_t report_colour(const struct report_palette *palette, enum report_by by, const struct report_cell *cell);

/* ---- drawings ---- */

struct report_map_look {
	const char *heap; /* its name: any bytes */
	int64_t time_s; /* since 1970; 0: the picture does not say when it was made */
	enum report_by by; /* the colours that it begins with */
};

/* One <svg> element, without an XML declaration, so that it can also be put into a page. It needs no script. The colours follow
 * from the class of the root element, "report-map by-kind" or by-class or by-owner: whoever changes it changes the colours. */
void report_map_svg(const struct report_map *map, const struct report_map_look *look, FILE *to);

/* A whole page with the picture, which can be zoomed, dragged and coloured anew. */
void report_map_html(const struct report_map *map, const struct report_map_look *look, FILE *to);

#endif
