#include "daemon/objects.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "daemon/guard.h"

#define SHM_DIR "/dev/shm" /* where shm_open puts its objects, on every Linux; there is no renaming call of its own */

struct object_name {
	char text[160];
};

const char *const objects_suffix[HEAP_OBJECTS] = {"meta", "ctl", "data", "state"};

struct objects_path objects_path(const struct objects *o, const char *what)
{
	struct objects_path path;

	snprintf(path.text, sizeof(path.text), SHM_DIR "/shmalloc.%s.%s.%s", o->instance, o->heap, what);
	return path;
}

static struct object_name name_of(const struct objects *o, const char *what)
{
	struct object_name name;

	snprintf(name.text, sizeof(name.text), "/shmalloc.%s.%s.%s", o->instance, o->heap, what);
	return name;
}

__attribute__((format(printf, 3, 4))) static int refuse(struct objects *o, int error, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(o->why, sizeof(o->why), format, args);
	va_end(args);
	return error;
}

bool objects_name_ok(const char *name)
{
	size_t len = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_");

	return len && len <= OBJECTS_NAME_MAX && !name[len];
}

void objects_init(struct objects *o, const char *instance, const char *heap)
{
	*o = (struct objects){.meta_readonly = -1};
	for (int i = 0; i < HEAP_OBJECTS; i++)
		o->fd[i] = -1;
	snprintf(o->instance, sizeof(o->instance), "%s", instance);
	snprintf(o->heap, sizeof(o->heap), "%s", heap);
}

/* ---- floor ---- */

/* The length stays as it is: an object that a client has cut short must be seen to be short. */
static int back_once(int fd, uint64_t off, uint64_t len)
{
	int error;

	do
		error = fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) ? -errno : 0;
	while (error == -EINTR);
	return error;
}

/* A tmpfs leaves a page that was allocated ahead to be zeroed by whoever touches it first, one fault for each; a second call zeroes them
 * all, at a third of the cost of the first. Then one fault of a reader maps 64 KiB (shmi_heap_meet). */
static int back(void *ctx, enum heap_object object, uint64_t off, uint64_t len)
{
	struct objects *o = ctx;
	int error = back_once(o->fd[object], off, len);

	if (!error && object == HEAP_DATA)
		(void)back_once(o->fd[object], off, len); /* it is backed, zeroed or not */
	return error;
}

static int unback(void *ctx, enum heap_object object, uint64_t off, uint64_t len)
{
	struct objects *o = ctx;
	int error;

	do
		error = fallocate(o->fd[object], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len)
		                ? -errno
		                : 0;
	while (error == -EINTR);
	return error;
}

static int snapshot(void *ctx, enum heap_object object, uint64_t off, void *copy, uint64_t len)
{
	struct objects *o = ctx;
	char *to = copy;

	while (len) {
		ssize_t n = pread(o->fd[object], to, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENODATA; /* cut short */
		to += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

static void measure(void *ctx, enum heap_object object, uint64_t *length, uint64_t *backed)
{
	const struct objects *o = ctx;
	struct stat st = {0};

	(void)fstat(o->fd[object], &st); /* cannot fail for a descriptor that is open */
	*length = (uint64_t)st.st_size;
	*backed = (uint64_t)st.st_blocks * 512;
}

static bool space(void *ctx, uint64_t *all, uint64_t *free)
{
	const struct objects *o = ctx;
	struct statvfs st;

	if (fstatvfs(o->fd[HEAP_DATA], &st) || !st.f_blocks) /* a tmpfs without a bound */
		return false;
	*all = (uint64_t)st.f_blocks * st.f_frsize;
	*free = (uint64_t)st.f_bavail * st.f_frsize;
	return true;
}

struct heap_floor objects_floor(struct objects *o)
{
	return (struct heap_floor){
	        .ctx = o, .back = back, .unback = unback, .snapshot = snapshot, .measure = measure, .space = space};
}

struct heap_memory objects_memory(const struct objects *o)
{
	return (struct heap_memory){.meta = o->map[HEAP_META],
	        .ctl = o->map[HEAP_CTL],
	        .state = o->map[HEAP_STATE],
	        .meta_bytes = o->bytes[HEAP_META],
	        .ctl_bytes = o->bytes[HEAP_CTL],
	        .state_bytes = o->bytes[HEAP_STATE],
	        .instance = o->instance,
	        .name = o->heap};
}

/* ---- creation ---- */

static int map_object(struct objects *o, enum heap_object i)
{
	if (i == HEAP_DATA)
		return 0;
	void *map = mmap(NULL, o->bytes[i], PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, o->fd[i], 0);

	if (map == MAP_FAILED)
		return refuse(o, -errno, "cannot map %s: %s", name_of(o, objects_suffix[i]).text, strerror(errno));
	o->map[i] = map;
	/* The state object is nobody else's; the others are looked at under the guard. */
	return i == HEAP_STATE ? 0 : guard_watch(map, o->bytes[i]);
}

static int create_object(struct objects *o, enum heap_object i, uint64_t bytes, uint64_t backed)
{
	struct object_name name = name_of(o, i == HEAP_META ? "new" : objects_suffix[i]);

	o->fd[i] = shm_open(name.text, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (o->fd[i] < 0)
		return refuse(o, -errno, "cannot create %s: %s", name.text, strerror(errno));
	if (ftruncate(o->fd[i], (off_t)bytes))
		return refuse(o, -errno, "cannot make %s %llu bytes long: %s", name.text, (unsigned long long)bytes,
		        strerror(errno));
	o->bytes[i] = bytes;
	int error = backed ? back(o, i, 0, backed) : 0;

	if (error)
		return refuse(o, error, "no memory in %s for %s: %s", SHM_DIR, name.text, strerror(-error));
	return map_object(o, i);
}

/* Our own readers must get a descriptor that cannot be made writable: it is opened, not duplicated. */
static int open_readonly(struct objects *o, const char *meta)
{
	o->meta_readonly = shm_open(meta, O_RDONLY | O_CLOEXEC, 0);
	return o->meta_readonly < 0 ? refuse(o, -errno, "cannot open %s: %s", meta, strerror(errno)) : 0;
}

int objects_create(struct objects *o, uint32_t limit_pages)
{
	struct shmi_geometry geo;

	shmi_geometry_init(&geo, limit_pages);
	objects_unlink(o);
	int error = create_object(o, HEAP_STATE, sizeof(struct shmi_state), 4096);

	if (!error)
		error = create_object(o, HEAP_DATA, (uint64_t)limit_pages << SHMI_PAGE_SHIFT, 0);
	if (!error)
		error = create_object(o, HEAP_CTL, geo.ctl_bytes, 4096);
	if (!error)
		error = create_object(o, HEAP_META, geo.meta_bytes, geo.fixed_bytes);
	if (!error)
		error = open_readonly(o, name_of(o, "new").text);
	if (error) {
		objects_unlink(o);
		objects_close(o);
	}
	return error;
}

int objects_publish(struct objects *o)
{
	struct objects_path from = objects_path(o, "new"), to = objects_path(o, "meta");

	if (renameat2(AT_FDCWD, from.text, AT_FDCWD, to.text, RENAME_NOREPLACE))
		return refuse(o, -errno, "cannot rename %s to %s: %s", from.text, to.text, strerror(errno));
	return 0;
}

/* ---- opening ---- */

bool objects_exist(const struct objects *o)
{
	struct stat st;

	return lstat(objects_path(o, "meta").text, &st) == 0;
}

/* How much of ctl is looked at. A client can make it longer than any address space: that is no reason to refuse the heap. */
static uint64_t useful_bytes(const struct objects *o, enum heap_object i, uint64_t bytes)
{
	const struct shmi_super *super = o->map[HEAP_META];
	struct shmi_geometry geo;

	if (i != HEAP_CTL || super->geometry.limit_pages < 2 || super->geometry.limit_pages > SHMI_MAX_PAGES)
		return bytes;
	shmi_geometry_init(&geo, super->geometry.limit_pages);
	return bytes < geo.ctl_bytes ? bytes : geo.ctl_bytes;
}

static int open_object(struct objects *o, enum heap_object i)
{
	struct object_name name = name_of(o, objects_suffix[i]);
	struct stat st;

	o->fd[i] = shm_open(name.text, O_RDWR | O_CLOEXEC, 0);
	if (o->fd[i] < 0)
		return refuse(o, -EPROTO, "cannot open %s: %s", name.text, strerror(errno));
	if (fstat(o->fd[i], &st))
		return refuse(o, -EPROTO, "cannot look at %s: %s", name.text, strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 0077) || st.st_nlink != 1)
		return refuse(
		        o, -EPROTO, "%s is not ours: it must be a file of uid %u with mode 0600", name.text, geteuid());
	if (st.st_size < 4096)
		return refuse(o, -EPROTO, "%s is cut short: it has %lld bytes", name.text, (long long)st.st_size);
	o->bytes[i] = useful_bytes(o, i, (uint64_t)st.st_size);
	return map_object(o, i);
}

int objects_open(struct objects *o)
{
	int error = 0;

	for (int i = 0; !error && i < HEAP_OBJECTS; i++)
		error = open_object(o, (enum heap_object)i);
	if (!error)
		error = open_readonly(o, name_of(o, "meta").text);
	if (error)
		objects_close(o);
	return error;
}

/* ---- the end ---- */

void objects_unlink(const struct objects *o)
{
	/* meta first: without it the heap is not there. */
	shm_unlink(name_of(o, objects_suffix[HEAP_META]).text);
	shm_unlink(name_of(o, "new").text);
	for (int i = HEAP_CTL; i < HEAP_OBJECTS; i++)
		shm_unlink(name_of(o, objects_suffix[i]).text);
}

void objects_close(struct objects *o)
{
	for (int i = 0; i < HEAP_OBJECTS; i++) {
		if (o->map[i]) {
			guard_unwatch(o->map[i]);
			munmap(o->map[i], o->bytes[i]);
		}
		if (o->fd[i] >= 0)
			close(o->fd[i]);
		o->map[i] = NULL;
		o->fd[i] = -1;
	}
	if (o->meta_readonly >= 0)
		close(o->meta_readonly);
	o->meta_readonly = -1;
}
