/* shmallocctl: asks a daemon over its socket and prints the answer.
 *
 * One file for each command; the table of them is in ctl.c, and --help is printed from it. A command gets a struct ctl with
 * the options read, asks through ctl_ask or ctl_query (link.c), which connect when they are first called, and prints to
 * ctl->out as text or, with --format json, as one JSON object. What goes wrong is said once, on ctl->err, where it is found;
 * the functions return the exit status.
 *
 * Texts that come from the daemon (labels, names) are any bytes: they go through report_clean before they are printed.
 */
#ifndef CLIENT_CTL_CTL_H
#define CLIENT_CTL_CTL_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "client/sockpath.h"
#include "proto/wire.h"

enum ctl_exit {
	CTL_OK,
	CTL_FOUND, /* check: there are violations */
	CTL_USAGE, /* the command line makes no sense */
	CTL_UNREACHABLE, /* no daemon, or it does not answer */
	CTL_FAILED /* the daemon refused, or its answer or a file made no sense */
};

#define CTL_FORMAT_VERSION 1 /* `version` of JSON output: bumped when a key changes its meaning or goes */
#define CTL_SOCKET_MAX SHMI_PATH_MAX

struct ctl_buffers;

struct ctl {
	/* options */
	char socket[CTL_SOCKET_MAX];
	const char *heap;
	const char *format; /* one of the command's */
	bool json, prometheus; /* it is that */
	bool wide;
	bool bytes; /* tables: exact bytes */
	bool all;
	bool image;
	bool kill;
	bool reverse;
	const char *by, *output, *sort, *interval, *frames; /* as they were given, or NULL */
	uint32_t timeout_s;
	const char *const *args;
	uint32_t n_args;

	FILE *out, *err;

	/* connection */
	int sock; /* -1: none yet */
	uint64_t serial;
	struct ctl_buffers *buffers;
};

struct ctl_command {
	const char *name;
	const char *args; /* as --help shows them, or NULL */
	const char *summary; /* one line */
	const char *help; /* more lines, or NULL */
	uint32_t options; /* bits: CTL_OPT_... beyond the common ones */
	uint32_t max_args;
	const char *formats; /* with '|' between them; NULL: text and json */
	const char *sorts; /* likewise, of --sort; NULL: keys of the JSON */
	int (*run)(struct ctl *ctl);
};

#define CTL_OPT_BYTES 1u
#define CTL_OPT_ALL 2u
#define CTL_OPT_IMAGE 4u
#define CTL_OPT_KILL 8u
#define CTL_OPT_SORT 64u
#define CTL_OPT_WIDE 128u
#define CTL_OPT_BY 256u
#define CTL_OPT_OUTPUT 512u
#define CTL_OPT_TOP 1024u

extern const struct ctl_command ctl_stats, ctl_clients, ctl_users, ctl_classes, ctl_spans, ctl_roots, ctl_heaps,
        ctl_check, ctl_trim, ctl_evict, ctl_dump, ctl_heapmap, ctl_top;

/* The program, with its streams. Returns the exit status. */
int ctl_main(int argc, char **argv, FILE *out, FILE *err);

/* Says "shmallocctl: ..." and returns `status`. */
__attribute__((format(printf, 3, 4))) int ctl_fail(struct ctl *ctl, int status, const char *format, ...);

/* Sends `request` (its serial is set here) and waits for the reply, which has to be of kind `want`. *reply is good until the
 * next call. Returns CTL_OK, or says what is wrong and returns the exit status. */
int ctl_ask(struct ctl *ctl, struct wire_msg *request, enum wire_kind want, const struct wire_msg **reply);

/* One page of a query about the heap, from `cursor` on. */
int ctl_query(struct ctl *ctl, enum wire_query_kind query, uint64_t cursor, enum wire_kind want,
        const struct wire_msg **reply);

/* Ends the connection, if there is one. */
void ctl_hang_up(struct ctl *ctl);

#endif
