/* The page that the HTTP listener serves: page.html, which the build puts into the program. It needs nothing from elsewhere. */
#ifndef DAEMON_PAGE_H
#define DAEMON_PAGE_H

#include <stddef.h>

#define PAGE_NONCE 32u /* characters that mark its script and its style as ours */

/* The page with this nonce, of PAGE_NONCE characters, in it: malloced; NULL without memory. */
char *page_new(const char *nonce, size_t *len);

#endif
