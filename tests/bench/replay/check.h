/* What -c looks at. Each byte of a block bears a pattern that follows from the id, the object's generation and the byte's
 * place: so a block that two objects share, a stale block and a shifted one are all told apart.
 *
 * Findings are counted in the player's outcome; the first few are printed with the event they belong to. */
#ifndef REPLAY_CHECK_H
#define REPLAY_CHECK_H

#include "tests/bench/replay/replay.h"

/* A new block came for event `at`: alignment, usable size, zeros (calloc); then it is filled. */
void check_new(struct player *p, uint64_t at, void *block, size_t usable);

/* The block of event `at` is about to be freed: all its bytes are as they were filled. */
void check_old(struct player *p, uint64_t at, const void *block);

/* Event `at` is a realloc. Before: the bytes that will be cut off. After (NULL: it failed): those that must be kept; the
 * others are filled. */
void check_before_realloc(struct player *p, uint64_t at, const void *block);
void check_after_realloc(struct player *p, uint64_t at, void *block, size_t usable);

#endif
