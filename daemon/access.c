#include "daemon/access.h"

static bool lists(const struct access_list *list, uint32_t id)
{
	for (uint32_t i = 0; i < list->n; i++)
		if (list->id[i] == id)
			return true;
	return false;
}

bool access_allows(
        const struct access *access, const struct peer *peer, const struct peer_groups *groups, uint32_t daemon_uid)
{
	if (!access->users.n && !access->groups.n)
		return true;
	if (peer->uid == 0 || peer->uid == daemon_uid || lists(&access->users, peer->uid) ||
	        lists(&access->groups, peer->gid))
		return true;
	for (uint32_t i = 0; i < groups->n; i++)
		if (lists(&access->groups, groups->id[i]))
			return true;
	return false;
}
