/* shmallocctl reads what a daemon says, whatever that is: it prints lines that a terminal can bear, JSON that is JSON, samples that
 * are samples and pictures that are whole, says what is wrong, and ends.
 *
 * An input is what is done (one byte): a command of --help with options, a screen of `top`, or a map of the heap in colours. What
 * follows are its choices, and the answers of the daemon, where they are asked for: those that begin with a byte of 128 and more are
 * made (answers.h); else length (two bytes), how (one byte), bytes. Most of those get the number that is waited for, if they are
 * legal messages. The channel is a false one, and so are the processes that --kill opens.
 */
#include <curses.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/ctl/heapmap.h"
#include "client/ctl/top/feed.h"
#include "client/ctl/top/keys.h"
#include "proto/chan.h"
#include "proto/codec.h"
#include "shm/layout.h"
#include "shm/sizeclass.h"
#include "tests/fuzz/answers.h"
#include "tests/fuzz/printed.h"

#define COMMANDS 24u
#define ANSWERS 64u /* after which the daemon hangs up */
#define ARGS 24
#define ARG_BYTES 128u
#define STEPS 64u /* of a screen, pages of a map */
#define TICK_NS 200000000 /* more than top's interval here, so that nobody waits */

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len);

static struct {
	struct input in;
	struct wire_msg request, reply;
	struct codec_scratch scratch;
	int64_t now;
	uint32_t answers;
	int refusal; /* of a connection: an errno, or 0 */
	bool mute; /* not even HELLO is answered as it should be */
} s;

/* ---- the channel ---- */

/* A socket whose other end is closed: it can be read from, and its peer is this process. */
int shmi_chan_connect(const char *path, int *sock)
{
	int pair[2];

	(void)path;
	if (s.refusal)
		return -s.refusal;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
		abort();
	close(pair[1]);
	*sock = pair[0];
	return 0;
}

int shmi_chan_send(int sock, const void *bytes, size_t len, const int *fds, unsigned n_fds)
{
	(void)sock;
	(void)fds;
	(void)n_fds;
	if (shmi_codec_decode(&s.request, &s.scratch, bytes, len))
		abort(); /* it asks in a language that nobody knows */
	return 0;
}

int64_t shmi_chan_now_ns(void)
{
	return s.now += TICK_NS;
}

int shmi_chan_wait(int sock, int write, int64_t deadline_ns)
{
	(void)sock;
	(void)write;
	(void)deadline_ns;
	return s.request.kind == WIRE_HELLO || s.in.left ? 0 : -ETIMEDOUT;
}

static size_t encoded(unsigned char *bytes, size_t room)
{
	size_t len = 0;

	return shmi_codec_encode(&s.reply, &s.scratch, bytes, room, &len) ? 0 : len;
}

static size_t hello(unsigned char *bytes, size_t room)
{
	s.reply = (struct wire_msg){.kind = WIRE_HELLO_OK,
	        .serial = s.request.serial,
	        .u.hello = {.protocol = WIRE_PROTOCOL, .layout_hash = shmi_layout_hash(), .label = "shmallocd"}};
	return encoded(bytes, room);
}

int shmi_chan_recv(int sock, void *bytes, size_t room, size_t *len, int *fds, unsigned *n_fds)
{
	(void)sock;
	(void)fds;
	(void)n_fds;
	*len = 0;
	if (s.request.kind == WIRE_HELLO && !s.mute) {
		*len = hello(bytes, room);
		return 0;
	}
	if (!s.in.left || s.answers++ == ANSWERS)
		return CHAN_E_CLOSED;
	if (*s.in.at >= 128) {
		(void)input_byte(&s.in);
		answer_make(&s.reply, &s.request, &s.in);
		*len = encoded(bytes, room);
		return *len ? 0 : CHAN_E_CLOSED;
	}
	size_t most = input_word(&s.in);
	uint32_t how = input_byte(&s.in);
	const unsigned char *answer = input_bytes(&s.in, most < room ? most : room, len);

	memcpy(bytes, answer, *len);
	if (how > 250)
		return how == 255 ? CHAN_E_TOO_LONG : how == 254 ? CHAN_E_CLOSED : CHAN_E_AGAIN;
	if (how < 240 && !shmi_codec_decode(&s.reply, &s.scratch, answer, *len)) {
		s.reply.serial = s.request.serial;
		if (shmi_codec_encode(&s.reply, &s.scratch, bytes, room, len))
			abort();
	}
	return 0;
}

/* ---- the processes: a daemon may name any pid, and none is opened, still less killed ---- */

int pidfd_open(pid_t pid, unsigned flags)
{
	(void)flags;
	if (pid & 1)
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	errno = ESRCH;
	return -1;
}

int pidfd_send_signal(int pidfd, int signo, siginfo_t *info, unsigned flags)
{
	(void)pidfd;
	(void)signo;
	(void)info;
	(void)flags;
	errno = s.in.left & 1 ? EPERM : ESRCH;
	return -1;
}

/* ---- the commands, as --help lists them ---- */

/* What can be on a command line. A flag has no words; of the words one is chosen, or the option is not given; `always` is. */
static const struct option {
	const char *name;
	const char *words[14];
	bool always;
} options[] = {
        {"bytes", {NULL}, false},
        {"all", {NULL}, false},
        {"wide", {NULL}, false},
        {"kill", {NULL}, false},
        {"reverse", {NULL}, false},
        {"image", {NULL}, false},
        {"format", {"json", "prometheus", "svg", "html", "text"}, false},
        {"by", {"kind", "class", "owner", "size"}, false},
        {"output", {"/dev/null", "/dev/full", "-", "/"}, false},
        {"sort",
                {"held", "rate", "idle", "name", "pid", "-label", "held_bytes", "state", "-cgroup", "idle_bytes",
                        "-sclass", "bytes", "uid"},
                false},
        {"heap", {"hea\xcc\x88p", "\xff\x1b[2J\xc2\x9b\xe2\x80\xae", "<&>\\"}, false},
        {"timeout", {"1", "0"}, false},
        {"interval", {"0.1"}, true},
        {"frames", {"1", "2", "4", "0"}, true},
};

#define OPTIONS (sizeof(options) / sizeof(options[0]))

static struct command {
	char name[32];
	bool has[OPTIONS];
	char formats[64]; /* with '|' between and around them */
} commands[COMMANDS];
static uint32_t n_commands;

static char *help_of(char *name)
{
	char *argv[] = {(char[]){"shmallocctl"}, (char[]){"--help"}, name, NULL}, *help = NULL;
	size_t len;
	FILE *out = open_memstream(&help, &len);

	if (!out || ctl_main(name ? 3 : 2, argv, out, out) != CTL_OK)
		abort();
	fclose(out);
	return help;
}

static void find_options(struct command *command)
{
	char *help = help_of(command->name), pattern[48];

	for (size_t i = 0; i < OPTIONS; i++) {
		snprintf(pattern, sizeof(pattern), ", --%s ", options[i].name);
		const char *at = strstr(help, pattern);

		command->has[i] = at;
		if (at && strcmp(options[i].name, "format") == 0)
			snprintf(command->formats, sizeof(command->formats), "|%.*s|",
			        (int)strcspn(at + strlen(pattern), " \n"), at + strlen(pattern));
	}
	free(help);
}

static void find_commands(void)
{
	char *help = help_of(NULL), *rest, *line;
	bool on = false;

	for (line = strtok_r(help, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		if (strcmp(line, "Commands:") == 0)
			on = true;
		else if (line[0] != ' ')
			on = false;
		else if (on && n_commands < COMMANDS && sscanf(line, " %31s", commands[n_commands].name) == 1)
			find_options(&commands[n_commands++]);
	}
	free(help);
	if (n_commands < 8)
		abort();
}

/* ---- a command ---- */

struct printed {
	char *out, *err;
	size_t out_len, err_len;
	FILE *to, *to_err;
};

static void begin(struct printed *p)
{
	p->to = open_memstream(&p->out, &p->out_len);
	p->to_err = open_memstream(&p->err, &p->err_len);
	if (!p->to || !p->to_err)
		abort();
}

static void end(struct printed *p, const char *format, bool colours)
{
	fclose(p->to);
	fclose(p->to_err);
	printed_text(p->out, p->out_len, colours);
	printed_text(p->err, p->err_len, false);
	if (strcmp(format, "json") == 0)
		printed_json(p->out, p->out_len);
	else if (strcmp(format, "prometheus") == 0)
		printed_prometheus(p->out);
	else if (strcmp(format, "svg") == 0)
		printed_svg(p->out);
	free(p->out);
	free(p->err);
}

/* Appends it as the input chooses. Returns the word, or NULL. */
static const char *choose(const struct command *command, size_t i, char *to)
{
	const struct option *option = &options[i];
	uint32_t n = 0, choice = input_byte(&s.in);
	char format[32];

	while (n < sizeof(option->words) / sizeof(option->words[0]) && option->words[n])
		n++;
	choice = option->always ? 1 + choice % n : choice % (n ? n + 1 : 2);
	if (!choice)
		return NULL;
	if (!n) {
		snprintf(to, ARG_BYTES, "--%s", option->name);
		return option->name;
	}
	const char *word = option->words[choice - 1];

	snprintf(format, sizeof(format), "|%s|", word);
	if (strcmp(option->name, "format") == 0 && !strstr(command->formats, format))
		return NULL;
	snprintf(to, ARG_BYTES, "--%s=%s", option->name, word);
	return word;
}

static void run_command(const struct command *command)
{
	static const char *const columns[] = {"", "24", "60", "160", "512", "1"};
	char args[ARGS][ARG_BYTES] = {"shmallocctl", "--socket=/fuzz"}, *argv[ARGS + 1] = {args[0], args[1]};
	const char *format = "text";
	struct printed p;
	int argc = 2;

	for (size_t i = 0; i < OPTIONS; i++) {
		const char *word = command->has[i] ? choose(command, i, args[argc]) : NULL;

		if (word && strcmp(options[i].name, "format") == 0)
			format = word;
		argc += word != NULL;
	}
	snprintf(args[argc++], ARG_BYTES, "%s", command->name);
	uint32_t more = input_byte(&s.in);

	if (more & 1)
		snprintf(args[argc++], ARG_BYTES, "%u", more >> 4);
	if (more & 2)
		snprintf(args[argc++], ARG_BYTES, "/dev/null");
	for (int i = 0; i < argc; i++)
		argv[i] = args[i];
	(void)setenv("COLUMNS", columns[(more >> 2) % (sizeof(columns) / sizeof(columns[0]))], 1);
	begin(&p);
	int status = ctl_main(argc, argv, p.to, p.to_err);

	fflush(p.to_err);
	if (status < CTL_OK || status > CTL_FAILED)
		input_insist("an exit status that there is not");
	if (status > CTL_FOUND && !p.err_len)
		input_insist("it failed without a word");
	end(&p, status <= CTL_FOUND ? format : "text", false);
}

/* ---- a screen, whose terminal is nowhere ---- */

static bool open_terminal(void)
{
	static SCREEN *terminal;
	static bool tried;

	if (!tried) {
		FILE *out = fopen("/dev/null", "w"), *in = fopen("/dev/null", "r");

		terminal = out && in ? newterm("xterm", out, in) : NULL;
		if (terminal && has_colors()) {
			start_color();
			use_default_colors();
		}
	}
	tried = true;
	return terminal;
}

static int key(uint32_t choice)
{
	static const int keys[] = {KEY_UP, KEY_DOWN, KEY_PPAGE, KEY_NPAGE, KEY_HOME, KEY_END, KEY_ENTER, KEY_BACKSPACE,
	        KEY_RESIZE, KEY_LEFT, 27, '\r'};

	return choice < sizeof(keys) / sizeof(keys[0]) ? keys[choice] : (int)choice;
}

/* Looks as top.c takes them, but at once. */
static void look(struct top_feed *feed, struct top_model *model, struct top_screen *screen)
{
	top_feed_begin(feed, shmi_chan_now_ns());
	while (top_feed_busy(feed)) {
		int64_t now = shmi_chan_now_ns();

		if (!s.in.left)
			top_feed_expire(feed, now);
		else if (top_feed_read(feed, now) && !top_model_look(model, &feed->stats, &feed->rows, now))
			abort();
	}
	screen->away = feed->phase == TOP_AWAY ? feed->why : NULL;
	if (feed->phase == TOP_AWAY)
		printed_text(feed->why, strlen(feed->why), false);
}

static void run_screen(void)
{
	const struct ctl ctl = {.socket = "/fuzz", .heap = "default", .timeout_s = 5, .sock = -1};
	struct top_screen screen = {.heap = ctl.heap, .interval_ms = 1000, .away_since = "17:04:59"};
	struct top_model model = {.selected = TOP_NOBODY};
	struct top_feed feed;

	if (!open_terminal())
		return;
	if (!top_feed_init(&feed, &ctl))
		abort();
	for (uint32_t i = 0; i < STEPS && s.in.left && !screen.leave; i++) {
		uint32_t what = input_byte(&s.in);

		if (what % 4 == 0)
			look(&feed, &model, &screen);
		else if (what % 4 < 3 && !top_key(&screen, &model, key(input_byte(&s.in))))
			abort();
		else if (what % 4 == 3)
			resizeterm(1 + (int)input_byte(&s.in) % 64, 1 + (int)input_byte(&s.in));
		top_screen_draw(&screen, &model);
	}
	top_feed_deinit(&feed);
	top_model_deinit(&model);
}

/* ---- a map ---- */

/* Each page from 1 on is in one cell, and the figures add up. */
static void look_at_map(const struct report_map *map)
{
	uint64_t pages = 0, end = 1;

	for (unsigned k = 0; k < REPORT_KINDS; k++)
		pages += map->pages[k];
	if (pages != map->end - 1)
		input_insist("the figures of a map do not add up");
	for (uint32_t i = 0; i < map->n_cells; i++) {
		if (map->cells[i].page != end || !map->cells[i].pages)
			input_insist("a page is in two cells of a map, or in none");
		end += map->cells[i].pages;
	}
	if (end != map->end)
		input_insist("the cells of a map do not reach to its end");
	if (map->n_cells > map->options.max_cells)
		input_insist("a map has too many cells");
}

static void take_rows(struct report_map *map)
{
	s.request = (struct wire_msg){.kind = WIRE_QUERY, .u.query = {.kind = WIRE_Q_SPANS}};
	for (uint32_t i = 0; i < STEPS && s.in.left; i++) {
		answer_make(&s.reply, &s.request, &s.in);
		if (s.reply.kind == WIRE_SPAN_ROWS)
			(void)report_map_spans(map, s.reply.u.span_rows.rows, s.reply.u.span_rows.n_rows);
		else if (s.reply.kind == WIRE_CLIENTS)
			(void)report_map_clients(map, s.reply.u.clients.rows, s.reply.u.clients.n_rows);
		s.request.u.query.cursor = s.reply.u.span_rows.next;
		if (!s.request.u.query.cursor)
			s.request.u.query.kind = WIRE_Q_CLIENTS;
		look_at_map(map);
	}
}

static void run_map(void)
{
	uint32_t choice = input_byte(&s.in), bytes[SHMI_CLASSES];
	struct ctl_paper paper = {.ink = choice % 3, .columns = 24 + input_byte(&s.in) * 2 % 489};
	struct report_map_look how = {.heap = "<heap>", .by = choice / 3 % REPORT_BYS};
	struct report_map_options given = {.max_cells = 4 + input_byte(&s.in)};
	struct shmi_class classes[SHMI_CLASSES];
	struct printed p;

	shmi_class_table(classes);
	for (uint32_t i = 0; i < SHMI_CLASSES; i++)
		bytes[i] = classes[i].size;
	if (choice & 64) {
		given.class_bytes = bytes;
		given.n_classes = SHMI_CLASSES;
	}
	struct report_map *map = report_map_new(&given);

	if (!map)
		abort();
	take_rows(map);
	begin(&p);
	if (choice & 128)
		report_map_svg(map, &how, p.to);
	else
		ctl_heapmap_text(map, &how, &paper, p.to);
	end(&p, choice & 128 ? "svg" : "text", true);
	report_map_free(map);
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len)
{
	static const int refusals[] = {ENOENT, EACCES, EAGAIN, ENOTSOCK};

	if (!n_commands) {
		(void)unsetenv("SHMALLOC_HEAP");
		(void)setenv("LC_ALL", "C.UTF-8", 1);
		(void)setlocale(LC_CTYPE, "");
		find_commands();
	}
	s.in = (struct input){bytes, len};
	s.answers = 0;
	s.now = 0;
	s.request.kind = WIRE_NONE;
	uint32_t what = input_byte(&s.in) % (n_commands + 2), link = input_byte(&s.in);

	s.refusal = link >= 250 ? refusals[link % 4] : 0;
	s.mute = link >= 240;
	if (what < n_commands)
		run_command(&commands[what]);
	else if (what == n_commands)
		run_screen();
	else
		run_map();
	return 0;
}
