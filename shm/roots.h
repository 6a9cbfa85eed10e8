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

/* A name is written and read in words, with plain atomic stores and loads: a reader may look while the daemon writes. */
#define SHMI_ROOT_NAME_WORDS (sizeof(((struct shmi_root *)0)->name) / sizeof(uint64_t))
_Static_assert(offsetof(struct shmi_root, name) % sizeof(uint64_t) == 0, "a name is aligned to words");
_Static_assert(sizeof(((struct shmi_root *)0)->name) % sizeof(uint64_t) == 0, "a name is whole words");

struct shmi_root_key {
	uint64_t words[SHMI_ROOT_NAME_WORDS]; /* a name, zero-filled */
};

static inline shmi_a64 *shmi_root_name_words(struct shmi_root *root)
{
	return (shmi_a64 *)(void *)root->name;
}

/* Returns 0 or SHMI_E_ROOT_NAME. */
int shmi_root_key_init(struct shmi_root_key *key, const char *name);
bool shmi_root_named(struct shmi_root *root, const struct shmi_root_key *key);

/* Any reader. Returns 0 and *off, or SHMI_E_ROOT_NONE or _NAME. */
int shmi_roots_get(const struct shmi_image *img, const char *name, shmi_off *off);

/* The daemon. `off` is not 0; whether a block begins there is the caller's to check. */
int shmi_roots_set(struct shmi_image *img, const char *name, shmi_off off, uint32_t client);
int shmi_roots_del(struct shmi_image *img, const char *name);

#endif
