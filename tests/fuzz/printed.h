/* What a program has printed is what it says it is: text that a terminal can bear, JSON, samples of Prometheus, an SVG. */
#ifndef TESTS_FUZZ_PRINTED_H
#define TESTS_FUZZ_PRINTED_H

#include <ctype.h>
#include <jansson.h>

#include "proto/report/report.h"
#include "tests/fuzz/input.h"

static inline void printed_wrong(const char *text, const char *wrong)
{
	fprintf(stderr, "%s\n", text);
	input_insist(wrong);
}

/* Bytes of the colour that begins there: ESC [ numbers m. */
static inline size_t printed_colour(const char *text)
{
	size_t len = 2;

	if (text[0] != '\x1b' || text[1] != '[')
		return 0;
	while (isdigit((unsigned char)text[len]) || text[len] == ';')
		len++;
	return text[len] == 'm' ? len + 1 : 0;
}

/* UTF-8 without controls, but for ends of lines and, if there may be any, colours. */
static inline void printed_text(const char *text, size_t len, bool colours)
{
	for (size_t i = 0; i < len;) {
		size_t n = text[i] == '\n' ? 1 : report_char(text + i);

		if (!n && colours)
			n = printed_colour(text + i);
		if (!n)
			printed_wrong(text, "what is printed is not fit to be shown");
		i += n;
	}
}

static inline void printed_json(const char *text, size_t len)
{
	json_t *json = json_loadb(text, len, 0, NULL);

	if (!json)
		printed_wrong(text, "what is printed is no JSON");
	json_decref(json);
}

/* Behind a text in quotes that begins there; NULL if it has no end on its line. */
static inline const char *printed_quoted(const char *at)
{
	if (*at++ != '"')
		return NULL;
	for (; *at != '"'; at++) {
		if (*at == '\\')
			at++;
		if (!*at || *at == '\n')
			return NULL;
	}
	return at + 1;
}

/* name{label="text",...} number */
static inline const char *printed_sample(const char *at)
{
	at += strspn(at, "abcdefghijklmnopqrstuvwxyz_");
	if (*at != '{')
		return NULL;
	do {
		at++;
		at += strspn(at, "abcdefghijklmnopqrstuvwxyz_");
		at = *at == '=' ? printed_quoted(at + 1) : NULL;
	} while (at && *at == ',');
	if (!at || at[0] != '}' || at[1] != ' ' || !isdigit((unsigned char)at[2]))
		return NULL;
	at += 2;
	at += strspn(at, "0123456789.e+-");
	return *at == '\n' ? at + 1 : NULL;
}

static inline void printed_prometheus(const char *text)
{
	for (const char *at = text; *at;) {
		at = *at == '#' ? strchr(at, '\n') + 1 : printed_sample(at);
		if (!at)
			printed_wrong(text, "what is printed is no sample");
	}
}

/* Behind the tag that begins there; *depth counts those that are open. NULL: it is none. */
static inline const char *printed_tag(const char *at, int *depth)
{
	bool closes = at[1] == '/';

	at += closes ? 2 : 1;
	if (!islower((unsigned char)*at))
		return NULL;
	while (*at && *at != '>' && *at != '<' && !(at[0] == '/' && at[1] == '>')) {
		at = *at == '"' ? printed_quoted(at) : at + 1;
		if (!at)
			return NULL;
	}
	if (*at == '>')
		*depth += closes ? -1 : 1;
	return *at == '>' ? at + 1 : *at == '/' ? at + 2 : NULL;
}

/* Every tag that is opened is closed, and what texts have of &, < and > are entities. */
static inline void printed_svg(const char *text)
{
	static const char *const entities[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"};
	int depth = 0;

	for (const char *at = text; at && *at;) {
		bool known = *at != '&' && *at != '>';

		for (size_t i = 0; i < sizeof(entities) / sizeof(entities[0]); i++)
			known |= strncmp(at, entities[i], strlen(entities[i])) == 0;
		at = *at == '<' ? printed_tag(at, &depth) : at + 1;
		if (!known || !at || depth < 0)
			printed_wrong(text, "what is printed is no SVG");
	}
	if (depth)
		printed_wrong(text, "what is printed is half an SVG");
}

#endif
