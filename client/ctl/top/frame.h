/* The words of `shmallocctl top`: its lines, bars and columns as text, for the screen and for --frames. */
#ifndef CLIENT_CTL_TOP_FRAME_H
#define CLIENT_CTL_TOP_FRAME_H

#include <stddef.h>
#include <stdio.h>

#include "client/ctl/top/model.h"

#define TOP_LINE 1024u /* bytes of a line: a label, all of it escaped, and more */
#define TOP_BARS 5u
#define TOP_COLUMNS 11u

/* "Heap default, up 1:02:03" */
void top_title(const struct top_model *model, const char *heap, char *to, size_t room);

/* "3 clients, 8 threads, 4 connections; 123 requests/s; memory is not short" */
void top_numbers(const struct top_model *model, char *to, size_t room);

/* Where the bytes are, each a part of `whole`, which is what is published. */
struct top_bar {
	const char *name;
	uint64_t bytes, whole;
};
void top_bars(const struct top_model *model, struct top_bar bars[TOP_BARS]);

/* How many of `width` columns are full: all, if the part is said to be more than the whole. */
uint32_t top_bar_full(const struct top_bar *bar, uint32_t width);

/* " 12.3 MiB  34.1 %" */
void top_bar_amount(const struct top_bar *bar, char *to, size_t room);

struct top_column {
	const char *head;
	int width; /* negative: to the left */
	unsigned rank; /* where there is not room for all, those of the highest rank go first; 0 stays */
	enum top_sort sort; /* what sorts by it, or TOP_SORTS */
	void (*text)(const struct top_row *row, char *to, size_t room);
};

/* Those that have room beside each other, with a space between them. Returns how many. The last has what is left of the width. */
uint32_t top_columns(uint32_t width, const struct top_column *chosen[TOP_COLUMNS]);

/* All that is known of a client, as pairs of name and value; NULL beyond the last. */
const char *top_detail(const struct top_row *row, uint32_t index, char *to, size_t room);

/* "12 s", "3:04", "1:02:03", "5 d 03 h" */
void top_duration(uint64_t seconds, char *to, size_t room);

/* A look as plain text, `width` columns wide. */
void top_print(const struct top_model *model, const char *heap, uint32_t width, FILE *to);

#endif
