/* The one line that a recognised misuse leaves on standard error, and the end. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "client/heap.h"

static const char *what_happened(enum shmi_tc_free what)
{
	switch (what) {
	case SHMI_FREE_TWICE:
		return "double free of";
	case SHMI_FREE_INSIDE:
		return "invalid free: a pointer into the middle of a block,";
	case SHMI_FREE_OUTSIDE:
		return "invalid free: outside every heap,";
	default:
		return "invalid free: no block begins at";
	}
}

/* Whose the block's span is; "" where there is none. */
static void describe_span(const struct shmi_image *img, shmi_page page, char *text, size_t room)
{
	uint32_t first = shmi_image_page_ok(img, page) ? shmi_load_acquire(shmi_page_span_at(img, page)) : 0;
	struct shmi_word word = shmi_span_word(img, (shmi_page){first <= page.i ? first : 0});

	*text = 0;
	if (!first || first > page.i || !shmi_state_in_use(word.state))
		return;
	int n = snprintf(text, room, ", span %u of %u-byte blocks", first,
	        shmi_sclass_is_small(word.sclass) ? img->classes[shmi_sclass_size_class(word.sclass)].size : 0);

	if (n < 0 || (size_t)n >= room)
		return;
	if (word.owner == SHMI_NOBODY)
		(void)snprintf(text + n, room - (size_t)n, ", held by nobody");
	else
		(void)snprintf(text + n, room - (size_t)n, ", held by client %u", word.owner);
}

_Noreturn void shmi_misuse(const struct shmi_tc_env *env, enum shmi_tc_free what, uint64_t off)
{
	char span[96] = "";

	if (what != SHMI_FREE_OUTSIDE)
		describe_span(&env->img, shmi_off_page((shmi_off){off}), span, sizeof(span));
	(void)dprintf(STDERR_FILENO, "shmalloc: %d: %s 0x%llx (offset 0x%llx)%s\n", (int)getpid(), what_happened(what),
	        (unsigned long long)env->base + off, (unsigned long long)off, span);
	abort();
}
