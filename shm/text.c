#include "shm/text.h"

struct out {
	char *buf;
	size_t room, len;
};

static void put_char(struct out *out, char c)
{
	if (out->len + 1 < out->room)
		out->buf[out->len++] = c;
}

static void put_string(struct out *out, const char *s)
{
	for (; *s; s++)
		put_char(out, *s);
}

static void put_number(struct out *out, uint64_t n, unsigned base)
{
	char digits[20]; /* of 2^64 - 1 */
	unsigned count = 0;

	do {
		digits[count++] = "0123456789abcdef"[n % base];
		n /= base;
	} while (n);
	while (count)
		put_char(out, digits[--count]);
}

size_t shmi_text_v(char *buf, size_t room, const char *format, va_list args)
{
	struct out out = {.buf = buf, .room = room};

	for (const char *f = format; *f; f++) {
		if (*f != '%') {
			put_char(&out, *f);
			continue;
		}
		int is_long = *++f == 'l';

		f += is_long;
		if (*f == 'u' || *f == 'x')
			put_number(&out, is_long ? va_arg(args, unsigned long) : va_arg(args, unsigned),
			        *f == 'u' ? 10 : 16);
		else if (*f == 's')
			put_string(&out, va_arg(args, const char *));
		else if (*f == 'c')
			put_char(&out, (char)va_arg(args, int));
		else if (*f)
			put_char(&out, *f);
		else
			break;
	}
	buf[out.len] = 0;
	return out.len;
}

size_t shmi_text(char *buf, size_t room, const char *format, ...)
{
	va_list args;
	size_t len;

	va_start(args, format);
	len = shmi_text_v(buf, room, format, args);
	va_end(args);
	return len;
}
