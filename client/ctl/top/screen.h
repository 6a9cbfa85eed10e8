/* The screen of `shmallocctl top`: draws a model, and turns keys into changes of it. Curses is known here only. */
#ifndef CLIENT_CTL_TOP_SCREEN_H
#define CLIENT_CTL_TOP_SCREEN_H

#include <stdio.h>

#include "client/ctl/top/model.h"

enum top_view { TOP_LIST, TOP_DETAILS, TOP_HELP };

/* What is shown besides the model; the loop has what begins with a * in its hands as well. */
struct top_screen {
	void *terminal; /* curses' */
	enum top_view view;
	bool typing; /* the filter */
	bool paused; /* * */
	bool leave; /* * q was pressed */
	uint32_t interval_ms; /* * */
	uint32_t first; /* the row at the top of the list */
	uint32_t scroll; /* the line at the top of details and help */
	const char *heap;
	const char *away; /* * why the daemon is away; NULL: it is there */
	char away_since[16]; /* * "17:04:59" */
};

/* Takes the terminal. Returns NULL, or what is wrong with it. */
const char *top_screen_open(struct top_screen *screen, FILE *out, FILE *in);

/* Gives it back as it was; may be called twice. */
void top_screen_close(struct top_screen *screen);

/* The terminal has changed its size. */
void top_screen_resize(void);

void top_screen_draw(struct top_screen *screen, const struct top_model *model);

/* Takes all keys that were pressed. False without memory. */
bool top_screen_keys(struct top_screen *screen, struct top_model *model);

#endif
