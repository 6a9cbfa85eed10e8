#include "daemon/loglimit.h"

#include <stddef.h>

/* The user's place, a new one if need be; NULL when every place still says something. */
static struct loglimit_user *place_of(struct loglimit *limit, uint32_t uid, uint64_t now)
{
	struct loglimit_user *quiet = NULL;

	for (unsigned i = 0; i < LOG_USERS; i++) {
		struct loglimit_user *user = &limit->user[i];

		if (user->last && user->uid == uid)
			return user;
		if (!quiet && (!user->last || now - user->last >= LOG_BURST))
			quiet = user;
	}
	if (quiet)
		*quiet = (struct loglimit_user){.uid = uid};
	return quiet;
}

static struct loglimit_bucket *bucket_of(struct loglimit *limit, enum log_kind kind, const uint32_t *uid, uint64_t now)
{
	if (!uid)
		return &limit->nobody[kind];
	struct loglimit_user *user = place_of(limit, *uid, now);

	if (!user)
		return &limit->others[kind];
	user->last = now;
	return &user->kind[kind];
}

bool loglimit_admit(struct loglimit *limit, enum log_kind kind, const uint32_t *uid, uint64_t now, uint32_t *swallowed)
{
	struct loglimit_bucket *bucket = bucket_of(limit, kind, uid, now);
	uint64_t passed = now - bucket->since;

	bucket->since = now;
	bucket->lines = passed >= bucket->lines ? 0 : bucket->lines - (uint32_t)passed;
	if (bucket->lines >= LOG_BURST) {
		bucket->swallowed++;
		limit->swallowed++;
		return false;
	}
	bucket->lines++;
	*swallowed = bucket->swallowed;
	bucket->swallowed = 0;
	return true;
}
