/* How many log lines of a kind one user may cause: LOG_BURST at once, then one a second.
 *
 * There is a place for LOG_USERS users. A user that has caused no line for LOG_BURST seconds may have its whole burst again, so
 * its place says nothing and can be another's. While all places say something, users without one share one allowance: so the
 * lines of a kind are bounded whatever the number of users, and one user alone never takes a line from another. Lines about no
 * user have an allowance of their own.
 */
#ifndef DAEMON_LOGLIMIT_H
#define DAEMON_LOGLIMIT_H

#include "daemon/log.h"

#define LOG_BURST 20u /* lines of one kind and user before the limit of one a second holds */
#define LOG_USERS 64u /* more than have something to say within LOG_BURST seconds on any sane machine */

struct loglimit_bucket {
	uint32_t lines; /* let through, less one for each second */
	uint32_t swallowed; /* since the last line that was let through */
	uint64_t since; /* seconds */
};

struct loglimit_user {
	uint32_t uid;
	uint64_t last; /* when it last caused a line, let through or not; 0: place not in use */
	struct loglimit_bucket kind[LOG_KINDS];
};

/* All zero at the start. */
struct loglimit {
	struct loglimit_user user[LOG_USERS];
	struct loglimit_bucket nobody[LOG_KINDS], others[LOG_KINDS];
	uint64_t swallowed; /* in all */
};

/* Whether a line of this kind about `uid` (NULL: about nobody) may be written at `now`, in seconds from 1 on that do not go back. If
 * so, *swallowed is how many were not since the last one. */
bool loglimit_admit(struct loglimit *limit, enum log_kind kind, const uint32_t *uid, uint64_t now, uint32_t *swallowed);

#endif
