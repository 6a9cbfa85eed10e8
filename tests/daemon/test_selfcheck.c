/* The check at the start: what it refuses a heap for, and what it does not. */
#include "daemon/selfcheck.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/guard.h"
#include "daemon/log.h"
#include "tests/lib/core.h"

static char why[256];
static int said;

static struct test_core *begin(void)
{
	struct test_core *t = test_core_new(8192);
	struct dialogue *d = test_core_attach(t, 1000);

	guard_install();
	said = memfd_create("log", MFD_CLOEXEC);
	log_set_fd(said);
	log_set_level(LEVEL_INFO);
	t->req = (struct wire_msg){.kind = WIRE_REFILL};
	t->req.u.refill.n_wants = 1;
	t->req.u.refill.wants[0] = (struct wire_want){16, 4};
	cr_assert_eq(test_core_ask(t, d), WIRE_REFILL_OK);
	return t;
}

static int look(struct test_core *t)
{
	memset(why, 0, sizeof(why));
	return selfcheck_run(&t->core, why, sizeof(why));
}

Test(selfcheck, a_sound_heap)
{
	struct test_core *t = begin();

	cr_expect_eq(look(t), 0, "%s", why);
	cr_expect_eq(lseek(said, 0, SEEK_END), 0, "and nothing to say");
	test_core_free(t);
}

Test(selfcheck, damage_is_refused_with_its_number)
{
	struct test_core *t = begin();
	struct shmi_super *super = t->heap.img.super;

	shmi_store(&super->pages.free, shmi_load(&super->pages.free) + 1);
	cr_expect_eq(look(t), 1);
	cr_expect_not_null(strstr(why, "I9"), "%s", why);
	shmi_store(&super->pages.free, shmi_load(&super->pages.free) - 1);
	cr_expect_eq(look(t), 0, "%s", why);
	test_core_free(t);
}

Test(selfcheck, statistics_are_reported)
{
	struct test_core *t = begin();
	struct shmi_counters *counters = &t->heap.img.super->counters;

	shmi_store(&counters->large_freed, shmi_load(&counters->large_granted) + 1000);
	cr_expect_eq(look(t), 0, "%s", why);
	cr_expect_gt(lseek(said, 0, SEEK_END), 0, "it is reported");
	test_core_free(t);
}

/* One client could have the heap refused to all. */
Test(selfcheck, what_clients_write_is_no_reason)
{
	struct test_core *t = begin();

	for (uint32_t page = 1; page < 64; page++)
		memset((void *)(uintptr_t)shmi_bitmap_at(&t->heap.img, (shmi_page){page}), 0xa5,
		        SHMI_BITMAP_BYTES_PER_PAGE);
	memset((void *)(uintptr_t)t->heap.img.ctl, 0x5a, 64);
	cr_expect_eq(look(t), 0, "%s", why);
	test_core_free(t);
}
