#include "shm/roots.h"

#include <string.h>

/* A name is written and read in words, with plain atomic stores and loads: a reader may look while the daemon writes. */
#define NAME_WORDS (sizeof(((struct shmi_root *)0)->name) / sizeof(uint64_t))

_Static_assert(offsetof(struct shmi_root, name) % sizeof(uint64_t) == 0, "a name is aligned to words");
_Static_assert(sizeof(((struct shmi_root *)0)->name) % sizeof(uint64_t) == 0, "a name is whole words");

struct key {
	uint64_t words[NAME_WORDS]; /* the name, zero-filled */
};

static int key_init(struct key *key, const char *name)
{
	size_t len = 0;

	while (len <= SHMI_ROOT_NAME_MAX && name[len])
		len++;
	if (!len || len > SHMI_ROOT_NAME_MAX)
		return SHMI_E_ROOT_NAME;
	memset(key, 0, sizeof(*key));
	memcpy(key->words, name, len);
	return 0;
}

static shmi_a64 *name_words(struct shmi_root *root)
{
	return (shmi_a64 *)(void *)root->name;
}

static bool name_is(struct shmi_root *root, const struct key *key)
{
	for (size_t w = 0; w < NAME_WORDS; w++)
		if (shmi_load(&name_words(root)[w]) != key->words[w])
			return false;
	return true;
}

/* The offset of `root` if it bears the name, else 0. The name belongs to the offset if no change of name came between (P4);
 * after a change we look again. */
static uint64_t off_if_named(struct shmi_root *root, const struct key *key)
{
	for (;;) {
		uint32_t seq = shmi_load_acquire(&root->seq);
		uint64_t off = shmi_load_acquire(&root->off);

		if (!off || !name_is(root, key))
			return 0;
		shmi_fence();
		if (shmi_load(&root->seq) == seq)
			return seq % 2 == 0 ? off : 0;
	}
}

int shmi_roots_get(const struct shmi_image *img, const char *name, shmi_off *off)
{
	struct key key;

	if (key_init(&key, name))
		return SHMI_E_ROOT_NAME;
	for (uint32_t r = 0; r < SHMI_MAX_ROOTS; r++) {
		off->b = off_if_named(shmi_root_at(img, r), &key);
		if (off->b)
			return 0;
	}
	return SHMI_E_ROOT_NONE;
}

/* The entry of that name, else NULL and the first that is free (NULL: none is) in *unused. */
static struct shmi_root *find(struct shmi_image *img, const struct key *key, struct shmi_root **unused)
{
	*unused = NULL;
	for (uint32_t r = 0; r < SHMI_MAX_ROOTS; r++) {
		struct shmi_root *root = shmi_root_at(img, r);

		if (!shmi_load(&root->off)) {
			if (!*unused)
				*unused = root;
		} else if (name_is(root, key)) {
			return root;
		}
	}
	return NULL;
}

/* The name of an entry that is not in use: a death between any two stores leaves it not in use. */
static void rename_root(struct shmi_root *root, const struct key *key)
{
	uint32_t odd = shmi_load(&root->seq) | 1; /* odd already if a daemon died here */

	shmi_store(&root->seq, odd);
	atomic_thread_fence(memory_order_release);
	for (size_t w = 0; w < NAME_WORDS; w++)
		shmi_store(&name_words(root)[w], key->words[w]);
	shmi_store_release(&root->seq, odd + 1);
}

int shmi_roots_set(struct shmi_image *img, const char *name, shmi_off off, uint32_t client)
{
	struct shmi_root *root, *unused;
	struct key key;

	if (key_init(&key, name))
		return SHMI_E_ROOT_NAME;
	root = find(img, &key, &unused);
	if (!root && !unused)
		return SHMI_E_ROOT_FULL;
	if (!root) {
		root = unused;
		rename_root(root, &key);
	}
	shmi_store(&root->client, (uint16_t)client);
	shmi_store_release(&root->off, off.b); /* published */
	return 0;
}

int shmi_roots_del(struct shmi_image *img, const char *name)
{
	struct shmi_root *root, *unused;
	struct key key;

	if (key_init(&key, name))
		return SHMI_E_ROOT_NAME;
	root = find(img, &key, &unused);
	if (!root)
		return SHMI_E_ROOT_NONE;
	shmi_store_release(&root->off, 0);
	return 0;
}
