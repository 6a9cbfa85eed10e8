#include "client/ctl/saved.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "proto/fd.h"

static int map(struct ctl *ctl, const char *path, void **at, uint64_t *len)
{
	FD_AUTO int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) != 0)
		return ctl_fail(ctl, CTL_USAGE, "cannot read %s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode) || !st.st_size)
		return ctl_fail(ctl, CTL_FAILED, "%s is no saved object: %s", path,
		        st.st_size ? "it is not a plain file" : "it is empty");
	*len = (uint64_t)st.st_size;
	*at = mmap(NULL, *len, PROT_READ, MAP_PRIVATE, fd, 0);
	if (*at == MAP_FAILED) {
		*at = NULL;
		return ctl_fail(ctl, CTL_FAILED, "cannot map %s: %s", path, strerror(errno));
	}
	return CTL_OK;
}

int ctl_saved_open(struct ctl *ctl, struct ctl_saved *saved)
{
	*saved = (struct ctl_saved){0};
	if (!ctl->n_args)
		return ctl_fail(ctl, CTL_USAGE, "the file with the saved meta object is missing");
	int status = map(ctl, ctl->args[0], &saved->meta, &saved->meta_len);

	if (status == CTL_OK && ctl->n_args > 1)
		status = map(ctl, ctl->args[1], &saved->ctl, &saved->ctl_len);
	if (status == CTL_OK) {
		int error = shmi_image_open(&saved->img, saved->meta, saved->meta_len, saved->ctl, saved->ctl_len);

		if (error)
			status = ctl_fail(ctl, CTL_FAILED, "%s%s%s: %s", ctl->args[0], ctl->n_args > 1 ? " with " : "",
			        ctl->n_args > 1 ? ctl->args[1] : "", shmi_image_strerror(error));
	}
	if (status == CTL_OK)
		ctl->heap = saved->img.super->heap_name;
	else
		ctl_saved_close(saved);
	return status;
}

void ctl_saved_close(struct ctl_saved *saved)
{
	if (saved->meta)
		(void)munmap(saved->meta, saved->meta_len);
	if (saved->ctl)
		(void)munmap(saved->ctl, saved->ctl_len);
	*saved = (struct ctl_saved){0};
}
