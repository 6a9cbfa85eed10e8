/* The client that a command is about: an id, as `shmallocctl clients` shows it. */
#ifndef CLIENT_CTL_WHO_H
#define CLIENT_CTL_WHO_H

#include "client/ctl/ctl.h"

/* Reads an id. Returns CTL_OK or CTL_USAGE. */
int ctl_who(struct ctl *ctl, const char *arg, uint32_t *id);

/* Asks for the client's row; *found is false if there is no such client. Returns the exit status. */
int ctl_who_row(struct ctl *ctl, uint32_t id, struct wire_client_row *row, bool *found);

#endif
