/* shmallocctl reads what a daemon says, whatever that is: it prints lines that a terminal can bear and JSON that is JSON, says what
 * is wrong, and ends.
 *
 * An input is the command and its options (one byte each), then answers: those that begin with a byte of 128 and more are made, of the
 * kind that is asked for, of what follows; else length (two bytes), how (one byte), bytes. Most of those get the number that is waited for, if they are legal messages, and the kind that is asked for stands in the seeds. The channel is
 * a false one, without a socket.
 */
#include <fcntl.h>
#include <jansson.h>
#include <unistd.h>

#include "client/ctl/ctl.h"
#include "proto/chan.h"
#include "proto/codec.h"
#include "shm/layout.h"
#include "tests/fuzz/input.h"

#define COMMANDS 24u
#define ANSWERS 64u /* after which the daemon hangs up */

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len);

static struct {
	struct input in;
	struct wire_msg request, reply;
	struct codec_scratch scratch;
	int64_t now;
	uint32_t answers;
	unsigned char packet[WIRE_MAX];
} s;

/* ---- the channel ---- */

int shmi_chan_connect(const char *path, int *sock)
{
	(void)path;
	*sock = open("/dev/null", O_RDWR | O_CLOEXEC);
	return *sock < 0 ? -1 : 0;
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
	return s.now += 1000000;
}

int shmi_chan_wait(int sock, int write, int64_t deadline_ns)
{
	(void)sock;
	(void)write;
	(void)deadline_ns;
	return s.request.kind == WIRE_HELLO || s.in.left ? 0 : -110; /* -ETIMEDOUT */
}

static size_t hello(unsigned char *bytes, size_t room)
{
	size_t len = 0;

	s.reply = (struct wire_msg){.kind = WIRE_HELLO_OK,
	        .serial = s.request.serial,
	        .u.hello = {.protocol = WIRE_PROTOCOL, .layout_hash = shmi_layout_hash(), .label = "shmallocd"}};
	return shmi_codec_encode(&s.reply, &s.scratch, bytes, room, &len) ? 0 : len;
}

/* An answer of the kind that is asked for, with whatever in it. Its length; 0: it is no message. */
static size_t made(unsigned char *bytes, size_t room)
{
	static const enum wire_kind kinds[] = {[WIRE_Q_STATS] = WIRE_STATS,
	        [WIRE_Q_CLIENTS] = WIRE_CLIENTS,
	        [WIRE_Q_CLASSES] = WIRE_CLASSES,
	        [WIRE_Q_SPANS] = WIRE_SPAN_ROWS,
	        [WIRE_Q_ROOTS] = WIRE_ROOTS,
	        [WIRE_Q_CHECK] = WIRE_CHECK,
	        [WIRE_Q_USERS] = WIRE_USERS,
	        [WIRE_Q_HEAPS] = WIRE_HEAPS};
	size_t n, len = 0, kept;
	const unsigned char *from = input_bytes(&s.in, 1 + input_byte(&s.in) % 128, &n);
	unsigned char *to = (unsigned char *)&s.reply.u;

	memset(&s.reply, 0, sizeof(s.reply));
	s.reply.serial = s.request.serial;
	s.reply.kind = s.request.kind == WIRE_TRIM ? WIRE_TRIM_OK : WIRE_OK;
	if (s.request.kind == WIRE_QUERY && s.request.u.query.kind < sizeof(kinds) / sizeof(kinds[0]))
		s.reply.kind = kinds[s.request.u.query.kind];
	kept = input_byte(&s.in) & 1 ? sizeof(s.reply.u) : 2048;
	for (size_t i = 0; n && i < kept; i++)
		to[i] = from[i % n];
	if (s.reply.kind > WIRE_STATS) { /* all replies with rows begin alike */
		s.reply.u.clients.n_rows = input_byte(&s.in) % 6;
		s.reply.u.clients.next = input_byte(&s.in) % 4 ? 0 : s.request.u.query.cursor + 1;
		for (uint32_t i = 0; i < WIRE_ROWS; i++) { /* no number of a row may be in the way of a text's end */
			if (s.reply.kind == WIRE_CLIENTS)
				s.reply.u.clients.rows[i].label[WIRE_NAME - 1] = 0;
			if (s.reply.kind == WIRE_HEAPS)
				s.reply.u.heaps.rows[i].name[WIRE_NAME - 1] = 0;
			if (s.reply.kind == WIRE_ROOTS)
				s.reply.u.roots.rows[i].name[WIRE_NAME - 1] = 0;
			if (s.reply.kind == WIRE_CHECK)
				s.reply.u.check.rows[i].text[119] = 0;
		}
	} else {
		s.reply.u.stats.heap[WIRE_NAME - 1] = 0;
		s.reply.u.stats.damaged %= 2;
		s.reply.u.stats.pressure %= 3;
	}
	return shmi_codec_encode(&s.reply, &s.scratch, bytes, room, &len) ? 0 : len;
}

int shmi_chan_recv(int sock, void *bytes, size_t room, size_t *len, int *fds, unsigned *n_fds)
{
	(void)sock;
	(void)fds;
	(void)n_fds;
	*len = 0;
	if (s.request.kind == WIRE_HELLO && (!s.in.left || *s.in.at != 127)) {
		*len = hello(bytes, room);
		return 0;
	}
	if (!s.in.left || s.answers++ == ANSWERS)
		return CHAN_E_CLOSED;
	if (*s.in.at >= 128) {
		(void)input_byte(&s.in);
		*len = made(bytes, room);
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

/* ---- the commands, as --help lists them ---- */

static char commands[COMMANDS][32];
static uint32_t n_commands;

/* Those that ask and print; not those that stay on the screen. */
static bool asks(const char *name)
{
	return strcmp(name, "top") != 0;
}

static void find_commands(void)
{
	char *argv[] = {(char[]){"shmallocctl"}, (char[]){"--help"}, NULL}, *help = NULL, *rest, *line;
	size_t len;
	FILE *out = open_memstream(&help, &len);
	bool on = false;

	if (!out || ctl_main(2, argv, out, out) != CTL_OK)
		abort();
	fclose(out);
	for (line = strtok_r(help, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		if (strcmp(line, "Commands:") == 0)
			on = true;
		else if (line[0] != ' ')
			on = false;
		else if (on && n_commands < COMMANDS && sscanf(line, " %31s", commands[n_commands]) == 1 &&
		         asks(commands[n_commands]))
			n_commands++;
	}
	free(help);
	if (n_commands < 8)
		abort();
}

/* ---- what is printed ---- */

static void look_at_text(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		const unsigned char *c = (const unsigned char *)text + i;

		if ((*c >= ' ' || *c == '\n') && *c != 0x7f && (c[0] != 0xc2 || c[1] < 0x80 || c[1] > 0x9f))
			continue;
		fprintf(stderr, "%.*s\n", (int)len, text);
		input_insist("a control character is printed");
	}
}

static bool ends_json(int status)
{
	return status == CTL_OK || status == CTL_FOUND;
}

static void look_at_json(const char *text, size_t len, const char *command)
{
	json_t *json = json_loadb(text, len, 0, NULL);

	if (!json) {
		fprintf(stderr, "%s: %.*s\n", command, (int)len, text);
		input_insist("what is printed is no JSON");
	}
	json_decref(json);
}

static int run(char **argv, int argc, bool json)
{
	char *out = NULL, *err = NULL;
	size_t out_len, err_len;
	FILE *o = open_memstream(&out, &out_len), *e = open_memstream(&err, &err_len);

	if (!o || !e)
		abort();
	int status = ctl_main(argc, argv, o, e);

	fclose(o);
	fclose(e);
	look_at_text(out, out_len);
	look_at_text(err, err_len);
	if (json && ends_json(status))
		look_at_json(out, out_len, argv[argc - 1]);
	if (status < CTL_OK || status > CTL_FAILED)
		input_insist("an exit status that there is not");
	if (status > CTL_FOUND && !err_len)
		input_insist("it failed without a word");
	free(out);
	free(err);
	return status;
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len)
{
	static char program[] = "shmallocctl", socket[] = "--socket=/fuzz", json[] = "--format=json",
	            exact[] = "--bytes", all[] = "--all", client[] = "7";
	char *argv[8] = {program, socket};
	int argc = 2;

	if (!n_commands) {
		(void)unsetenv("SHMALLOC_HEAP");
		find_commands();
	}
	s.in = (struct input){bytes, len};
	s.answers = 0;
	s.request.kind = WIRE_NONE;
	char *command = commands[input_byte(&s.in) % n_commands];
	uint32_t options = input_byte(&s.in);

	if (options & 1)
		argv[argc++] = json;
	if (options & 2)
		argv[argc++] = exact;
	if (options & 4)
		argv[argc++] = all;
	argv[argc++] = command;
	if (options & 8)
		argv[argc++] = client;
	(void)run(argv, argc, options & 1);
	return 0;
}
