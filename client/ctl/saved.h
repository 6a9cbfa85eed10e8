/* Saved copies of a heap's meta and ctl objects, in files. */
#ifndef CLIENT_CTL_SAVED_H
#define CLIENT_CTL_SAVED_H

#include "client/ctl/ctl.h"
#include "shm/image.h"

struct ctl_saved {
	struct shmi_image img;
	void *meta, *ctl;
	uint64_t meta_len, ctl_len;
};

/* Maps the files that the command line names: META, and CTL if it is given. Returns CTL_OK, or says what is wrong. */
int ctl_saved_open(struct ctl *ctl, struct ctl_saved *saved);
void ctl_saved_close(struct ctl_saved *saved);

#endif
