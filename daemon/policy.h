/* Decisions as plain functions: numbers in, decision out. Everything that somebody may want to tune is here. */
#ifndef DAEMON_POLICY_H
#define DAEMON_POLICY_H

#include <stdbool.h>
#include <stdint.h>

/* Spans in one reply: a grant takes at most 20 bytes on the wire, and the reply has to fit into SHMI_RESULT_MAX, where it
 * is kept in case the client asks again. */
#define POLICY_REPLY_SPANS 192u

/* Pages in one reply, unless a single span is longer: 4 MiB take a millisecond or two to back and zero, and others are waiting. */
#define POLICY_REPLY_PAGES 512u

/* Spans of the full list that are looked at again before fresh pages are taken. */
#define POLICY_SWEEP 16u

/* The same for every class when memory has run out. */
#define POLICY_SWEEP_ALL 64u

/* One turn of the loop: pages backed or returned (2 MiB: half a millisecond to one), cached slots put back and spans moved
 * in a reclaim. */
#define POLICY_TURN_PAGES 256u
#define POLICY_TURN_SLOTS 4096u
#define POLICY_TURN_SPANS 256u

/* Words that one step of a survey reads: bitmaps and caches, which lie anywhere; a quarter of a millisecond at most. */
#define POLICY_SURVEY_WORK 8192u

/* The biggest heap, in pages in use, that anybody may have checked, and not only root and the daemon's user: a check is done in one go,
 * at 50 ms for each GiB. */
#define POLICY_CHECK_PAGES (1u << 17)

/* Stale pages that are dropped at once when the system is out of memory, before it is asked again: 64 MiB, 10 ms. */
#define POLICY_STALE_PAGES 8192u

/* How long the loop looks for the next request before it sleeps, if the last two came this soon after each other: as long as KVM polls
 * for a halted processor. Not if yielding took longer than a yield to nobody does, nor for a while after that. */
#define POLICY_AWAKE_US 200
#define POLICY_AWAKE_GAP_US 1000
#define POLICY_AWAKE_TAKEN_US 20
#define POLICY_AWAKE_BUSY_US 20000

/* One user's share of a turn of the loop: some ten requests. And the most that is carried over of requests that were longer: ten
 * shares, so that a daemon that was not let run for a while does not make its clients pay for it. */
#define POLICY_SHARE_US 200u
#define POLICY_SHARE_DEBT_US 2000u

/* What a user may have of the daemon's time in the long run while others want something, too, in percent; how much of it at once, after
 * having wanted little: a program that starts or grows needs a lot for a second. Whoever asks without end would else keep a processor
 * busy that the others need for their own work. How long ago a user is no longer one who wants something; and how long those wait
 * who have had all. */
#define POLICY_RATE_PERCENT 10u
#define POLICY_RATE_BURST_US 200000
#define POLICY_RATE_ACTIVE_US 1000000u
#define POLICY_RATE_PAUSE_MS 2

/* How often the scavenger has a turn, of 2 MiB at most, as long as there is something to return: at the rate that is usual, 100 MiB a
 * second; and how often it looks whether there is, at the latest: it looks for damage, too. */
#define POLICY_SCAVENGE_MS 20
#define POLICY_SCAVENGE_IDLE_MS 1000
#define POLICY_SCAVENGE_RATE (100ull << 20)
#define POLICY_SCAVENGE_DELAY_MS 5000u

/* How often leases are looked at: while scoped memory of the dead waits for the end of one, and while a living client has no
 * connection, of which an exec is one reason. And how many at a time, at two microseconds each when all clients have one; fewer when
 * they take long, since a client has set thousands of locks of its own. */
#define POLICY_LEASE_MS 50
#define POLICY_LEASE_DETACHED_MS 1000
#define POLICY_LEASE_LOOKS 256u

/* A process that ends drops its lease a moment before it can be seen to be dead: whoever lives that much later is another program. */
#define POLICY_EXEC_MS 200u

/* A client that has asked for nothing for so long sleeps. */
#define POLICY_SLEEP_MS 1000u

/* How often somebody who is over a soft limit, and all while memory is very short, is told to trim; how often free spans are then taken
 * from clients that sleep; how often the tmpfs is looked at; and how long a word from the system holds. */
#define POLICY_TELL_MS 1000u
#define POLICY_SEIZE_MS 1000u
#define POLICY_TMPFS_MS 1000u
#define POLICY_PRESSED_MS 10000u

/* Runs of idle pages that are returned in one turn of the scavenger while memory is short, of 2 MiB at most together with the last. */
#define POLICY_PRESSED_RUNS 8u

/* A connection that has not said hello, and a peer that does not fetch its reply. */
#define POLICY_HELLO_MS 5000
#define POLICY_STUCK_MS 5000

/* Connections in all, of one user who is neither root nor the daemon's own, and accepted in one turn. */
#define POLICY_SESSIONS 1280u
#define POLICY_SESSIONS_PER_USER 512u

/* Clients of one user, attached or not: a process that attaches and closes over and over would take every place, which is its
 * own until it ends. */
#define POLICY_CLIENTS_PER_USER 512u
#define POLICY_ACCEPT_BATCH 16u

/* Thread records of one client: a quarter of all. */
#define POLICY_THREADS_PER_CLIENT 1024u

/* The HTTP listener: connections at once (a browser has up to six, a scraper one); bytes of a request's head (a browser's is below 1 KiB,
 * its cookies of other ports of this host included perhaps 4 KiB); how long a request may take to come, a reply to be fetched, and a
 * connection to be idle. Who is slower is not a browser. */
#define POLICY_HTTP_CONNECTIONS 32u
#define POLICY_HTTP_HEAD 8192
#define POLICY_HTTP_REQUEST_MS 5000
#define POLICY_HTTP_REPLY_MS 10000
#define POLICY_HTTP_IDLE_MS 30000

/* Descriptors that it leaves to clients when the table is nearly full. */
#define POLICY_HTTP_RESERVE 64u

/* How long a text is good for all who ask; and replies in one turn, and the pause after them: at most 1,000 replies a second at some
 * 100 us each, whatever comes, and clients in between. */
#define POLICY_HTTP_FRESH_MS 500
#define POLICY_HTTP_REPLIES 4u
#define POLICY_HTTP_PAUSE_MS 4

/* Cells of a map, each 8 KiB or more of the heap: more than a screen has room for. */
#define POLICY_HTTP_CELLS 8192u

/* Pages before a window of the map in which the run is looked for that reaches into it: 256 MiB, a quarter of a millisecond. */
#define POLICY_HTTP_BACK 32768u

/* Bytes after which a text has another piece. */
#define POLICY_HTTP_PIECE 32768u

/* One step of writing a text: rows of JSON at 20 us each, cells of the map at 1 us each. */
#define POLICY_HTTP_ROWS 16u
#define POLICY_HTTP_CELLS_STEP 256u

/* How many of `wanted` spans of `span_pages` pages to grant in a reply that has `spans` spans of `pages` pages already. */
uint32_t policy_grants(uint32_t wanted, uint32_t span_pages, uint32_t spans, uint32_t pages);

/* Whether the user `uid`, who has `own` connections, may have another when there are `all`. */
bool policy_admits(uint32_t uid, uint32_t daemon_uid, uint32_t own, uint32_t all);

/* Whether a user who has `own` clients may have another. */
bool policy_attaches(uint32_t uid, uint32_t daemon_uid, uint32_t own);

/* Whether the user may have a heap checked of which so many pages are in use. */
bool policy_checks(uint32_t uid, uint32_t daemon_uid, uint64_t pages);

/* How many leases to look at the next time, when `looks` took so long. */
uint32_t policy_looks(uint32_t looks, uint64_t took_ms);

/* How short memory is, 0, 1 or 2, with so many of all pages free, when it was `was` before: below a sixteenth, below a sixty-fourth. It
 * has to rise a little beyond before it is called better. */
uint32_t policy_pressure(uint32_t was, uint64_t free, uint64_t all);

/* Whether a client sleeps that was last heard of so long ago. */
bool policy_sleeps(uint64_t silent_ms);

/* Whether to stay awake after a request that came `gap_us` after the one before. */
bool policy_stays_awake(uint64_t gap_us);

/* How many pages the scavenger may return in this turn. Idle memory of a thirty-second of what is in use is kept: it is likely to be
 * wanted again. With nothing in use nothing is kept. */
uint32_t policy_scavenge(uint64_t free_pages, uint64_t used_pages);

/* In how many milliseconds the scavenger has its next turn, after one that returned `pages`, at `rate` bytes a second. */
int policy_scavenge_pause(uint32_t pages, uint64_t rate, uint32_t delay_ms);

#endif
