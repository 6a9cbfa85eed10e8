#include "client/ctl/top/keys.h"

#include <curses.h>
#include <string.h>

#define PAGE 10 /* rows that a page key moves */
#define ESCAPE 27
#define RUBOUT 127

static const char *const help[] = {
        "  h        sort by what is held",
        "  r        sort by rate: bytes granted per second",
        "  i        sort by what is idle: cached, and in free slots",
        "  n        sort by name (label)",
        "  p        sort by pid",
        "  R        the other way round",
        "  /        filter: part of a label or of a pid; enter takes it, escape drops it",
        "  space    pause, and go on",
        "  + -      look less or more often",
        "  up down  select a client; also page up, page down, home, end",
        "  enter    all that is known of it",
        "  escape   drop filter and selection",
        "  ?        this text",
        "  q        quit",
};

const char *top_key_help(uint32_t index)
{
	return index < sizeof(help) / sizeof(help[0]) ? help[index] : NULL;
}

/* ---- the filter ---- */

static bool type(struct top_screen *screen, struct top_model *model, int key)
{
	size_t len = strlen(model->filter);

	if (key == '\r' || key == '\n' || key == KEY_ENTER) {
		screen->typing = false;
		return true;
	}
	if (key == ESCAPE) {
		screen->typing = false;
		model->filter[0] = 0;
	} else if (key == KEY_BACKSPACE || key == RUBOUT || key == '\b') {
		while (len && (model->filter[--len] & 0xc0) == 0x80) /* a whole character of UTF-8 */
			;
		model->filter[len] = 0;
	} else if (key >= ' ' && key < 256 && len + 1 < TOP_FILTER) {
		model->filter[len] = (char)key;
		model->filter[len + 1] = 0;
	}
	return top_model_arrange(model);
}

/* ---- the list ---- */

static uint32_t next_interval(uint32_t ms, bool longer)
{
	static const uint32_t steps[] = {TOP_INTERVAL_LEAST_MS, 250, 500, 1000, 2000, 5000, 10000, 30000, 60000, 300000,
	        900000, TOP_INTERVAL_MOST_MS};
	uint32_t last = sizeof(steps) / sizeof(steps[0]) - 1;

	if (longer) {
		for (uint32_t i = 0; i <= last; i++)
			if (steps[i] > ms)
				return steps[i];
		return steps[last];
	}
	for (uint32_t i = last + 1; i-- > 0;)
		if (steps[i] < ms)
			return steps[i];
	return steps[0];
}

static bool sort_by(struct top_model *model, int key)
{
	static const char keys[TOP_SORTS + 1] = "hrinp"; /* in the order of enum top_sort */
	const char *found = key > 0 && key < 128 ? strchr(keys, key) : NULL;

	if (key == 'R')
		model->reverse = !model->reverse;
	else if (found)
		model->sort = (enum top_sort)(found - keys);
	else
		return true;
	return top_model_arrange(model);
}

static bool moved(struct top_model *model, int key)
{
	static const struct {
		int key;
		int64_t by;
	} moves[] = {{KEY_UP, -1}, {KEY_DOWN, 1}, {KEY_PPAGE, -PAGE}, {KEY_NPAGE, PAGE}, {KEY_HOME, INT32_MIN},
	        {KEY_END, INT32_MAX}};

	for (size_t i = 0; i < sizeof(moves) / sizeof(moves[0]); i++)
		if (moves[i].key == key) {
			top_model_move(model, moves[i].by);
			return true;
		}
	return false;
}

static bool list_key(struct top_screen *screen, struct top_model *model, int key)
{
	if (moved(model, key))
		return true;
	switch (key) {
	case '/':
		screen->typing = true;
		return true;
	case ' ':
		screen->paused = !screen->paused;
		return true;
	case '+':
	case '=':
	case '-':
		screen->interval_ms = next_interval(screen->interval_ms, key != '-');
		return true;
	case '\r':
	case '\n':
	case KEY_ENTER:
		if (top_model_place(model) < 0)
			top_model_move(model, 0);
		screen->view = top_model_place(model) < 0 ? TOP_LIST : TOP_DETAILS;
		screen->scroll = 0;
		return true;
	case ESCAPE:
		model->selected = TOP_NOBODY;
		model->filter[0] = 0;
		return top_model_arrange(model);
	default:
		return sort_by(model, key);
	}
}

/* ---- details and help ---- */

static void view_key(struct top_screen *screen, int key)
{
	if (key == KEY_DOWN && screen->scroll < 1000)
		screen->scroll++;
	else if (key == KEY_UP && screen->scroll)
		screen->scroll--;
	else if (key == '\r' || key == '\n' || key == KEY_ENTER || key == ESCAPE)
		screen->view = TOP_LIST;
}

bool top_key(struct top_screen *screen, struct top_model *model, int key)
{
	if (key == KEY_RESIZE)
		return true;
	if (screen->typing)
		return type(screen, model, key);
	if (key == 'q') {
		screen->leave = true;
	} else if (key == '?') {
		screen->view = screen->view == TOP_HELP ? TOP_LIST : TOP_HELP;
		screen->scroll = 0;
	} else if (screen->view != TOP_LIST) {
		view_key(screen, key);
	} else {
		return list_key(screen, model, key);
	}
	return true;
}
