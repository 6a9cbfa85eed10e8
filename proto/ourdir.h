/* Where a socket may be looked for and made: daemon and clients must agree, or one listens where the others do not look. */
#ifndef PROTO_OURDIR_H
#define PROTO_OURDIR_H

#include <stdbool.h>

/* Whether it is a directory of this user's that nobody else can write. Anybody can make one of a known name, and set a variable. */
bool shmi_dir_is_ours(const char *dir);

#endif
