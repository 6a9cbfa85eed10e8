#include "daemon/policy.h"

#include "shm/units.h"

uint32_t policy_grants(uint32_t wanted, uint32_t span_pages, uint32_t spans, uint32_t pages)
{
	uint32_t by_spans = spans < POLICY_REPLY_SPANS ? POLICY_REPLY_SPANS - spans : 0;
	uint32_t by_pages = pages < POLICY_REPLY_PAGES ? (POLICY_REPLY_PAGES - pages) / span_pages : 0;

	if (!spans && !by_pages)
		by_pages = 1;
	if (wanted > by_spans)
		wanted = by_spans;
	return wanted < by_pages ? wanted : by_pages;
}

bool policy_admits(uint32_t uid, uint32_t daemon_uid, uint32_t own, uint32_t all)
{
	if (all >= POLICY_SESSIONS)
		return false;
	return uid == 0 || uid == daemon_uid || own < POLICY_SESSIONS_PER_USER;
}

bool policy_attaches(uint32_t uid, uint32_t daemon_uid, uint32_t own)
{
	return uid == 0 || uid == daemon_uid || own < POLICY_CLIENTS_PER_USER;
}

bool policy_checks(uint32_t uid, uint32_t daemon_uid, uint64_t pages)
{
	return uid == 0 || uid == daemon_uid || pages <= POLICY_CHECK_PAGES;
}

uint32_t policy_looks(uint32_t looks, uint64_t took_ms)
{
	if (took_ms > 1)
		looks = took_ms < looks ? looks / (uint32_t)took_ms : 1;
	else
		looks *= 2;
	return looks < POLICY_LEASE_LOOKS ? looks : POLICY_LEASE_LOOKS;
}

uint32_t policy_pressure(uint32_t was, uint64_t free, uint64_t all)
{
	if (free < all / 64 || (was == 2 && free < all / 32))
		return 2;
	return free < all / 16 || (was && free < all / 16 + all / 64);
}

bool policy_sleeps(uint64_t silent_ms)
{
	return silent_ms > POLICY_SLEEP_MS;
}

bool policy_stays_awake(uint64_t gap_us)
{
	return gap_us < POLICY_AWAKE_GAP_US;
}

uint32_t policy_scavenge(uint64_t free_pages, uint64_t used_pages)
{
	uint64_t keep = used_pages / 32;

	if (free_pages <= keep)
		return 0;
	free_pages -= keep;
	return free_pages < POLICY_TURN_PAGES ? (uint32_t)free_pages : POLICY_TURN_PAGES;
}

int policy_scavenge_pause(uint32_t pages, uint64_t rate, uint32_t delay_ms)
{
	uint64_t turn = (uint64_t)POLICY_TURN_PAGES * SHMI_PAGE_SIZE * 1000 / rate, idle = delay_ms / 2;

	if (!pages)
		turn = idle < POLICY_SCAVENGE_MS ? POLICY_SCAVENGE_MS : idle;
	if (!turn)
		return 1;
	return turn > POLICY_SCAVENGE_IDLE_MS ? POLICY_SCAVENGE_IDLE_MS : (int)turn;
}
