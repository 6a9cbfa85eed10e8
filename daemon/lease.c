#include "daemon/lease.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define SHM_DIR "/dev/shm"

static struct flock lock_of(uint32_t client, int type)
{
	return (struct flock){
	        .l_type = (short)type, .l_whence = SEEK_SET, .l_start = (off_t)(LEASE_AT + client), .l_len = 1};
}

/* Another description of the object, not another descriptor of ours. By way of /proc, as its name may be gone. */
static int open_again(int data)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", data);
	int fd = open(path, O_RDWR | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static void take_spare(struct leases *leases)
{
	if (leases->spare < 0)
		leases->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

int leases_give(struct leases *leases, uint32_t client)
{
	struct flock lock = lock_of(client, F_RDLCK);

	take_spare(leases);
	int fd = open_again(leases->data);

	if ((fd == -EMFILE || fd == -ENFILE) && leases->spare >= 0) {
		close(leases->spare);
		leases->spare = -1;
		fd = open_again(leases->data);
	}
	if (fd < 0 || !fcntl(fd, F_OFD_SETLK, &lock))
		return fd;
	int error = -errno;

	close(fd);
	return error;
}

bool leases_held(struct leases *leases, uint32_t client)
{
	struct flock lock = lock_of(client, F_WRLCK);

	return fcntl(leases->data, F_OFD_GETLK, &lock) || lock.l_type != F_UNLCK;
}

/* True if a mapping holds a lease and its end is the lease's. */
static bool mapping_holds(struct leases *probe)
{
	long page = sysconf(_SC_PAGESIZE);
	int fd = leases_give(probe, 0);

	if (fd < 0)
		return false;
	void *map = mmap(NULL, (size_t)page, PROT_NONE, MAP_SHARED, fd, 0);

	close(fd);
	if (map == MAP_FAILED)
		return false;
	bool held = leases_held(probe, 0);

	munmap(map, (size_t)page);
	return held && !leases_held(probe, 0);
}

/* Tried on a file of our own without a name: on `data` clients could have locks by which it seems not to work. */
static bool behaves(void)
{
	struct leases probe = {.data = open(SHM_DIR, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600), .spare = -1};
	bool yes = probe.data >= 0 && mapping_holds(&probe);

	leases_deinit(&probe);
	if (probe.data >= 0)
		close(probe.data);
	return yes;
}

int leases_init(struct leases *leases, int data)
{
	*leases = (struct leases){.data = data, .spare = -1};
	if (!behaves())
		return -ENOTSUP;
	take_spare(leases);
	return 0;
}

void leases_deinit(struct leases *leases)
{
	if (leases->spare >= 0)
		close(leases->spare);
	leases->spare = -1;
}
