/* Huge pages, as far as somebody can advise them who does not map the data.
 *
 * Whether a tmpfs gives huge pages is said by its mount (huge=) or, for memory files, by shmem_enabled, and is not ours to change: a
 * heap's setting says what is wanted. Where the tmpfs takes advice, clients are told, in meta's superblock, to give it when they map
 * the data (SHMI_ADVICE_HUGE). Where it does not, that is logged, and nobody is told anything.
 */
#ifndef DAEMON_HUGEPAGES_H
#define DAEMON_HUGEPAGES_H

#include <stddef.h>

#include "daemon/config.h"

/* Whether clients should advise huge pages for the object `fd`, when `want` is configured. If what is wanted cannot be had in full,
 * `why` says so; else it is empty. */
bool hugepages_advised(int fd, enum config_huge want, char *why, size_t room);

#endif
