#include "client/ctl/top/screen.h"

#include <curses.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <term.h>
#include <unistd.h>
#include <wchar.h>

#include "client/ctl/top/frame.h"
#include "client/ctl/top/keys.h"

#define LINES_LEAST 5
#define COLUMNS_LEAST 24
#define LINES_FOR_BARS 16 /* with fewer the rows have them */
#define BAR_NAME 11
#define BAR_AMOUNT 20
#define ESCAPE_MS 25 /* how long an escape may be the beginning of a key */
#define DETAIL_WIDTH 39
#define NAME_WIDTH 28

enum { PLAIN, GOOD, WARM, BAD, COOL, DIM };

/* ---- the terminal ---- */

const char *top_screen_open(struct top_screen *screen, FILE *out, FILE *in)
{
	const char *none = getenv("NO_COLOR");
	int known, fd = fileno(out);

	if (fd < 0 || !isatty(fd) || !isatty(fileno(in)))
		return "top needs a terminal: use --once or --frames to print what it shows";
	/* the two asked for are those without which a screen cannot be drawn */
	if (setupterm(NULL, fd, &known) != OK || !cursor_address || !clear_screen)
		return "this kind of terminal ($TERM) cannot show a screen: use --once or --frames to print what it "
		       "shows";
	setlocale(LC_CTYPE, "");
	screen->terminal = newterm(NULL, out, in);
	if (!screen->terminal)
		return "the terminal cannot be set up";
	cbreak();
	noecho();
	nonl();
	keypad(stdscr, TRUE);
	nodelay(stdscr, TRUE);
	set_escdelay(ESCAPE_MS);
	curs_set(0);
	if (has_colors() && !(none && *none)) {
		start_color();
		use_default_colors();
		init_pair(GOOD, COLOR_GREEN, -1);
		init_pair(WARM, COLOR_YELLOW, -1);
		init_pair(BAD, COLOR_RED, -1);
		init_pair(COOL, COLOR_CYAN, -1);
		init_pair(DIM, COLOR_BLUE, -1);
	}
	return NULL;
}

void top_screen_close(struct top_screen *screen)
{
	if (!screen->terminal)
		return;
	endwin();
	delscreen(screen->terminal);
	screen->terminal = NULL;
}

void top_screen_resize(void)
{
	struct winsize size;

	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row && size.ws_col)
		resizeterm(size.ws_row, size.ws_col);
	clearok(curscr, TRUE);
}

/* ---- text ---- */

/* Writes `text` into `width` columns, to the right if `right`, and fills the rest with spaces. What is longer is cut. */
static void put(int y, int x, int width, bool right, const char *text)
{
	wchar_t wide[TOP_LINE];
	mbstate_t state = {0};
	int used = 0, n = 0;

	for (size_t left = strlen(text); left && n < (int)TOP_LINE - 1;) {
		wchar_t c;
		size_t bytes = mbrtowc(&c, text, left, &state);

		if (bytes == 0 || bytes > left) { /* not of this locale */
			memset(&state, 0, sizeof(state));
			c = L'?';
			bytes = 1;
		}
		int cells = wcwidth(c) < 0 ? 0 : wcwidth(c);

		if (used + cells > width)
			break;
		if (cells || c)
			wide[n++] = c;
		used += cells;
		text += bytes;
		left -= bytes;
	}
	if (width <= 0 || y >= LINES || x >= COLS)
		return;
	mvhline(y, x, ' ', width < COLS - x ? width : COLS - x);
	mvaddnwstr(y, right ? x + width - used : x, wide, n);
}

static void with(attr_t attributes, short pair)
{
	attr_set(attributes, pair, NULL);
}

/* ---- the head ---- */

static void draw_title(const struct top_screen *screen, const struct top_model *model)
{
	char text[TOP_LINE], every[48];
	int width;

	with(A_BOLD, PLAIN);
	top_title(model, screen->heap, text, sizeof(text));
	put(0, 0, COLS, false, text);
	if (screen->paused)
		snprintf(every, sizeof(every), " paused");
	else
		snprintf(every, sizeof(every), " every %g s", screen->interval_ms / 1000.0);
	width = (int)strlen(every);
	with(screen->paused ? A_REVERSE : A_NORMAL, screen->paused ? WARM : PLAIN);
	if (COLS >= width + (int)strlen(text))
		put(0, COLS - width, width, false, every);
}

static void draw_numbers(const struct top_screen *screen, const struct top_model *model)
{
	char text[TOP_LINE];

	if (screen->away) {
		with(A_REVERSE | A_BOLD, BAD);
		snprintf(text, sizeof(text), "Daemon away, since %s: %s", screen->away_since, screen->away);
	} else {
		with(A_NORMAL, model->stats.pressure || model->stats.damaged ? BAD : PLAIN);
		top_numbers(model, text, sizeof(text));
	}
	put(1, 0, COLS, false, text);
}

static void draw_bars(const struct top_model *model)
{
	static const short pairs[TOP_BARS] = {GOOD, COOL, COOL, WARM, DIM};
	struct top_bar bars[TOP_BARS];
	char amount[64];

	top_bars(model, bars);
	for (int i = 0; i < (int)TOP_BARS; i++) {
		int width = COLS - BAR_NAME - 2 - BAR_AMOUNT, y = 2 + i;
		int full = (int)top_bar_full(&bars[i], (uint32_t)width);

		with(A_NORMAL, PLAIN);
		put(y, 0, BAR_NAME, false, bars[i].name);
		mvaddch(y, BAR_NAME, '[');
		mvhline(y, BAR_NAME + 1, ' ', width);
		mvaddch(y, BAR_NAME + 1 + width, ']');
		top_bar_amount(&bars[i], amount, sizeof(amount));
		put(y, COLS - BAR_AMOUNT, BAR_AMOUNT, true, amount);
		with(A_BOLD, pairs[i]);
		if (full > 0)
			mvhline(y, BAR_NAME + 1, '|', full);
	}
}

/* ---- the list ---- */

static int cell_width(const struct top_column *column, bool last, int x)
{
	return last ? COLS - x : abs(column->width);
}

static void draw_heads(const struct top_model *model, const struct top_column *const chosen[], uint32_t n, int y)
{
	int x = 0;

	with(A_REVERSE, PLAIN);
	mvhline(y, 0, ' ', COLS);
	for (uint32_t i = 0; i < n; i++) {
		int width = cell_width(chosen[i], i == n - 1, x);
		char head[32];
		bool sorts = chosen[i]->sort == model->sort;

		snprintf(head, sizeof(head), "%s%s", chosen[i]->head, sorts ? model->reverse ? "^" : "v" : "");
		with(sorts ? A_REVERSE | A_BOLD : A_REVERSE, PLAIN);
		put(y, x, width, chosen[i]->width > 0, head);
		x += width + 1;
	}
}

static void draw_row(const struct top_column *const chosen[], uint32_t n, const struct top_row *row, int y,
        attr_t attributes, short pair)
{
	char text[TOP_LINE];
	int x = 0;

	with(attributes, pair);
	mvhline(y, 0, ' ', COLS);
	for (uint32_t i = 0; i < n; i++) {
		int width = cell_width(chosen[i], i == n - 1, x);

		chosen[i]->text(row, text, sizeof(text));
		put(y, x, width, chosen[i]->width > 0, text);
		x += width + 1;
	}
}

/* Rows from `y` to above `end`, so that the selected one is among them. */
static void draw_rows(struct top_screen *screen, const struct top_model *model, int y, int end)
{
	const struct top_column *chosen[TOP_COLUMNS];
	uint32_t n = top_columns((uint32_t)COLS, chosen), room = (uint32_t)(end - y - 1);
	int64_t place = top_model_place(model);

	draw_heads(model, chosen, n, y++);
	if (place >= 0 && place < screen->first)
		screen->first = (uint32_t)place;
	if (place >= (int64_t)screen->first + room)
		screen->first = (uint32_t)place - room + 1;
	if (screen->first + room > model->shown.n)
		screen->first = model->shown.n > room ? model->shown.n - room : 0;
	for (uint32_t i = screen->first; i < model->shown.n && y < end; i++, y++) {
		const struct top_row *row = &model->shown.row[i];
		short pair = row->is.evicted ? BAD : row->is.detached ? WARM : PLAIN;
		attr_t attributes = i == place ? A_REVERSE : screen->away ? A_DIM : A_NORMAL;

		draw_row(chosen, n, row, y, attributes, pair);
	}
	with(A_NORMAL, PLAIN);
	if (!model->shown.n)
		put(y, 0, COLS, false,
		        !model->looked ? ""
		        : model->all.n ? "no client passes the filter"
		                       : "no clients");
}

/* ---- details and help ---- */

static void draw_details(const struct top_screen *screen, const struct top_model *model, int y, int end)
{
	const struct top_row *row = top_model_selected(model);
	int first = y, x = 0;
	char value[TOP_LINE];
	const char *name;

	with(A_NORMAL, PLAIN);
	if (!row) {
		snprintf(value, sizeof(value), "client %u is gone", model->selected);
		put(y, 0, COLS, false, value);
		return;
	}
	for (uint32_t i = screen->scroll; (name = top_detail(row, i, value, sizeof(value))); i++) {
		if (y == end) {
			y = first;
			x += DETAIL_WIDTH + 1;
		}
		if (x + DETAIL_WIDTH > COLS && x > 0)
			break;
		with(A_NORMAL, COOL);
		put(y, x, NAME_WIDTH, false, name);
		with(A_BOLD, PLAIN);
		/* a label may be long: it comes first, and may have the line if nothing is beside it */
		put(y, x + NAME_WIDTH, i || x + 2 * DETAIL_WIDTH < COLS ? DETAIL_WIDTH - NAME_WIDTH : COLS - NAME_WIDTH,
		        false, value);
		y++;
	}
}

static void draw_help(const struct top_screen *screen, int y, int end)
{
	with(A_NORMAL, PLAIN);
	for (uint32_t i = screen->scroll; y < end && top_key_help(i); i++)
		put(y++, 0, COLS, false, top_key_help(i));
}

static void draw_foot(const struct top_screen *screen, const struct top_model *model)
{
	char text[TOP_LINE];

	with(screen->typing ? A_BOLD : A_NORMAL, screen->typing ? PLAIN : COOL);
	if (screen->typing)
		snprintf(text, sizeof(text), "filter: %s_", model->filter);
	else if (screen->view != TOP_LIST)
		snprintf(text, sizeof(text), "up/down move, enter back, q quit");
	else
		snprintf(text, sizeof(text),
		        "%s%s%sq quit  ? help  sort: h r i n p, R turns  / filter  space pause  + - interval  enter "
		        "details",
		        model->filter[0] ? "filter '" : "", model->filter, model->filter[0] ? "'  " : "");
	put(LINES - 1, 0, COLS, false, text);
}

void top_screen_draw(struct top_screen *screen, const struct top_model *model)
{
	int y = 2;

	erase();
	if (LINES < LINES_LEAST || COLS < COLUMNS_LEAST) {
		with(A_NORMAL, PLAIN);
		put(0, 0, COLS, false, "terminal too small");
		refresh();
		return;
	}
	draw_title(screen, model);
	draw_numbers(screen, model);
	if (screen->view == TOP_LIST && LINES >= LINES_FOR_BARS && COLS >= 60) {
		draw_bars(model);
		y += (int)TOP_BARS;
	}
	if (screen->view == TOP_LIST)
		draw_rows(screen, model, y, LINES - 1);
	else if (screen->view == TOP_DETAILS)
		draw_details(screen, model, y, LINES - 1);
	else
		draw_help(screen, y, LINES - 1);
	draw_foot(screen, model);
	refresh();
}

bool top_screen_keys(struct top_screen *screen, struct top_model *model)
{
	bool good = true;

	for (int key; good && (key = getch()) != ERR;)
		good = top_key(screen, model, key);
	return good;
}
