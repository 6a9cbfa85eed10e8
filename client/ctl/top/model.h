/* What `shmallocctl top` knows: the heap's figures and its clients, with rates, in an order, through a filter.
 *
 * A look is a set of rows and the figures of about the same moment. Rates are differences between two looks. A client is the same
 * one if its id and pid are; if its counters have gone down, a new daemon counts from the start, and there is no rate until the
 * next look.
 *
 * The model knows neither socket nor screen nor clock.
 */
#ifndef CLIENT_CTL_TOP_MODEL_H
#define CLIENT_CTL_TOP_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/wire.h"

#define TOP_FILTER 64u /* bytes of a filter, with the final zero */
#define TOP_NOBODY UINT32_MAX /* no client is selected */

enum top_sort { TOP_HELD, TOP_RATE, TOP_IDLE, TOP_NAME, TOP_PID, TOP_SORTS };

struct top_row {
	struct wire_client_row is;
	bool rated; /* the two rates are known */
	double granted_per_s; /* bytes */
	double requests_per_s;
};

struct top_rows {
	struct top_row *row;
	uint32_t n, room;
};

struct top_model {
	/* settings: top_model_arrange after a change */
	enum top_sort sort;
	bool reverse;
	char filter[TOP_FILTER];
	uint32_t selected; /* a client's id, or TOP_NOBODY */

	/* the last look */
	bool looked;
	int64_t at_ns; /* monotonic */
	struct wire_stats stats;
	bool rated;
	double requests_per_s;
	struct top_rows all, before; /* of this look and the one before, as they came */
	struct top_rows shown; /* filtered and sorted */
};

void top_model_deinit(struct top_model *model);

/* Rows of the look that is being taken. False without memory. */
bool top_rows_add(struct top_rows *rows, const struct wire_client_row *from, uint32_t n);

/* A look is complete: takes the rows over (`rows` is empty afterwards) and keeps the settings. False without memory. */
bool top_model_look(struct top_model *model, const struct wire_stats *stats, struct top_rows *rows, int64_t now_ns);

/* Filters and sorts anew. */
bool top_model_arrange(struct top_model *model);

/* Bytes that are idle with a client: cached, and in free slots of its spans. */
uint64_t top_idle(const struct wire_client_row *row);

/* "attached", "detached", "evicted" */
const char *top_state(const struct wire_client_row *row);

/* What the word of --sort stands for. TOP_SORTS: nothing. */
enum top_sort top_sort_find(const char *name);

/* Moves the selection by so many rows; it begins at the first. */
void top_model_move(struct top_model *model, int64_t by);

/* The place of the selected client among the rows that are shown, -1 if there is none. */
int64_t top_model_place(const struct top_model *model);

/* The selected client, shown or not; NULL if it is gone. */
const struct top_row *top_model_selected(const struct top_model *model);

#endif
