/* Every struct that lies in shared memory. A change here bumps SHMI_LAYOUT_VERSION, the literals in
 * tests/shm/test_layout.c and the picture in README.md in the same commit.
 *
 * Three objects and who may write them:
 *
 *	meta   the daemon alone; clients map it read-only
 *	ctl    clients and the daemon; the daemon believes nothing that it reads there
 *	state  the daemon alone; nobody else has it
 *	data   the pages; no struct of ours lies there
 *
 * Each field says who writes and who reads it and how: [W daemon; R any; acquire P3] is written by the daemon and read by
 * anybody with an acquire load that pairs with a release store, pair P3 of README.md. Without a note the field is
 * written once, before the object or the record is published. Nothing here is a pointer, a size_t, an enum or a bit-field.
 */
#ifndef SHM_LAYOUT_H
#define SHM_LAYOUT_H

#include "shm/atomic.h"
#include "shm/sizeclass.h"
#include "shm/units.h"

#define SHMI_LAYOUT_VERSION 4u
#define SHMI_META_MAGIC 0x4154454d4d485321ull /* "!SHMMETA" */
#define SHMI_CTL_MAGIC 0x4c54434d4d485321ull /* "!SHMMCTL" */
#define SHMI_STATE_MAGIC 0x5453454d4d485321ull /* "!SHMMEST" */

#define SHMI_MAX_CLIENTS 1024u
#define SHMI_MAX_THREADS 4096u /* thread records; 740 KiB of address space each, backed when given out */
#define SHMI_MAX_ROOTS 1024u
#define SHMI_ROOT_NAME_MAX 95u /* bytes, without the final zero */
#define SHMI_NOBODY 0xffffu /* not 0: a wiped page of a forked child reads as zeros */
#define SHMI_MAX_PAGES (1u << 28) /* 2 TiB of address space */
#define SHMI_EXACT_PAGES 128u /* runs up to this length have a list per length: 1 MiB */
#define SHMI_SPILL_MAX 512u /* groups of one put */
#define SHMI_BIG_MAX                                                                                                   \
	480u /* entries of the big cache: freed large spans, and notes of those that the daemon is to be told of */
#define SHMI_BITMAP_BYTES_PER_PAGE 64u /* a page of 16-byte slots has 512 */
#define SHMI_THREAD_HEAD_BYTES 16384u /* thread record without its magazines */
#define SHMI_NO_THREAD 0xffffffffu

/* A doubly linked list through span records; `head` is a page index, 0 when empty. */
struct shmi_list {
	uint32_t head;
	uint32_t count;
};

/* ---- meta ---------------------------------------------------------------------------------------------------- */

/* Where the parts of meta and ctl begin, in bytes from the object's start. Follows from `limit_pages` alone. */
struct shmi_geometry {
	uint32_t limit_pages; /* pages of the data object */
	uint32_t part_bytes; /* one part of a thread record */
	uint64_t classes; /* meta: struct shmi_class[SHMI_CLASSES] */
	uint64_t pageheap; /* meta: struct shmi_pageheap_heads */
	uint64_t central; /* meta: struct shmi_central_lists[SHMI_SPAN_CLASSES] */
	uint64_t owners; /* meta: struct shmi_owner[SHMI_MAX_CLIENTS] */
	uint64_t threads; /* meta: struct shmi_thread_slot[SHMI_MAX_THREADS] */
	uint64_t roots; /* meta: struct shmi_root[SHMI_MAX_ROOTS] */
	uint64_t fixed_bytes; /* meta: all of the above; backed whole at creation */
	uint64_t page_class; /* meta: uint16_t per page */
	uint64_t page_span; /* meta: uint32_t per page, the page map */
	uint64_t spans; /* meta: struct shmi_span per page */
	uint64_t meta_bytes; /* length of meta */
	uint64_t holders; /* ctl: uint32_t per page */
	uint64_t bitmaps; /* ctl: SHMI_BITMAP_BYTES_PER_PAGE per page */
	uint64_t records; /* ctl: thread records */
	uint64_t record_bytes; /* one thread record: its head and SHMI_ATTRS parts */
	uint64_t ctl_bytes; /* length of ctl */
};

/* What has happened since the heap was made. All but the peaks only grow; pages are counted by state elsewhere. */
struct shmi_counters {
	shmi_a64 refills; /* requests for spans of blocks that were granted */
	shmi_a64 spans_granted;
	shmi_a64 spans_returned; /* given back by clients */
	shmi_a64 spans_reported; /* named by a put as having free slots */
	shmi_a64 large_granted;
	shmi_a64 large_freed;
	shmi_a64 no_memory; /* requests that failed for want of memory: heap, tmpfs or limit */
	shmi_a64 committed_pages; /* pages backed so far */
	shmi_a64 scavenged_pages; /* pages returned so far */
	shmi_a64 deaths; /* clients whose death was handled */
	shmi_a64 reclaimed_pages; /* pages that deaths brought back to the page heap */
	shmi_a64 slots_written_off; /* slots whose fate a death left unknown */
	shmi_a64 quarantined_pages;
	shmi_a64 peak_backed_pages;
	shmi_a64 bad_words; /* in the records of the dead: those that made no sense and were passed over */
	shmi_a64 mended_pages; /* of 4 KiB: lost to holes that clients punched, and backed again */
	shmi_a64 granted_pages; /* of spans of blocks and large blocks */
	shmi_a64 given_pages; /* given back or freed by clients */
	shmi_a64 remote_freed; /* slots put into spans of other threads, by what clients say */
	shmi_a64 over_client, over_user; /* requests refused for a limit */
	shmi_a64 over_share; /* requests refused because the rest is guaranteed to others */
	shmi_a64 heap_full, system_full; /* requests refused for want of memory */
	shmi_a64 trims; /* times that a client was told to trim */
	shmi_a64 seized_pages; /* pages of wholly free spans taken from clients that sleep */
	shmi_a64 evictions;
	shmi_a64 recoveries; /* times that a daemon took the heap over */
	shmi_a64 pressures; /* times that memory became short */
	uint64_t unused[3];
};

/* Pages by what they are. Every page of the data object is counted exactly once (I9). */
struct shmi_page_counts {
	shmi_a64 owned; /* spans that clients hold, lazy ones apart */
	shmi_a64 central; /* spans that nobody holds, quarantined ones included */
	shmi_a64 free; /* backed and free */
	shmi_a64 returned; /* free, not backed */
	shmi_a64 lazy; /* large spans that are backed on touch */
	shmi_a64 moving; /* being backed or returned just now */
	shmi_a64 unpublished; /* beyond the last arena, and page 0 */
	shmi_a64 seized; /* spans taken from clients that have not heard of it yet; not backed */
};

#define SHMI_ADVICE_HUGE 1u /* advise huge pages */

/* The first bytes of meta. */
struct shmi_super {
	uint64_t magic; /* SHMI_META_MAGIC; stored last when the heap is made */
	uint32_t layout_version;
	uint32_t page_size;
	uint64_t layout_hash; /* shmi_layout_hash() of the maker */
	uint64_t heap_id; /* random; ctl and state bear the same */
	uint64_t base; /* where clients should map the data object */
	uint64_t created_ns; /* CLOCK_REALTIME */
	char heap_name[64];
	struct shmi_geometry geometry;
	shmi_a32 advice; /* [W daemon; R any] SHMI_ADVICE_...: what clients should do when they map the data */
	shmi_a32 generation; /* [W daemon] bumped at each adoption */
	_Alignas(64) shmi_a32 published_pages; /* [W daemon; R any; acquire P3] pages whose arena metadata is there */
	shmi_a32 generations; /* [W daemon] last span generation given out */
	shmi_a32 dirty; /* [W daemon] 1 from the first change until a clean stop */
	uint32_t unused1;
	_Alignas(64) struct shmi_page_counts pages; /* [W daemon; R any] */
	struct shmi_counters counters; /* [W daemon; R any] */
};

/* Heads of the page heap's lists and trees; index 0 for backed runs, 1 for returned ones. All derived. [W daemon] */
struct shmi_pageheap_heads {
	struct shmi_list exact[2][SHMI_EXACT_PAGES + 1]; /* by length; [0] unused */
	uint64_t nonempty[2][SHMI_EXACT_PAGES / 64]; /* bit n - 1: exact[..][n] has a run */
	uint32_t root[2]; /* trees of longer runs */
	uint32_t tree_count[2];
};

/* The spans of one span class that nobody holds. Derived. [W daemon] */
struct shmi_central_lists {
	struct shmi_list free; /* had free slots when last looked at */
	struct shmi_list full; /* had none */
	uint32_t cursor; /* on `full`: where the next sweep goes on; 0: at the head */
	uint32_t unused;
};

/* What a client holds. Derived. [W daemon; R any] */
struct shmi_owner {
	struct shmi_list spans; /* through the span records */
	uint32_t pages; /* of those */
	uint32_t in_use; /* 1: this id belongs to a client */
	shmi_a32
	        trim_wanted; /* bumped when the client is to give back what it can spare: it does at its next slow path */
	shmi_a32 seizures; /* bumped after spans were taken from it: it looks for them at its next slow path */
	uint32_t seized_pages; /* of spans on its list that are SHMI_SPAN_SEIZED; not counted in `pages` */
	uint32_t unused;
};

/* Which client a thread record was given to. [W daemon; R any] */
struct shmi_thread_slot {
	uint16_t client; /* SHMI_NOBODY: not in use */
	uint8_t parts; /* bit a: the magazines of attribute combination a are backed */
	uint8_t head; /* 1: the head is backed */
	uint32_t unused;
};

/* A named root. [W daemon; R any] `name` changes only while `off` is 0; a reader loads off, compares the name and loads
 * `seq` before and after (P4). */
struct shmi_root {
	shmi_a64 off; /* 0: not in use */
	shmi_a32 seq; /* bumped before and after the name changes: odd while it does */
	shmi_a16 client; /* who set it */
	uint16_t unused;
	uint64_t unused1;
	char name[104];
};

/* States of a span record. Those from SHMI_SPAN_CENTRAL on are spans in use, and the only truth about memory. */
#define SHMI_SPAN_NONE 0u /* no run begins here */
#define SHMI_SPAN_FREE 1u /* a backed free run */
#define SHMI_SPAN_RETURNED 2u /* a free run without backing */
#define SHMI_SPAN_MOVING 3u /* taken off the lists to be backed or returned */
#define SHMI_SPAN_CENTRAL 4u /* blocks; nobody holds it */
#define SHMI_SPAN_OWNED 5u /* blocks; a client holds it */
#define SHMI_SPAN_LARGE 6u /* one block; the owner is who asked for it, or nobody once that client is gone */
#define SHMI_SPAN_QUARANTINE 7u /* cannot be trusted; never used again */
#define SHMI_SPAN_SEIZED                                                                                               \
	8u /* of blocks; was its owner's, wholly free, and is not backed any more: address space until the owner gives it back */

#define SHMI_SPAN_LAZY 1u /* flags: backed on touch; counted apart */

#define SHMI_LIST_FREE 1u /* list: on the central list of spans with free slots */
#define SHMI_LIST_FULL 2u /* list: on that of spans without */

/* The record of the span or free run that begins at this page. [W daemon; R any]
 *
 * `word` is the one authoritative word: bits 0..3 state, 4..15 span class, 16..31 owner, 32..63 generation. All else is
 * filled before it is stored with release (P5), so a record is either there or not. A record in a free state is derived. */
struct shmi_span {
	shmi_a64 word;
	uint32_t pages;
	uint32_t slots; /* blocks; 0 for a free run, 1 for a large block */
	uint32_t next; /* list link; tree: left child */
	uint32_t prev; /* list link; tree: right child */
	uint32_t parent; /* tree */
	uint32_t stamp; /* free run: tick at which it came */
	uint16_t written_off; /* slots whose fate a death left unknown; allocated until somebody is seen to free one */
	uint16_t list; /* central span: SHMI_LIST_FREE or _FULL */
	uint32_t flags; /* SHMI_SPAN_LAZY */
	uint64_t bytes; /* large block: the size that was asked for */
	uint64_t written_off_bits; /* the last ones written off, and in which bitmap word */
	uint32_t written_off_word;
	uint32_t
	        last_user; /* who may have written what is in these pages: 0: nobody, they are zero; else a user's id + 1, or ... */
};

#define SHMI_SEVERAL_USERS UINT32_MAX /* ... any number of users */

/* ---- ctl ----------------------------------------------------------------------------------------------------- */

struct shmi_ctl_head {
	uint64_t magic;
	uint64_t layout_hash;
	uint64_t heap_id;
	uint64_t unused[5];
};

/* The slot bitmap of a span begins at bitmaps + 64 * first page; bit s % 64 of word s / 64 is slot s; set is free.
 * [W any: fetch_or by whoever puts, fetch_and by the one holder; R any; P1] */

/* The thread that holds a span, by first page: index of its thread record, or SHMI_NO_THREAD for a span of the process
 * that no thread holds just now. Not a truth: says to statistics and to a debugger where a span is. [W holder; R any] */

#define SHMI_INTENT_NONE 0u
#define SHMI_INTENT_TAKE 1u
#define SHMI_INTENT_PUT 2u
#define SHMI_INTENT_RECLAIM 3u /* a put by the daemon, on behalf of a dead thread */

/* Slots of one bitmap word. */
struct shmi_group {
	uint64_t bits;
	uint32_t span; /* first page */
	uint32_t generation;
	uint32_t word; /* index in the span's bitmap */
	uint32_t sclass;
};

/* What the thread is about to do with one bitmap word. Filled, then `op` stored with release; op goes back to NONE when
 * the deed is done and the magazine says so. [W thread, after its death the daemon; R daemon, after the death] */
struct shmi_intent {
	struct shmi_group group;
	shmi_a32 op;
	uint32_t unused;
};

/* A stack of free blocks; an entry is the block's offset. Entries below top belong to the thread. An entry of 0 is none: a
 * reclaim found the block a second time. [W thread, after its death the daemon; R daemon] */
struct shmi_magazine {
	shmi_a32 top;
	uint32_t unused;
	shmi_a64 entry[];
};

/* Freed large spans that a process keeps for its next large request; an entry is first page | generation << 32, so that one
 * that the daemon has freed meanwhile is void. The first ones may be notes of what the daemon is yet to be told. [W the process,
 * under its private lock; R daemon] */
struct shmi_bigmag {
	shmi_a32 top;
	uint32_t unused;
	shmi_a64 entry[SHMI_BIG_MAX];
};

/* The head of a thread record. SHMI_ATTRS parts follow it, each with the magazines of one attribute combination at the
 * offsets that the class table says. A process has one record of its own, of which only `big` is used. */
struct shmi_threadrec {
	uint32_t client; /* [W thread; R check] */
	uint32_t tid; /* [W thread] for a person's eyes */
	uint64_t unused0[7];
	struct shmi_intent intent;
	_Alignas(64) shmi_a32
	        spill_top; /* groups that are yet to be put; [W thread, after its death the daemon; R daemon] */
	uint32_t unused1;
	struct shmi_group spill[SHMI_SPILL_MAX];
	_Alignas(64) struct shmi_bigmag big;
};

/* ---- state --------------------------------------------------------------------------------------------------- */

#define SHMI_RESULT_MAX 4096u /* bytes of an encoded reply that is kept for a repeated request */

#define SHMI_TAKEN_MAX 192u /* spans that one request can bring */

/* What the request under way changes that would be changed again by its repeat, or by its repeat not at all: each is noted
 * before it is done, so the next daemon looks whether it was. Void once the request has a result. [W daemon; R daemon] */
struct shmi_begun {
	shmi_a32 taken; /* how many of `page` are good */
	shmi_a32 thread; /* the record it makes, or SHMI_NO_THREAD */
	shmi_a32 leaving; /* 1: the client is being detached */
	shmi_a32 root; /* 1: the root of that name gets this offset; 0: it is deleted */
	uint64_t root_off;
	char root_name[96];
	uint32_t page[SHMI_TAKEN_MAX]; /* spans that become the client's */
};

/* A client as the daemon must find it again after its own death. `in_use` is stored last. [W daemon; R daemon] */
struct shmi_client_state {
	shmi_a32 in_use; /* 1: attached; 2: it has left, and only processes forked from it use its memory; 3: evicted */
	int32_t pid;
	uint32_t uid;
	uint32_t gid;
	uint64_t pidfd_inode; /* with pid: an identity that is never used twice */
	uint64_t nonce; /* the client's choice, known to it alone; it must show it to resume */
	uint64_t charged_pages;
	shmi_a64 last_serial; /* the last request that took effect ... */
	uint32_t result_bytes; /* ... and the reply to it */
	uint32_t thread; /* the process's own thread record */
	char label[64];
	uint8_t result[SHMI_RESULT_MAX];
	shmi_a64 begun_serial; /* the last request that was begun; beyond last_serial: it was cut short */
	struct shmi_begun begun; /* what it has changed */
	uint8_t unused1[4096 - 128 - sizeof(struct shmi_begun)];
};

/* Slots in doubt that are being written off, as all will be afterwards: the next daemon stores it again if this one dies on the
 * way, so that they are counted once. `open` is stored last, and cleared last. [W daemon; R daemon] */
struct shmi_write_off {
	shmi_a32 open; /* 1: the rest is to be done */
	uint32_t thread; /* the record in which the put stands ... */
	uint32_t left; /* ... and how many groups its spill has then */
	uint32_t span; /* where the slots are ... */
	uint64_t bits;
	uint32_t word;
	uint32_t written_off; /* ... and what its record says then */
	uint64_t counter; /* slots_written_off */
};

/* A span that is being taken from a holder who sleeps (shm/seize.h). `step` is stored before each change of the bitmap. [W daemon; R
 * daemon] */
struct shmi_seizing {
	shmi_a32
	        step; /* 0: none. w + 1: all slots of the words below w are the daemon's, and those of word w are in doubt */
	uint32_t span, generation;
	uint32_t written_off; /* with SHMI_SEIZING_DOUBT: what the span's record is to say ... */
	uint64_t counter; /* ... and slots_written_off */
};

#define SHMI_SEIZING_DOUBT 0x80000000u /* step: the slots of that word are being written off */

struct shmi_state {
	uint64_t magic;
	uint64_t layout_hash;
	uint64_t heap_id;
	shmi_a32 boots; /* starts since the last clean stop */
	uint32_t unused[9];
	struct shmi_write_off write_off;
	struct shmi_seizing seizing;
	uint8_t unused1[4096 - 64 - sizeof(struct shmi_write_off) - sizeof(struct shmi_seizing)];
	struct shmi_client_state clients[SHMI_MAX_CLIENTS];
};

/* ---- what must not change by accident -------------------------------------------------------------------------- */

_Static_assert(sizeof(struct shmi_class) == 32, "class table entry");
_Static_assert(sizeof(struct shmi_span) == 64, "a span record is a cache line");
_Static_assert(offsetof(struct shmi_span, word) == 0, "state word first");
_Static_assert(sizeof(struct shmi_root) == 128, "root");
_Static_assert(sizeof(((struct shmi_root *)0)->name) > SHMI_ROOT_NAME_MAX, "root name");
_Static_assert(sizeof(struct shmi_group) == 24, "group");
_Static_assert(sizeof(struct shmi_intent) == 32, "intent");
_Static_assert(sizeof(struct shmi_super) <= 4096, "the superblock has a page of 4 KiB");
_Static_assert(offsetof(struct shmi_super, published_pages) % 64 == 0, "written often, read by every slow path");
_Static_assert(sizeof(struct shmi_pageheap_heads) <= 4096, "page heap heads");
_Static_assert(sizeof(struct shmi_owner) == 32, "owner");
_Static_assert(sizeof(struct shmi_thread_slot) == 8, "thread slot");
_Static_assert(sizeof(struct shmi_threadrec) <= SHMI_THREAD_HEAD_BYTES, "thread record head");
_Static_assert(offsetof(struct shmi_threadrec, intent) == 64, "intent");
_Static_assert(offsetof(struct shmi_threadrec, spill_top) == 128, "spill");
_Static_assert(offsetof(struct shmi_threadrec, big) % 64 == 0, "big magazine");
_Static_assert(sizeof(struct shmi_client_state) == 8192, "client state");
_Static_assert(offsetof(struct shmi_state, clients) == 4096, "client table");
_Static_assert(SHMI_SPAN_CLASSES < 4096, "twelve bits of the state word");
_Static_assert(sizeof(shmi_a64) == 8 && sizeof(shmi_a32) == 4 && sizeof(shmi_a16) == 2, "atomics are plain words");

/* A number that differs when any size, offset or table above does: both ends of a connection compare it. */
uint64_t shmi_layout_hash(void);

#endif
