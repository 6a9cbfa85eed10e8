/* What only the daemon does with roots: a file of its own, so that the client does not contain it. */
#include "shm/roots.h"

/* The entry of that name, else NULL and the first that is free (NULL: none is) in *unused. */
static struct shmi_root *find(struct shmi_image *img, const struct shmi_root_key *key, struct shmi_root **unused)
{
	*unused = NULL;
	for (uint32_t r = 0; r < SHMI_MAX_ROOTS; r++) {
		struct shmi_root *root = shmi_root_at(img, r);

		if (!shmi_load(&root->off)) {
			if (!*unused)
				*unused = root;
		} else if (shmi_root_named(root, key)) {
			return root;
		}
	}
	return NULL;
}

/* The name of an entry that is not in use: a death between any two stores leaves it not in use. */
static void rename_root(struct shmi_root *root, const struct shmi_root_key *key)
{
	uint32_t odd = shmi_load(&root->seq) | 1; /* odd already if a daemon died here */

	shmi_store(&root->seq, odd);
	atomic_thread_fence(memory_order_release);
	for (size_t w = 0; w < SHMI_ROOT_NAME_WORDS; w++)
		shmi_store(&shmi_root_name_words(root)[w], key->words[w]);
	shmi_store_release(&root->seq, odd + 1);
}

int shmi_roots_set(struct shmi_image *img, const char *name, shmi_off off, uint32_t client)
{
	struct shmi_root *root, *unused;
	struct shmi_root_key key;

	if (shmi_root_key_init(&key, name))
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
	struct shmi_root_key key;

	if (shmi_root_key_init(&key, name))
		return SHMI_E_ROOT_NAME;
	root = find(img, &key, &unused);
	if (!root)
		return SHMI_E_ROOT_NONE;
	shmi_store_release(&root->off, 0);
	return 0;
}
