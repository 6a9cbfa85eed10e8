/* The layout in literals: a change that nobody meant shows here. One that was meant bumps SHMI_LAYOUT_VERSION too, and the
 * picture in shm/README.md. */
#include "shm/layout.h"

#include <criterion/criterion.h>

TestSuite(layout, .timeout = 60);

#define SIZE(what, bytes) cr_expect_eq(sizeof(what), bytes, #what " has %zu bytes", sizeof(what))
#define AT(type, field, at)                                                                                            \
	cr_expect_eq(offsetof(struct type, field), at, #type "." #field " is at %zu", offsetof(struct type, field))

Test(layout, constants)
{
	cr_expect_eq(SHMI_LAYOUT_VERSION, 4);
	cr_expect_eq(SHMI_PAGE_SIZE, 8192);
	cr_expect_eq(SHMI_ARENA_PAGES, 8192);
	cr_expect_eq(SHMI_META_MAGIC, 0x4154454d4d485321);
	cr_expect_eq(SHMI_CTL_MAGIC, 0x4c54434d4d485321);
	cr_expect_eq(SHMI_STATE_MAGIC, 0x5453454d4d485321);
	cr_expect_eq(SHMI_SPAN_CLASSES, 308);
	cr_expect_eq(SHMI_NOBODY, 65535);
	cr_expect_eq(SHMI_NO_THREAD, 4294967295);
	cr_expect_eq(SHMI_BITMAP_BYTES_PER_PAGE * 8, SHMI_PAGE_SIZE / 16, "a bit for each of the smallest blocks");
	cr_expect_eq(SHMI_SPAN_NONE, 0, "zeroed memory is no run");
	cr_expect_eq(SHMI_SPAN_CENTRAL, 4);
	cr_expect_eq(SHMI_SPAN_QUARANTINE, 7);
	cr_expect_eq(SHMI_SPAN_SEIZED, 8);
}

Test(layout, meta)
{
	SIZE(struct shmi_list, 8);
	SIZE(struct shmi_class, 32);
	SIZE(struct shmi_geometry, 136);
	SIZE(struct shmi_counters, 256);
	SIZE(struct shmi_page_counts, 64);
	SIZE(struct shmi_super, 640);
	AT(shmi_super, magic, 0);
	AT(shmi_super, layout_version, 8);
	AT(shmi_super, page_size, 12);
	AT(shmi_super, layout_hash, 16);
	AT(shmi_super, heap_id, 24);
	AT(shmi_super, base, 32);
	AT(shmi_super, created_ns, 40);
	AT(shmi_super, heap_name, 48);
	AT(shmi_super, geometry, 112);
	AT(shmi_super, generation, 252);
	AT(shmi_super, published_pages, 256);
	AT(shmi_super, generations, 260);
	AT(shmi_super, dirty, 264);
	AT(shmi_super, pages, 320);
	AT(shmi_super, counters, 384);
	SIZE(struct shmi_pageheap_heads, 2112);
	AT(shmi_pageheap_heads, exact, 0);
	AT(shmi_pageheap_heads, nonempty, 2064);
	AT(shmi_pageheap_heads, root, 2096);
	AT(shmi_pageheap_heads, tree_count, 2104);
	SIZE(struct shmi_central_lists, 24);
	AT(shmi_central_lists, full, 8);
	AT(shmi_central_lists, cursor, 16);
	SIZE(struct shmi_owner, 32);
	AT(shmi_owner, pages, 8);
	AT(shmi_owner, in_use, 12);
	AT(shmi_owner, trim_wanted, 16);
	AT(shmi_owner, seizures, 20);
	AT(shmi_owner, seized_pages, 24);
	SIZE(struct shmi_thread_slot, 8);
	SIZE(struct shmi_root, 128);
	AT(shmi_root, seq, 8);
	AT(shmi_root, client, 12);
	AT(shmi_root, name, 24);
}

Test(layout, span_record)
{
	SIZE(struct shmi_span, 64);
	AT(shmi_span, word, 0);
	AT(shmi_span, pages, 8);
	AT(shmi_span, slots, 12);
	AT(shmi_span, next, 16);
	AT(shmi_span, prev, 20);
	AT(shmi_span, parent, 24);
	AT(shmi_span, stamp, 28);
	AT(shmi_span, written_off, 32);
	AT(shmi_span, list, 34);
	AT(shmi_span, flags, 36);
	AT(shmi_span, bytes, 40);
	AT(shmi_span, written_off_bits, 48);
	AT(shmi_span, written_off_word, 56);
}

Test(layout, ctl)
{
	SIZE(struct shmi_ctl_head, 64);
	SIZE(struct shmi_group, 24);
	AT(shmi_group, bits, 0);
	AT(shmi_group, span, 8);
	AT(shmi_group, generation, 12);
	AT(shmi_group, word, 16);
	AT(shmi_group, sclass, 20);
	SIZE(struct shmi_intent, 32);
	AT(shmi_intent, op, 24);
	SIZE(struct shmi_magazine, 8);
	AT(shmi_magazine, entry, 8);
	SIZE(struct shmi_bigmag, 3848);
	AT(shmi_bigmag, entry, 8);
	SIZE(struct shmi_threadrec, 16384);
	AT(shmi_threadrec, client, 0);
	AT(shmi_threadrec, tid, 4);
	AT(shmi_threadrec, intent, 64);
	AT(shmi_threadrec, spill_top, 128);
	AT(shmi_threadrec, spill, 136);
	AT(shmi_threadrec, big, 12480);
}

Test(layout, state)
{
	SIZE(struct shmi_client_state, 8192);
	AT(shmi_client_state, in_use, 0);
	AT(shmi_client_state, pid, 4);
	AT(shmi_client_state, pidfd_inode, 16);
	AT(shmi_client_state, nonce, 24);
	AT(shmi_client_state, last_serial, 40);
	AT(shmi_client_state, result_bytes, 48);
	AT(shmi_client_state, label, 56);
	AT(shmi_client_state, result, 120);
	AT(shmi_client_state, begun_serial, 4216);
	AT(shmi_client_state, begun, 4224);
	SIZE(struct shmi_begun, 888);
	AT(shmi_begun, taken, 0);
	AT(shmi_begun, thread, 4);
	AT(shmi_begun, leaving, 8);
	AT(shmi_begun, root, 12);
	AT(shmi_begun, root_off, 16);
	AT(shmi_begun, root_name, 24);
	AT(shmi_begun, page, 120);
	AT(shmi_state, boots, 24);
	SIZE(struct shmi_write_off, 40);
	AT(shmi_write_off, bits, 16);
	AT(shmi_write_off, counter, 32);
	AT(shmi_state, write_off, 64);
	SIZE(struct shmi_seizing, 24);
	AT(shmi_seizing, span, 4);
	AT(shmi_seizing, generation, 8);
	AT(shmi_seizing, written_off, 12);
	AT(shmi_seizing, counter, 16);
	AT(shmi_state, seizing, 104);
	AT(shmi_state, clients, 4096);
}
