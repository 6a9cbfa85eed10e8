#include "client/python/owned.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "client/shmalloc.h"

static struct shmi_py_owned all = {.prev = &all, .next = &all};
static unsigned process;

static void count_fork(void)
{
	process++;
}

unsigned shmi_py_process(void)
{
	return process;
}

int shmi_py_owned_init(void)
{
	return pthread_atfork(NULL, NULL, count_fork);
}

struct shmi_py_owned *shmi_py_own(void *block, size_t wipe)
{
	struct shmi_py_owned *owned = malloc(sizeof(*owned));

	if (!owned)
		return NULL;
	*owned = (struct shmi_py_owned){
	        .prev = &all, .next = all.next, .block = block, .wipe = wipe, .process = process};
	all.next->prev = owned;
	all.next = owned;
	return owned;
}

bool shmi_py_is_owned(const struct shmi_py_owned *owned)
{
	return owned && owned->block && owned->process == process;
}

static void unlink_owned(struct shmi_py_owned *owned)
{
	owned->prev->next = owned->next;
	owned->next->prev = owned->prev;
}

bool shmi_py_disown(struct shmi_py_owned *owned, struct shmi_py_owned *was)
{
	bool ours = shmi_py_is_owned(owned);

	if (ours)
		*was = *owned;
	if (owned)
		unlink_owned(owned);
	free(owned);
	return ours;
}

void shmi_py_chain(struct shmi_py_owned *owned, struct shmi_py_owned **chain)
{
	if (!owned)
		return;
	unlink_owned(owned);
	if (shmi_py_is_owned(owned)) {
		owned->next = *chain;
		*chain = owned;
	} else {
		free(owned);
	}
}

void shmi_py_free(const struct shmi_py_owned *was)
{
	if (was->wipe)
		memset(was->block, 0, was->wipe);
	shma_free(was->block);
}

void shmi_py_free_chain(struct shmi_py_owned *chain)
{
	while (chain) {
		struct shmi_py_owned *owned = chain;

		chain = owned->next;
		shmi_py_free(owned);
		free(owned);
	}
}

void shmi_py_free_all(void)
{
	for (struct shmi_py_owned *owned = all.next; owned != &all; owned = owned->next) {
		struct shmi_py_owned was = *owned;

		owned->block = NULL;
		if (was.block && was.process == process)
			shmi_py_free(&was);
	}
}
