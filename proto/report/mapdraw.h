/* What the parts of the picture share. Lengths are units of the SVG. */
#ifndef PROTO_REPORT_MAPDRAW_H
#define PROTO_REPORT_MAPDRAW_H

#include "proto/report/map.h"

#define MAP_WIDTH 1024u /* of the rows of pages */
#define MAP_LEFT 92u /* room for the offsets beside them */
#define MAP_TOP 92u /* room for the title and the scale above them */
#define MAP_SIDE (MAP_LEFT + MAP_WIDTH + 28u) /* where the figures begin ... */
#define MAP_SIDE_WIDTH 396u /* ... and their width */
#define MAP_LISTED 16u /* classes and owners of the legend */
#define MAP_FILLS 8u /* steps of fullness, besides empty */

#define MAP_OTHER 0x6a737du /* what has no colour of its own */
#define MAP_NOBODY 0xb9a77cu /* central spans, by owner */
#define MAP_LARGE 0x8b5a2bu /* large blocks, by class */

uint32_t map_kind_colour(enum report_kind kind, bool dark);
uint32_t map_class_colour(const struct report_palette *palette, uint32_t sclass);
uint32_t map_owner_colour(const struct report_palette *palette, uint32_t owner);

/* Of a span of which the part `full` is in use. */
double map_opacity(double full);

struct map_grid {
	uint32_t row_pages; /* a power of two */
	uint32_t rows, row_height;
	uint32_t arena_rows, gap; /* after so many rows there is a gap; 0: a row has an arena or more */
	uint32_t height;
};

struct map_grid map_grid_of(const struct report_map *map);

/* Where a row begins. */
uint32_t map_row_y(const struct map_grid *grid, uint32_t row);

/* The <style> element. */
void map_style(const struct report_map *map, FILE *to);

/* Figures and legends, at the right, and how far down they reach. */
void map_side(const struct report_map *map, FILE *to);
uint32_t map_side_height(const struct report_map *map);

/* "label (pid 12)", as XML. */
void map_owner_name(const struct report_map *map, uint32_t owner, FILE *to);

#endif
