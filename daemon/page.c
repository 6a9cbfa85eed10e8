#include "daemon/page.h"

#include <stdlib.h>
#include <string.h>

#define MARK "@@@@@@@@@@@@@@@@@@@@@@@@@@NONCE@" /* in page.html, as long as a nonce */

_Static_assert(sizeof(MARK) == PAGE_NONCE + 1, "a nonce takes the place of its mark");

static const unsigned char page[] = {
#include "daemon/page.inc"
        0};

enum { PAGE_BYTES = sizeof(page) };

char *page_new(const char *nonce, size_t *len)
{
	char *copy = malloc(PAGE_BYTES);

	if (!copy)
		return NULL;
	memcpy(copy, page, PAGE_BYTES);
	for (char *at = copy; (at = strstr(at, MARK)) != NULL;)
		memcpy(at, nonce, PAGE_NONCE);
	*len = PAGE_BYTES - 1;
	return copy;
}
