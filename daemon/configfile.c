/* The configuration file: inih takes its lines apart, one at a time.
 *
 * Sections are read here: inih cuts long names, does not tell of a section without keys or of one that comes twice, and knows line
 * numbers only of what it cannot read. It gets the lines through a reader of ours, so that we know which one each key stands on, and that
 * a line of which it told nothing is none. */
#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>

#include "daemon/settings.h"

#define FILE_LINES 10000u /* more is another kind of file */

enum section { SECTION_NONE, SECTION_DAEMON, SECTION_HEAP, SECTION_BAD };

struct reading {
	struct config *config;
	FILE *file;
	struct config_origin here;
	enum section section;
	struct config_heap *heap; /* of the section */
	uint32_t daemon_line; /* where [daemon] begins; 0: nowhere */
	bool key_due; /* the line must have a key, and inih has not told us of one */
};

#define FAULT(r, name, ...) config_fault((r)->config, (r)->here, name, __VA_ARGS__)

/* ---- sections ---- */

static enum section begin_daemon(struct reading *r)
{
	if (r->daemon_line) {
		FAULT(r, NULL, "section [daemon] has begun in line %u already; it is allowed once", r->daemon_line);
		return SECTION_BAD;
	}
	r->daemon_line = r->here.line;
	return SECTION_DAEMON;
}

static enum section begin_heap(struct reading *r, const char *name)
{
	const struct config_heap *there = config_heap_of(r->config, name);

	if (there) {
		FAULT(r, NULL, "section [heap %s] has begun in line %u already; each heap is allowed once", name,
		        there->named.line);
		return SECTION_BAD;
	}
	r->heap = config_add_heap(r->config, name, r->here);
	return r->heap ? SECTION_HEAP : SECTION_BAD;
}

static enum section begin_section(struct reading *r, char *line)
{
	char *end = strchr(line, ']'), *rest = end ? end + 1 + strspn(end + 1, " \t\r") : NULL;

	if (!end || (*rest && *rest != ';' && *rest != '#')) {
		FAULT(r, NULL, "a section is [daemon] or [heap NAME], alone on its line");
		return SECTION_BAD;
	}
	*end = 0;
	if (!strcmp(line + 1, "daemon"))
		return begin_daemon(r);
	if (!strncmp(line + 1, "heap ", 5))
		return begin_heap(r, line + 6 + strspn(line + 6, " \t"));
	FAULT(r, NULL, "there is no section [%.60s]; allowed are [daemon] and [heap NAME]", line + 1);
	return SECTION_BAD;
}

/* ---- keys ---- */

static void refuse_key(struct reading *r, const char *name, const struct setting *setting)
{
	bool in_heap = r->section == SECTION_HEAP;
	char allowed[256];
	size_t at = 0;

	if (setting && setting->places & PLACE_FILE) {
		FAULT(r, name, "this belongs into section %s", setting->of_heap ? "[heap NAME]" : "[daemon]");
		return;
	}
	for (unsigned i = 0; i < n_settings && at < sizeof(allowed); i++)
		if (settings[i].of_heap == in_heap && settings[i].places & PLACE_FILE)
			at += (size_t)snprintf(
			        allowed + at, sizeof(allowed) - at, "%s%s", at ? ", " : "", settings[i].name);
	FAULT(r, name, "there is no such setting%s; allowed here are %s", setting ? " in the file" : "", allowed);
}

static int on_key(void *ctx, const char *section, const char *name, const char *value)
{
	struct reading *r = ctx;
	const struct setting *setting = setting_of(name, strlen(name));

	(void)section;
	r->key_due = false;
	if (r->section == SECTION_BAD)
		return 1;
	if (r->section == SECTION_NONE) {
		FAULT(r, name, "this stands before any section; [daemon] or [heap NAME] must come first");
		return 1;
	}
	if (!setting || !(setting->places & PLACE_FILE) || setting->of_heap != (r->section == SECTION_HEAP)) {
		refuse_key(r, name, setting);
		return 1;
	}
	const struct config_origin *origin = setting_origin(setting, r->config, r->heap);

	if (origin->layer == LAYER_FILE)
		FAULT(r, name, "this is set in line %u already; once is allowed", origin->line);
	else
		setting_set(setting, r->config, r->heap, value, r->here);
	return 1;
}

/* ---- lines ---- */

static void close_line(struct reading *r)
{
	if (r->key_due)
		FAULT(r, NULL, "this is neither a [section] nor NAME = VALUE");
	r->key_due = false;
}

/* The next line, without its end, in `line`, which has room for `room` bytes. False at the end of the file. */
static bool read_line(struct reading *r, char *line, size_t room)
{
	size_t len = 0;
	bool zero = false;
	int c;

	while ((c = getc(r->file)) != EOF && c != '\n') {
		zero = zero || !c;
		if (len < room)
			line[len] = (char)c;
		len++;
		if (len > FILE_LINES * room)
			break;
	}
	if (c == EOF && !len)
		return false;
	r->here.line++;
	if (len < room && !zero) {
		line[len] = 0;
		return true;
	}
	FAULT(r, NULL, zero ? "a zero byte is not allowed" : "a line has at most %zu bytes", room - 1);
	*line = 0;
	return true;
}

/* What inih reads with. It is shown what has a key, without the spaces before it, which would make it a continuation; of all else
 * empty lines. */
static char *next_line(char *to, int room, void *stream)
{
	struct reading *r = stream;
	char line[INI_MAX_LINE], *at = line;

	close_line(r);
	if (r->here.line >= FILE_LINES) {
		FAULT(r, NULL, "a configuration file has at most %u lines", FILE_LINES);
		return NULL;
	}
	if (!read_line(r, line, sizeof(line) - 3)) /* inih wants two bytes for the end of the line, and a zero */
		return NULL;
	if (r->here.line == 1 && !strncmp(at, "\xef\xbb\xbf", 3)) /* a byte order mark */
		at += 3;
	at += strspn(at, " \t\r\f\v");
	if (*at == '[')
		r->section = begin_section(r, at);
	else
		r->key_due = *at && *at != ';' && *at != '#';
	snprintf(to, (size_t)room, "%s\n", r->key_due ? at : "");
	return to;
}

void configfile_read(struct config *config)
{
	struct reading r = {.config = config, .here = {.layer = LAYER_FILE}};

	if (!*config->path)
		return;
	r.file = fopen(config->path, "re");
	if (!r.file && errno == ENOENT && !config->path_given)
		return;
	config->path_read = true;
	/* What stands on a line is told by the reader and on_key. */
	if (r.file)
		(void)ini_parse_stream(next_line, &r, on_key, &r);
	if (!r.file || ferror(r.file))
		config_fault(config, (struct config_origin){0}, config->path, "it cannot be read: %s", strerror(errno));
	if (r.file)
		(void)fclose(r.file);
}
