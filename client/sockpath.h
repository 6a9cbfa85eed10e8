/* Where a daemon is looked for when nobody says: the library and shmallocctl agree. */
#ifndef CLIENT_SOCKPATH_H
#define CLIENT_SOCKPATH_H

#include <stdbool.h>

#define SHMI_PATH_MAX 108 /* of a Unix socket, with the final zero */

/* $SHMALLOC_SOCKET; else the first of these that is there, in a directory that is ours: $XDG_RUNTIME_DIR/shmalloc/shmalloc.sock
 * and /tmp/shmalloc-UID/shmalloc.sock; else /run/shmalloc/shmalloc.sock. A
 * set-user-id program does not follow the environment. False if $SHMALLOC_SOCKET is too long for a socket's path. */
bool shmi_socket_default(char path[SHMI_PATH_MAX]);

#endif
