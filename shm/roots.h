/* Named roots: how a process finds the first block. The daemon writes, clients read in the read-only map without a message.
 *
 * A root names a block's offset. The name of an entry changes only while its `off` is 0, inside an odd `seq` (P4).
 * Setting a name that is there replaces its offset with one store.
 */
#ifndef SHM_ROOTS_H
#define SHM_ROOTS_H

#include "shm/image.h"

#define SHMI_E_ROOT_NONE 1 /* no such name */
#define SHMI_E_ROOT_FULL 2 /* all SHMI_MAX_ROOTS are taken */
#define SHMI_E_ROOT_NAME 3 /* empty, or longer than SHMI_ROOT_NAME_MAX bytes */

/* Any reader. Returns 0 and *off, or SHMI_E_ROOT_NONE or _NAME. */
int shmi_roots_get(const struct shmi_image *img, const char *name, shmi_off *off);

/* The daemon. `off` is not 0; whether a block begins there is the caller's to check. */
int shmi_roots_set(struct shmi_image *img, const char *name, shmi_off off, uint32_t client);
int shmi_roots_del(struct shmi_image *img, const char *name);

#endif
