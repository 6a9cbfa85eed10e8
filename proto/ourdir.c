#include "proto/ourdir.h"

#include <sys/stat.h>
#include <unistd.h>

bool shmi_dir_is_ours(const char *dir)
{
	struct stat st;

	return lstat(dir, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 0022);
}
