/* What check_ctl.c and check_caches.c share. */
#ifndef SHM_CHECK_CTL_H
#define SHM_CHECK_CTL_H

#include "shm/checker.h"

const struct shmi_class *shmi_checker_class(const struct shmi_checker *c, uint32_t sclass);

/* True and *slot if the record is a living thread's: its words mean something. */
bool shmi_checker_record(const struct shmi_checker *c, uint32_t thread, struct shmi_thread_slot *slot);

/* The half of I25 that looks at what threads cache. */
void shmi_check_seized_entries(struct shmi_checker *c);

#endif
