/* Texts of others, made fit to be shown. */
#include <string.h>

#include "proto/report/report.h"

/* Bytes of the character that begins at `s`, 0 if it is not UTF-8 or not to be printed: controls, C1 controls included. */
static size_t printable(const unsigned char *s)
{
	static const struct {
		size_t len;
		uint32_t least; /* code of this length */
		unsigned char mask, lead;
	} forms[] = {{1, 0x20, 0x80, 0x00}, {2, 0xa0, 0xe0, 0xc0}, {3, 0x800, 0xf0, 0xe0}, {4, 0x10000, 0xf8, 0xf0}};

	for (size_t f = 0; f < 4; f++) {
		uint32_t c = s[0] & (unsigned char)~forms[f].mask;

		if ((s[0] & forms[f].mask) != forms[f].lead)
			continue;
		for (size_t i = 1; i < forms[f].len; i++) {
			if ((s[i] & 0xc0) != 0x80)
				return 0;
			c = c << 6 | (s[i] & 0x3f);
		}
		bool bad = c < forms[f].least || c == 0x7f || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff ||
		           (c >= 0x2028 && c <= 0x202e);

		return bad ? 0 : forms[f].len;
	}
	return 0;
}

void report_clean(const char *from, char *to, size_t room)
{
	const unsigned char *s = (const unsigned char *)from;
	size_t len = 0;

	while (*s && len + 5 <= room) {
		size_t n = printable(s);

		if (*s == '\\') {
			to[len++] = '\\';
			to[len++] = '\\';
			s++;
		} else if (n) {
			memcpy(to + len, s, n);
			len += n;
			s += n;
		} else {
			len += (size_t)snprintf(to + len, 5, "\\x%02x", *s++);
		}
	}
	to[len] = 0;
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
