/* What a map says in numbers and names. */
#include <stdlib.h>

#include "proto/report/map.h"

const char *report_kind_name(enum report_kind kind)
{
	static const char *const names[REPORT_KINDS] = {
	        "free", "returned", "moving", "central", "owned", "large", "quarantined", "seized", "changing"};

	return names[kind];
}

const char *report_by_name(enum report_by by)
{
	static const char *const names[REPORT_BYS] = {"kind", "class", "owner"};

	return names[by];
}

static int by_id(const void *id, const void *client)
{
	uint32_t a = *(const uint32_t *)id, b = ((const struct report_client *)client)->client;

	return (a > b) - (a < b);
}

const struct report_client *report_map_client(const struct report_map *map, uint32_t id)
{
	if (!map->n_clients)
		return NULL;
	return bsearch(&id, map->clients, map->n_clients, sizeof(*map->clients), by_id);
}

double report_map_external(const struct report_map *map)
{
	uint64_t all = map->pages[REPORT_FREE] + map->pages[REPORT_RETURNED];

	return all ? 1 - (double)map->largest_free / (double)all : 0;
}

/* The largest of `n` shares, put into `ids` by insertion; those of equal size in the order of their numbers. */
static uint32_t largest(const struct report_share *shares, uint32_t n, uint32_t *ids, uint32_t most)
{
	uint32_t found = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t at = found;

		if (!shares[i].pages || (found == most && shares[ids[most - 1]].pages >= shares[i].pages))
			continue;
		if (found < most)
			found++;
		else
			at--;
		for (; at > 0 && shares[ids[at - 1]].pages < shares[i].pages; at--)
			ids[at] = ids[at - 1];
		ids[at] = i;
	}
	return found;
}

uint32_t report_map_holders(const struct report_map *map, uint32_t *ids, uint32_t most)
{
	return most ? largest(map->owners, REPORT_OWNERS, ids, most) : 0;
}

uint32_t report_map_classes(const struct report_map *map, uint32_t *sclasses, uint32_t most)
{
	return most ? largest(map->classes, WIRE_SCLASSES, sclasses, most) : 0;
}

void report_map_class_name(const struct report_map *map, uint32_t sclass, char *to, size_t room)
{
	static const char *const attrs[WIRE_ATTRS] = {"", " scoped", " noscan", " scoped noscan"};
	uint32_t class = sclass / WIRE_ATTRS;

	if (map->options.class_bytes && class < map->options.n_classes && map->options.class_bytes[class])
		snprintf(to, room, "%u B%s", map->options.class_bytes[class], attrs[sclass % WIRE_ATTRS]);
	else
		snprintf(to, room, "class %u%s", class, attrs[sclass % WIRE_ATTRS]);
}
