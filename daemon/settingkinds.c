#include "daemon/settingkinds.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/address.h"
#include "daemon/policy.h"

/* ---- numbers with units ---- */

struct unit {
	const char *name;
	uint64_t factor;
};

/* The first one is what a number without a unit counts. */
static const struct unit sizes[] = {
        {"", 1}, {"KiB", 1ull << 10}, {"MiB", 1ull << 20}, {"GiB", 1ull << 30}, {"TiB", 1ull << 40}};
static const struct unit times[] = {{"ms", 1}, {"s", 1000}, {"min", 60000}, {"h", 3600000}};

static bool parse_number(const char *text, char **end, uint64_t *number)
{
	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	*number = strtoull(text, end, 10);
	return errno == 0;
}

static bool parse_units(const char *text, const struct unit *units, unsigned n, uint64_t *value)
{
	uint64_t number;
	char *unit;

	if (!parse_number(text, &unit, &number))
		return false;
	for (unsigned i = 0; i < n; i++)
		if (!strcmp(unit, units[i].name) || (!*unit && !i)) {
			if (number > UINT64_MAX / units[i].factor)
				return false;
			*value = number * units[i].factor;
			return true;
		}
	return false;
}

/* In the largest unit that leaves no remainder. */
static void print_units(uint64_t value, const struct unit *units, unsigned n, char *text, size_t room)
{
	while (n > 1 && value % units[n - 1].factor)
		n--;
	if (!value)
		snprintf(text, room, "0");
	else
		snprintf(text, room, "%llu%s", (unsigned long long)(value / units[n - 1].factor), units[n - 1].name);
}

bool config_parse_size(const char *text, uint64_t *bytes)
{
	return parse_units(text, sizes, sizeof(sizes) / sizeof(sizes[0]), bytes);
}

bool config_parse_duration(const char *text, uint64_t *ms)
{
	return parse_units(text, times, sizeof(times) / sizeof(times[0]), ms);
}

static void print_size(uint64_t bytes, char *text, size_t room)
{
	print_units(bytes, sizes, sizeof(sizes) / sizeof(sizes[0]), text, room);
}

/* ---- kinds ---- */

static bool parse_size(const struct setting *s, const char *text, void *value, char *why, size_t room)
{
	char least[32], most[32];
	uint64_t bytes;

	if (!config_parse_size(text, &bytes)) {
		snprintf(why, room, "'%.40s' is not a size such as 512MiB or 4GiB", text);
		return false;
	}
	if (bytes < s->least || bytes > s->most) {
		print_size(s->least, least, sizeof(least));
		print_size(s->most, most, sizeof(most));
		snprintf(why, room, "%.40s is not between %s and %s", text, least, most);
		return false;
	}
	*(uint64_t *)value = bytes;
	return true;
}

/* A bound beyond what any heap can have bounds nothing: it must not wrap when it is counted in pages. */
static bool parse_bound(const struct setting *s, const char *text, void *value, char *why, size_t room)
{
	uint64_t bytes;

	if (config_parse_size(text, &bytes) && bytes > s->most) {
		*(uint64_t *)value = s->most;
		return true;
	}
	return parse_size(s, text, value, why, room);
}

static void print_bytes(const struct setting *s, const void *value, char *text, size_t room)
{
	(void)s;
	print_size(*(const uint64_t *)value, text, room);
}

static bool parse_duration(const struct setting *s, const char *text, void *value, char *why, size_t room)
{
	uint64_t ms;

	if (!config_parse_duration(text, &ms) || ms > s->most) {
		snprintf(why, room, "'%.40s' is not a time such as 250ms, 5s or 2min, up to 24h", text);
		return false;
	}
	*(uint32_t *)value = (uint32_t)ms;
	return true;
}

static void print_duration(const struct setting *s, const void *value, char *text, size_t room)
{
	(void)s;
	print_units(*(const uint32_t *)value, times, sizeof(times) / sizeof(times[0]), text, room);
}

static bool parse_choice(const struct setting *s, const char *text, void *value, char *why, size_t room)
{
	size_t at;

	for (int i = 0; s->words[i]; i++)
		if (!strcmp(text, s->words[i])) {
			*(int *)value = i; /* an enum */
			return true;
		}
	at = (size_t)snprintf(why, room, "'%.40s' is not one of", text);
	for (int i = 0; s->words[i] && at < room; i++)
		at += (size_t)snprintf(why + at, room - at, "%s %s", i ? "," : "", s->words[i]);
	return false;
}

static void print_choice(const struct setting *s, const void *value, char *text, size_t room)
{
	snprintf(text, room, "%s", s->words[*(const int *)value]);
}

static bool parse_name(const struct setting *s, const char *text, void *value, char *why, size_t room)
{
	(void)s;
	if (!objects_name_ok(text)) {
		snprintf(why, room, "'%.60s' is not a name: letters, digits, '-' and '_', at most %u of them", text,
		        OBJECTS_NAME_MAX);
		return false;
	}
	snprintf(value, OBJECTS_NAME_MAX + 1, "%s", text);
	return true;
}

static void print_text(const struct setting *s, const void *value, char *text, size_t room)
{
	(void)s;
	snprintf(text, room, "%s", (const char *)value);
}

#define SOCKET_BYTES sizeof(((struct config *)0)->socket)

/* What could not be written into the file is refused everywhere. */
static bool parse_socket(const struct setting *s, const char *text, void *value, char *why, size_t room)
{
	size_t len = strlen(text);
	bool good = len && len < SOCKET_BYTES && *text != ' ' && text[len - 1] != ' ' && !strchr(text, ';');

	(void)s;
	for (const char *c = text; good && *c; c++)
		good = (unsigned char)*c >= ' ' && *c != 0x7f;
	if (!good) {
		snprintf(why, room,
		        "a path has 1 to %zu bytes, neither begins nor ends with a space, and has no ';' in it",
		        SOCKET_BYTES - 1);
		return false;
	}
	snprintf(value, SOCKET_BYTES, "%s", text);
	return true;
}

static bool parse_mode(const struct setting *s, const char *text, void *value, char *why, size_t room)
{
	char *end;
	unsigned long mode = strtoul(text, &end, 8);

	(void)s;
	if (*text < '0' || *text > '7' || *end || mode > 0777) {
		snprintf(why, room, "'%.40s' is not a file mode such as 0660", text);
		return false;
	}
	*(unsigned *)value = (unsigned)mode;
	return true;
}

static void print_mode(const struct setting *s, const void *value, char *text, size_t room)
{
	(void)s;
	snprintf(text, room, "0%03o", *(const unsigned *)value);
}

static bool parse_flag(const struct setting *s, const char *text, void *value, char *why, size_t room)
{
	(void)s;
	(void)text;
	(void)why;
	(void)room;
	*(bool *)value = true;
	return true;
}

static void print_flag(const struct setting *s, const void *value, char *text, size_t room)
{
	(void)s;
	snprintf(text, room, "%s", *(const bool *)value ? "yes" : "no");
}

/* The command line says it without a value. */
static bool parse_switch(const struct setting *s, const char *text, void *value, char *why, size_t room)
{
	bool yes = !*text || !strcmp(text, "yes");

	(void)s;
	if (!yes && strcmp(text, "no") != 0) {
		snprintf(why, room, "'%.40s' is neither yes nor no", text);
		return false;
	}
	*(bool *)value = yes;
	return true;
}

#define HTTP_BYTES sizeof(((struct config *)0)->http)

static bool parse_http(const struct setting *s, const char *text, void *value, char *why, size_t room)
{
	struct address address;
	bool off = !strcmp(text, "off");

	if (!off && *text == '/' && !parse_socket(s, text, value, why, room))
		return false;
	if (!off && !address_parse(text, &address)) {
		snprintf(why, room, "'%.60s' is not 127.0.0.1:PORT, [::1]:PORT, a path that begins with '/', or off",
		        text);
		return false;
	}
	snprintf(value, HTTP_BYTES, "%s", off ? "" : text);
	return true;
}

static void print_http(const struct setting *s, const void *value, char *text, size_t room)
{
	(void)s;
	snprintf(text, room, "%s", *(const char *)value ? (const char *)value : "off");
}

/* ---- lists of users and groups ---- */

static bool find_user(const char *name, uint32_t *id)
{
	const struct passwd *user = getpwnam(name);

	if (user)
		*id = user->pw_uid;
	return user;
}

static bool find_group(const char *name, uint32_t *id)
{
	const struct group *group = getgrnam(name);

	if (group)
		*id = group->gr_gid;
	return group;
}

static bool parse_id(const char *word, bool (*find)(const char *name, uint32_t *id), uint32_t *id)
{
	uint64_t number;
	char *end;

	if (!parse_number(word, &end, &number) || *end)
		return find(word, id);
	*id = (uint32_t)number;
	return number < UINT32_MAX; /* which stands for nobody */
}

static void add_id(struct access_list *list, uint32_t id)
{
	for (uint32_t i = 0; i < list->n; i++)
		if (list->id[i] == id)
			return;
	list->id[list->n++] = id;
}

/* Names or numbers, with spaces or commas between them. */
static bool parse_ids(const char *text, const char *what, bool (*find)(const char *name, uint32_t *id),
        struct access_list *list, char *why, size_t room)
{
	struct access_list all = {0};
	char word[64];
	uint32_t id;

	for (size_t len; *(text += strspn(text, " \t,")); text += len) {
		len = strcspn(text, " \t,");
		snprintf(word, sizeof(word), "%.*s", (int)len, text);
		if (len >= sizeof(word) || !parse_id(word, find, &id)) {
			snprintf(why, room, "there is no %s '%s' here; names or numbers, with spaces between them",
			        what, word);
			return false;
		}
		if (all.n == ACCESS_MAX) {
			snprintf(why, room, "at most %u %ss; let a group in for more", ACCESS_MAX, what);
			return false;
		}
		add_id(&all, id);
	}
	*list = all;
	return true;
}

static bool parse_users(const struct setting *s, const char *text, void *value, char *why, size_t room)
{
	(void)s;
	return parse_ids(text, "user", find_user, value, why, room);
}

static bool parse_groups(const struct setting *s, const char *text, void *value, char *why, size_t room)
{
	(void)s;
	return parse_ids(text, "group", find_group, value, why, room);
}

static void print_ids(const struct setting *s, const void *value, char *text, size_t room)
{
	const struct access_list *list = value;
	size_t at = 0;

	(void)s;
	*text = 0;
	for (uint32_t i = 0; i < list->n && at < room; i++)
		at += (size_t)snprintf(text + at, room - at, "%s%u", i ? " " : "", list->id[i]);
}

/* ---- all of them ---- */

const struct setting_kind setting_kind_size = {parse_size, print_bytes, sizeof(uint64_t)};
const struct setting_kind setting_kind_bound = {parse_bound, print_bytes, sizeof(uint64_t)};
const struct setting_kind setting_kind_duration = {parse_duration, print_duration, sizeof(uint32_t)};
const struct setting_kind setting_kind_choice = {parse_choice, print_choice, sizeof(int)};
const struct setting_kind setting_kind_name = {parse_name, print_text, OBJECTS_NAME_MAX + 1};
const struct setting_kind setting_kind_socket = {parse_socket, print_text, SOCKET_BYTES};
const struct setting_kind setting_kind_mode = {parse_mode, print_mode, sizeof(unsigned)};
const struct setting_kind setting_kind_flag = {parse_flag, print_flag, sizeof(bool)};
const struct setting_kind setting_kind_switch = {parse_switch, print_flag, sizeof(bool)};
const struct setting_kind setting_kind_http = {parse_http, print_http, HTTP_BYTES};
const struct setting_kind setting_kind_users = {parse_users, print_ids, sizeof(struct access_list)};
const struct setting_kind setting_kind_groups = {parse_groups, print_ids, sizeof(struct access_list)};
