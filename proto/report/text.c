/* Texts of others, made fit to be shown. */
#include <string.h>

#include "proto/report/report.h"

static bool is_shown(uint32_t c)
{
	bool control = c < 0x20 || (c >= 0x7f && c < 0xa0), surrogate = c >= 0xd800 && c < 0xe000;
	bool direction = c == 0x200e || c == 0x200f || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);

	return !control && !surrogate && !direction && (c & 0xfffe) != 0xfffe && c <= 0x10ffff;
}

size_t report_char(const char *text)
{
	static const struct {
		unsigned char mask, lead;
		uint32_t least; /* code of this length */
	} forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};
	const unsigned char *s = (const unsigned char *)text;

	for (size_t f = 0; f < 4; f++) {
		uint32_t c = s[0] & (unsigned char)~forms[f].mask;

		if ((s[0] & forms[f].mask) != forms[f].lead)
			continue;
		for (size_t i = 1; i <= f; i++) {
			if ((s[i] & 0xc0) != 0x80) /* the final zero too */
				return 0;
			c = c << 6 | (s[i] & 0x3f);
		}
		return c >= forms[f].least && is_shown(c) ? f + 1 : 0;
	}
	return 0;
}

void report_clean(const char *from, char *to, size_t room)
{
	size_t len = 0;

	while (*from && len + 5 <= room) {
		size_t n = report_char(from);

		if (*from == '\\') {
			to[len++] = '\\';
			to[len++] = '\\';
			from++;
		} else if (n) {
			memcpy(to + len, from, n);
			len += n;
			from += n;
		} else {
			len += (size_t)snprintf(to + len, 5, "\\x%02x", (unsigned char)*from++);
		}
	}
	to[len] = 0;
}

size_t report_fit(const char *text, size_t most)
{
	size_t len = strlen(text);

	if (len > most)
		for (len = most; len && ((unsigned char)text[len] & 0xc0) == 0x80; len--)
			;
	return len;
}

void report_human(uint64_t bytes, char *to, size_t room)
{
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double n = (double)bytes / 1024;
	size_t unit = 0;

	if (bytes < 1024) {
		snprintf(to, room, "%u B", (unsigned)bytes);
		return;
	}
	for (; n >= 1023.95 && unit < 5; unit++)
		n /= 1024;
	snprintf(to, room, "%.1f %s", n, units[unit]);
}

void report_class_name(const struct wire_class_row *row, char *to, size_t room)
{
	static const char *const attrs[WIRE_ATTRS] = {"", " scoped", " noscan", " scoped noscan"};
	const char *attr = attrs[row->sclass % WIRE_ATTRS];

	if (row->size)
		snprintf(to, room, "%u B%s", row->size, attr);
	else
		snprintf(to, room, "large%s", attr);
}
