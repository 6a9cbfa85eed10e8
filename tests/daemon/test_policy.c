#include "daemon/policy.h"

#include <criterion/criterion.h>

#include "proto/codec.h"
#include "shm/layout.h"

Test(policy, grants_are_bounded)
{
	cr_assert_eq(policy_grants(10, 1, 0, 0), 10);
	cr_assert_eq(policy_grants(1000, 1, 0, 0), POLICY_REPLY_SPANS);
	cr_assert_eq(policy_grants(1000, 1, POLICY_REPLY_SPANS, 5), 0);
	cr_assert_eq(policy_grants(1000, 1, POLICY_REPLY_SPANS - 3, 5), 3);
	cr_assert_eq(policy_grants(1000, 32, 0, 0), POLICY_REPLY_PAGES / 32);
	cr_assert_eq(policy_grants(4, 32, 1, POLICY_REPLY_PAGES - 31), 0);
	cr_assert_eq(policy_grants(4, POLICY_REPLY_PAGES + 1, 0, 0), 1, "one span always, however long");
	cr_assert_eq(policy_grants(0, 1, 0, 0), 0);
}

/* The longest reply to a refill fits where it is kept for a repeat. */
Test(policy, longest_refill_can_be_kept)
{
	static struct wire_msg msg = {.kind = WIRE_REFILL_OK, .serial = UINT64_MAX};
	static struct codec_scratch scratch;
	static unsigned char out[WIRE_MAX];
	size_t len;

	msg.u.refill_ok.n_grants = POLICY_REPLY_SPANS;
	for (uint32_t i = 0; i < POLICY_REPLY_SPANS; i++)
		msg.u.refill_ok.grants[i] = (struct wire_grant){.page = SHMI_MAX_PAGES - 1,
		        .generation = UINT32_MAX,
		        .sclass = SHMI_SPAN_CLASSES - 1,
		        .fresh = true};
	cr_assert_eq(shmi_codec_encode(&msg, &scratch, out, sizeof(out), &len), 0);
	cr_assert_leq(len, SHMI_RESULT_MAX);
}

/* Looks that take long get fewer, down to one; and more again once they do not. */
Test(policy, looks_at_leases)
{
	cr_assert_eq(policy_looks(POLICY_LEASE_LOOKS, 0), POLICY_LEASE_LOOKS);
	cr_assert_eq(policy_looks(POLICY_LEASE_LOOKS, 1), POLICY_LEASE_LOOKS);
	cr_assert_eq(policy_looks(POLICY_LEASE_LOOKS, 110), POLICY_LEASE_LOOKS / 110);
	cr_assert_eq(policy_looks(2, 5), 1);
	cr_assert_eq(policy_looks(1, UINT64_MAX), 1);
	cr_assert_eq(policy_looks(1, 1), 2);
	cr_assert_eq(policy_looks(POLICY_LEASE_LOOKS - 1, 0), POLICY_LEASE_LOOKS);
}

Test(policy, connections)
{
	cr_assert(policy_admits(1000, 5, POLICY_SESSIONS_PER_USER - 1, 600));
	cr_assert_not(policy_admits(1000, 5, POLICY_SESSIONS_PER_USER, 600));
	cr_assert(policy_admits(0, 5, POLICY_SESSIONS_PER_USER, 600));
	cr_assert(policy_admits(5, 5, POLICY_SESSIONS_PER_USER, 600));
	cr_assert_not(policy_admits(0, 5, 0, POLICY_SESSIONS));
}

Test(policy, stays_awake_among_requests_that_come_soon)
{
	cr_assert(policy_stays_awake(0));
	cr_assert(policy_stays_awake(POLICY_AWAKE_GAP_US - 1));
	cr_assert_not(policy_stays_awake(POLICY_AWAKE_GAP_US));
	cr_assert_not(policy_stays_awake(UINT64_MAX), "the first one");
}

Test(policy, scavenger)
{
	cr_assert_eq(policy_scavenge(0, 0), 0);
	cr_assert_eq(policy_scavenge(100, 0), 100);
	cr_assert_eq(policy_scavenge(100000, 0), POLICY_TURN_PAGES);
	cr_assert_eq(policy_scavenge(100, 3200), 0);
	cr_assert_eq(policy_scavenge(101, 3200), 1);
}
