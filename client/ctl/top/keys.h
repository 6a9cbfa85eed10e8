/* What the keys of `shmallocctl top` do. */
#ifndef CLIENT_CTL_TOP_KEYS_H
#define CLIENT_CTL_TOP_KEYS_H

#include "client/ctl/top/screen.h"

#define TOP_INTERVAL_LEAST_MS 100u /* more often than anybody can read */
#define TOP_INTERVAL_MOST_MS 3600000u

/* A key as curses has it. False without memory. */
bool top_key(struct top_screen *screen, struct top_model *model, int key);

/* Lines of help; NULL beyond the last. */
const char *top_key_help(uint32_t index);

#endif
