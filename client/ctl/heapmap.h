/* The map of a heap in the terminal. */
#ifndef CLIENT_CTL_HEAPMAP_H
#define CLIENT_CTL_HEAPMAP_H

#include "client/ctl/ctl.h"
#include "proto/report/map.h"

enum ctl_ink {
	CTL_LETTERS, /* one for each cell, without colours */
	CTL_256, /* two cells in a character, one above the other */
	CTL_TRUECOLOR
};

struct ctl_paper {
	enum ctl_ink ink;
	uint32_t columns;
};

/* What the stream and the environment ($COLUMNS, $NO_COLOR, $TERM, $COLORTERM, the locale) allow. */
struct ctl_paper ctl_paper_of(FILE *to);

void ctl_heapmap_text(
        const struct report_map *map, const struct report_map_look *look, const struct ctl_paper *paper, FILE *to);

#endif
