#include "daemon/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <time.h>

#include "daemon/aside.h"
#include "daemon/boots.h"
#include "daemon/guard.h"
#include "daemon/log.h"
#include "daemon/passed.h"
#include "shm/stats.h"

static int make_heap(struct objects *o, struct heap *heap, const struct config_heap *config)
{
	struct timespec now = {0};
	struct shmi_image_params params = {.heap_name = config->name, .limit_pages = shmi_npages_of(config->size).n};

	clock_gettime(CLOCK_REALTIME, &now);
	params.created_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	params.base = heap_base_address(o->instance, o->heap, params.limit_pages);
	if (getrandom(&params.heap_id, sizeof(params.heap_id), 0) != sizeof(params.heap_id) ||
	        objects_create(o, params.limit_pages)) {
		log_line(LEVEL_ERROR, "cannot make heap '%s': %s", o->heap, o->why);
		return 1;
	}
	const struct heap_floor floor = objects_floor(o);
	const struct heap_memory memory = objects_memory(o);

	if (heap_create(heap, &floor, &memory, &params) || objects_publish(o)) {
		log_line(LEVEL_ERROR, "cannot make heap '%s': %s", o->heap, o->why);
		objects_unlink(o);
		return 1;
	}
	boots_begin(heap->state);
	log_line(LEVEL_INFO, "made heap '%s' of %llu MiB, instance '%s'", o->heap,
	        (unsigned long long)(config->size >> 20), o->instance);
	return 0;
}

void store_refuse(struct objects *o, const char *why, const char *left)
{
	log_line(LEVEL_ERROR, "refused heap '%s' (/shmalloc.%s.%s.*): %s; %s; --reset drops it and makes a new one",
	        o->heap, o->instance, o->heap, why, left);
	if (why != o->why)
		snprintf(o->why, sizeof(o->why), "%s", why);
}

/* The state object, if it is one of this layout: of another one nothing is touched, the count neither. */
static struct shmi_state *state_of(const struct objects *o)
{
	struct shmi_state *state = o->map[HEAP_STATE];

	return o->bytes[HEAP_STATE] >= sizeof(*state) && state->magic == SHMI_STATE_MAGIC &&
	                       state->layout_hash == shmi_layout_hash()
	               ? state
	               : NULL;
}

/* Too many starts have died of it: makes room for a new one. */
static int set_aside(struct objects *o)
{
	unsigned number;

	if (aside_set(o, &number)) {
		log_line(LEVEL_ERROR,
		        "the last %u starts with heap '%s' (/shmalloc.%s.%s.*) died before they served, and it cannot "
		        "be "
		        "set aside: %s",
		        BOOTS_MOST, o->heap, o->instance, o->heap, o->why);
		objects_close(o);
		return 1;
	}
	if (o->sealed) {
		log_event(LEVEL_ERROR, LOG_ASIDE, ((struct log_fields){.heap = o->heap}),
		        "SET ASIDE heap '%s': the last %u starts with it died before they served; the service manager "
		        "keeps its memory as %s.aside-%u.* until the service is stopped; a new, empty heap takes its "
		        "place",
		        o->heap, BOOTS_MOST, o->heap, number);
		return 0;
	}
	log_event(LEVEL_ERROR, LOG_ASIDE, ((struct log_fields){.heap = o->heap}),
	        "SET ASIDE heap '%s': the last %u starts with it died before they served; what was in it is now in "
	        "%s, ...ctl, ...data and ...state, until somebody removes these (see shmallocd(8)); a new, empty heap "
	        "takes its place",
	        o->heap, BOOTS_MOST, aside_path(o, number, HEAP_META).text);
	return 0;
}

static int adopt_counted(struct objects *o, struct heap *heap, struct shmi_state *state, const char **why)
{
	const struct heap_floor floor = objects_floor(o);
	const struct heap_memory memory = objects_memory(o);

	if (state)
		boots_begin(state);
	int error = heap_adopt(heap, &floor, &memory, o->bytes[HEAP_DATA], why);

	if (error && state)
		boots_refused(state);
	return error;
}

/* *again: the heap was set aside, and there is none now. */
static int adopt_heap(struct objects *o, struct heap *heap, bool *again)
{
	const char *why = o->why;

	if (!objects_open(o)) {
		struct shmi_state *state = state_of(o);

		*again = state && boots_exhausted(state);
		if (*again)
			return set_aside(o);
		if (!adopt_counted(o, heap, state, &why))
			return 0;
	}
	store_refuse(o, why, "it was not touched");
	objects_close(o);
	return 1;
}

/* A limit beyond what the system has is no error: the heap is address space first. But somebody should know. */
static void note_shortage(const struct objects *o, const struct heap *heap)
{
	uint64_t bytes = shmi_npages_bytes((shmi_npages){heap->img.geo.limit_pages});
	struct statvfs fs;

	if (!fstatvfs(o->fd[HEAP_DATA], &fs) && fs.f_blocks && fs.f_blocks * fs.f_frsize < bytes)
		log_line(LEVEL_INFO, "/dev/shm holds %llu MiB at most: less than the limit of heap '%s'",
		        (unsigned long long)(fs.f_blocks * fs.f_frsize >> 20), heap->name);
}

/* What our memory cgroup allows, UINT64_MAX without a limit. Only the unified hierarchy is looked at. */
static uint64_t cgroup_limit(void)
{
	char group[512] = "", path[600], text[32] = "";
	unsigned long long limit = 0;
	FILE *file = fopen("/proc/self/cgroup", "re");

	if (!file)
		return UINT64_MAX;
	while (fgets(group, sizeof(group), file) && strncmp(group, "0::", 3) != 0)
		group[0] = 0;
	(void)fclose(file);
	group[strcspn(group, "\n")] = 0;
	snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max", group[0] ? group + 3 : "");
	file = fopen(path, "re");
	if (!file)
		return UINT64_MAX;
	if (fgets(text, sizeof(text), file))
		limit = strtoull(text, NULL, 10);
	(void)fclose(file);
	return limit ? limit : UINT64_MAX; /* "max" is 0 here */
}

/* Going over the cgroup's limit is a SIGKILL inside fallocate and not an error. */
static void note_cgroup(const struct heap *heap)
{
	uint64_t bytes = shmi_npages_bytes((shmi_npages){heap->img.geo.limit_pages}), limit = cgroup_limit();

	if (bytes > limit)
		log_line(LEVEL_WARN,
		        "the heap's limit of %llu MiB is above the %llu MiB of this memory cgroup: the kernel may kill "
		        "shmallocd before the heap is full",
		        (unsigned long long)(bytes >> 20), (unsigned long long)(limit >> 20));
}

static int adopt_or_make(struct objects *o, struct heap *heap, const struct config_heap *config, bool *adopted)
{
	bool again = false;

	if (!o->sealed)
		aside_finish(o);
	*adopted = objects_exist(o);
	if (*adopted) {
		int failed = adopt_heap(o, heap, &again);

		if (failed || !again)
			return failed;
	}
	*adopted = false;
	o->sealed = config->backing == BACKING_MEMFD;
	return make_heap(o, heap, config);
}

/* What there is of a heap of that name, of either kind. */
static void drop_both(struct objects *o)
{
	for (int sealed = 0; sealed < 2; sealed++) {
		o->sealed = sealed;
		objects_unlink(o);
	}
}

/* A heap that is there keeps what it is made of, as it keeps its size. */
static void choose_backing(struct objects *o, const struct config_heap *config)
{
	bool wanted = config->backing == BACKING_MEMFD;

	o->sealed = false;
	o->sealed = objects_are_kept(o) || (wanted && !objects_exist(o));
	if (o->sealed != wanted)
		log_line(LEVEL_WARN, "heap '%s' keeps its backing, %s; the setting only counts for a new one", o->heap,
		        o->sealed ? "memfd" : "shm");
	else if (o->sealed && !passed_has_store())
		log_line(LEVEL_WARN,
		        "heap '%s' is of sealed memory, and there is no service manager to keep it: it ends with "
		        "this daemon",
		        o->heap);
}

int store_take(
        struct objects *o, struct heap *heap, const char *instance, const struct config_heap *config, bool *adopted)
{
	objects_init(o, instance, config->name);
	if (config->reset)
		drop_both(o);
	choose_backing(o, config);
	if (adopt_or_make(o, heap, config, adopted)) {
		objects_close(o);
		return 1;
	}
	note_shortage(o, heap);
	note_cgroup(heap);
	return 0;
}

static int look_guarded(void *ctx)
{
	struct heap *heap = ctx;
	struct shmi_heap_stats st;

	shmi_stats_heap(&heap->img, &st);
	return st.live_blocks || st.roots || st.written_off || st.quarantined ? 1 : 0;
}

bool store_has_blocks(struct heap *heap)
{
	return heap->fenced || guard_run(look_guarded, heap) != 0;
}

void store_end(struct objects *o, struct heap *heap, bool keep)
{
	if (!keep) {
		objects_unlink(o);
		log_line(LEVEL_INFO, "stopped; heap '%s' was empty and is gone", heap->name);
		return;
	}
	shmi_store_release(&heap->img.super->dirty, 0);
	shmi_store(&heap->state->boots, 0);
	if (o->sealed && !passed_has_store()) {
		log_line(LEVEL_WARN,
		        "stopped; heap '%s' was in use, and ends with this daemon: nobody keeps its memory",
		        heap->name);
		return;
	}
	log_line(LEVEL_INFO, "stopped; heap '%s' stays, it is in use%s", heap->name,
	        o->sealed ? ", until the service is stopped" : "");
}
