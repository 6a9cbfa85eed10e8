#include "proto/report/xml.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static bool shown(uint32_t c)
{
	bool control = c < 0x20 || (c >= 0x7f && c < 0xa0), surrogate = c >= 0xd800 && c < 0xe000;
	bool direction = c == 0x200e || c == 0x200f || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);

	return !control && !surrogate && !direction && (c & 0xfffe) != 0xfffe && c <= 0x10ffff;
}

/* Bytes of the character that begins at `s`; 0 if it is none, or not to be shown. */
static size_t character(const unsigned char *s)
{
	static const struct {
		unsigned char mask, lead;
		uint32_t least;
	} forms[] = {{0x80, 0x00, 0}, {0xe0, 0xc0, 0x80}, {0xf0, 0xe0, 0x800}, {0xf8, 0xf0, 0x10000}};

	for (size_t f = 0; f < 4; f++) {
		uint32_t c = s[0] & (unsigned char)~forms[f].mask;

		if ((s[0] & forms[f].mask) != forms[f].lead)
			continue;
		for (size_t i = 1; i <= f; i++) {
			if ((s[i] & 0xc0) != 0x80) /* the final zero too */
				return 0;
			c = c << 6 | (s[i] & 0x3f);
		}
		return c >= forms[f].least && shown(c) ? f + 1 : 0;
	}
	return 0;
}

void report_xml(const char *text, FILE *to)
{
	static const char special[] = "&<>\"'\\";
	static const char *const entity[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;", "\\\\"};
	const unsigned char *s = (const unsigned char *)text;

	while (*s) {
		const char *found = strchr(special, *s);
		size_t n = character(s);

		if (found)
			fputs(entity[found - special], to);
		else if (n)
			fwrite(s, 1, n, to);
		else
			fprintf(to, "\\x%02x", *s);
		s += n ? n : 1;
	}
}
