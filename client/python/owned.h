/* Which blocks this process owns: those that it frees when nobody refers to them any more, and at its end.
 *
 * A record for each, outside the interpreter's memory, so that the list can still be walked when the interpreter is gone. A
 * fork copies the records, but not the ownership: each bears the number of the process that made it, and in a child that
 * number has moved on. (A pid would do, were pids not used again.)
 *
 * All functions are called with the interpreter's lock held, or when there is no interpreter any more.
 */
#ifndef CLIENT_PYTHON_OWNED_H
#define CLIENT_PYTHON_OWNED_H

#include <stdbool.h>
#include <stddef.h>

struct shmi_py_owned {
	struct shmi_py_owned *prev, *next;
	void *block; /* NULL: free already, or yet to be allocated */
	size_t wipe; /* bytes at its start that are zeroed before it is freed */
	unsigned process; /* shmi_py_process() of the owner */
};

/* Counts the forks that led to this process. */
unsigned shmi_py_process(void);

/* To be called once. Returns 0 or an errno. */
int shmi_py_owned_init(void);

/* NULL without memory. A record for a block that is yet to be allocated is made first, and the block set without the lock: a
 * thread that the end of the interpreter stops when it asks for the lock again has then not lost it. */
struct shmi_py_owned *shmi_py_own(void *block, size_t wipe);

/* Whether this process owns it; NULL: no. */
bool shmi_py_is_owned(const struct shmi_py_owned *owned);

/* Takes the record off the list and frees it. What it says is in *was, if this process owned the block; then true. */
bool shmi_py_disown(struct shmi_py_owned *owned, struct shmi_py_owned *was);

/* Takes the record off the list of all and pushes it on `chain`, if this process owns the block; else frees the record. */
void shmi_py_chain(struct shmi_py_owned *owned, struct shmi_py_owned **chain);

/* Frees a block of which *was tells: may wait for the daemon, and needs no interpreter. */
void shmi_py_free(const struct shmi_py_owned *was);

/* The same for all of a chain, and the records. */
void shmi_py_free_chain(struct shmi_py_owned *chain);

/* The process ends: frees all blocks that it owns. The records stay, as there are objects that refer to them. */
void shmi_py_free_all(void);

#endif
