#include "shm/roots.h"

#include <string.h>

int shmi_root_key_init(struct shmi_root_key *key, const char *name)
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

bool shmi_root_named(struct shmi_root *root, const struct shmi_root_key *key)
{
	for (size_t w = 0; w < SHMI_ROOT_NAME_WORDS; w++)
		if (shmi_load(&shmi_root_name_words(root)[w]) != key->words[w])
			return false;
	return true;
}

/* The offset of `root` if it bears the name, else 0. The name belongs to the offset if no change of name came between (P4);
 * after a change we look again. */
static uint64_t off_if_named(struct shmi_root *root, const struct shmi_root_key *key)
{
	for (;;) {
		uint32_t seq = shmi_load_acquire(&root->seq);
		uint64_t off = shmi_load_acquire(&root->off);

		if (!off || !shmi_root_named(root, key))
			return 0;
		shmi_fence();
		if (shmi_load(&root->seq) == seq)
			return seq % 2 == 0 ? off : 0;
	}
}

int shmi_roots_get(const struct shmi_image *img, const char *name, shmi_off *off)
{
	struct shmi_root_key key;

	if (shmi_root_key_init(&key, name))
		return SHMI_E_ROOT_NAME;
	for (uint32_t r = 0; r < SHMI_MAX_ROOTS; r++) {
		off->b = off_if_named(shmi_root_at(img, r), &key);
		if (off->b)
			return 0;
	}
	return SHMI_E_ROOT_NONE;
}
