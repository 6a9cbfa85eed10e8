#include "client/ctl/heapmap.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "shm/sizeclass.h"
#include "shm/span.h"

/* proto/ does not know shm/, and has these numbers of its own. */
_Static_assert(REPORT_PAGE_BYTES == SHMI_PAGE_SIZE && REPORT_ARENA_PAGES == SHMI_ARENA_PAGES, "pages");
_Static_assert(REPORT_FREE == SHMI_SPAN_FREE - 1 && REPORT_RETURNED == SHMI_SPAN_RETURNED - 1 &&
                       REPORT_MOVING == SHMI_SPAN_MOVING - 1 && REPORT_CENTRAL == SHMI_SPAN_CENTRAL - 1 &&
                       REPORT_OWNED == SHMI_SPAN_OWNED - 1 && REPORT_LARGE == SHMI_SPAN_LARGE - 1 &&
                       REPORT_QUARANTINED == SHMI_SPAN_QUARANTINE - 1 && REPORT_SEIZED == SHMI_SPAN_SEIZED - 1,
        "states");

static int take_spans(struct report_map *map, const struct wire_msg *reply)
{
	return report_map_spans(map, reply->u.span_rows.rows, reply->u.span_rows.n_rows);
}

static int take_clients(struct report_map *map, const struct wire_msg *reply)
{
	return report_map_clients(map, reply->u.clients.rows, reply->u.clients.n_rows);
}

/* All rows of a query, page by page. */
static int fetch(struct ctl *ctl, struct report_map *map, enum wire_query_kind query, enum wire_kind want,
        int (*take)(struct report_map *map, const struct wire_msg *reply))
{
	uint64_t cursor = 0, next;

	do {
		const struct wire_msg *reply;
		int status = ctl_query(ctl, query, cursor, want, &reply);

		if (status != CTL_OK)
			return status;
		int error = take(map, reply);

		next = reply->u.clients.next; /* all replies with rows begin alike */
		if (error == -ENOMEM)
			return ctl_fail(ctl, CTL_FAILED, "there is no memory");
		if (error || (next && next <= cursor))
			return ctl_fail(ctl, CTL_FAILED, "the answer from %s makes no sense", ctl->socket);
		cursor = next;
	} while (cursor);
	return CTL_OK;
}

static int find_by(struct ctl *ctl, enum report_by *by)
{
	for (unsigned i = 0; i < REPORT_BYS; i++)
		if (!ctl->by || strcmp(ctl->by, report_by_name(i)) == 0) {
			*by = i;
			return CTL_OK;
		}
	return ctl_fail(ctl, CTL_USAGE, "--by is kind, class or owner, not '%s'", ctl->by);
}

static void draw(struct ctl *ctl, const struct report_map *map, const struct report_map_look *look, FILE *to)
{
	struct ctl_paper paper = ctl_paper_of(to);

	if (strcmp(ctl->format, "svg") == 0)
		report_map_svg(map, look, to);
	else if (strcmp(ctl->format, "html") == 0)
		report_map_html(map, look, to);
	else
		ctl_heapmap_text(map, look, &paper, to);
}

/* The file is opened when there is something to write: a daemon that does not answer does not empty it. */
static int draw_to_file(struct ctl *ctl, const struct report_map *map, const struct report_map_look *look)
{
	FILE *to = fopen(ctl->output, "we");

	if (!to)
		return ctl_fail(ctl, CTL_FAILED, "cannot write %s: %s", ctl->output, strerror(errno));
	draw(ctl, map, look, to);
	bool failed = fflush(to) != 0 || ferror(to);
	int error = errno;

	if (fclose(to) != 0 || failed)
		return ctl_fail(ctl, CTL_FAILED, "cannot write %s: %s", ctl->output, strerror(error));
	return CTL_OK;
}

static int run(struct ctl *ctl)
{
	struct shmi_class classes[SHMI_CLASSES];
	uint32_t bytes[SHMI_CLASSES];
	struct report_map_look look = {.heap = ctl->heap, .time_s = time(NULL)};
	int status = find_by(ctl, &look.by);

	if (status != CTL_OK)
		return status;
	shmi_class_table(classes);
	for (uint32_t i = 0; i < SHMI_CLASSES; i++)
		bytes[i] = classes[i].size;
	struct report_map *map =
	        report_map_new(&(struct report_map_options){.class_bytes = bytes, .n_classes = SHMI_CLASSES});

	if (!map)
		return ctl_fail(ctl, CTL_FAILED, "there is no memory");
	status = fetch(ctl, map, WIRE_Q_SPANS, WIRE_SPAN_ROWS, take_spans);
	if (status == CTL_OK)
		status = fetch(ctl, map, WIRE_Q_CLIENTS, WIRE_CLIENTS, take_clients);
	if (status == CTL_OK && ctl->output && strcmp(ctl->output, "-") != 0)
		status = draw_to_file(ctl, map, &look);
	else if (status == CTL_OK)
		draw(ctl, map, &look, ctl->out);
	report_map_free(map);
	return status;
}

const struct ctl_command ctl_heapmap = {.name = "heapmap",
        .summary = "a picture of the heap: every page by what it is",
        .help = "In the terminal, or as an SVG or HTML file for a browser; the HTML can be zoomed and coloured anew. "
                "--by\n"
                "class shows which sizes of blocks lie where, --by owner which clients hold what. Pale spans are "
                "mostly\n"
                "free inside. Without a terminal, or with NO_COLOR set, the text has letters in place of colours.",
        .options = CTL_OPT_BY | CTL_OPT_OUTPUT,
        .formats = "text|svg|html",
        .run = run};
