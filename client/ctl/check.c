#include <string.h>

#include "client/ctl/saved.h"
#include "client/ctl/show.h"
#include "shm/check.h"

#define SHOWN WIRE_ROWS /* violations of a saved image that are described: as many as a daemon describes */

/* A violation on its line, and once what the invariant says. */
static void print_row(struct ctl *ctl, const struct wire_check_row *row, uint32_t *last)
{
	const char *sentence = shmi_check_sentence(row->invariant);
	char text[CTL_CELL];

	report_clean(row->text, text, sizeof(text));
	if (row->invariant != *last)
		fprintf(ctl->out, "I%u: %s\n", row->invariant, sentence ? sentence : "(not known to this program)");
	*last = row->invariant;
	fprintf(ctl->out, "  I%u page %u, detail %llu: %s\n", row->invariant, row->page,
	        (unsigned long long)row->detail, text);
}

static int print_text(struct ctl *ctl, const struct wire_check *check)
{
	uint32_t last = UINT32_MAX;
	char heap[CTL_CELL];

	report_clean(ctl->heap, heap, sizeof(heap));
	for (uint32_t i = 0; i < check->n_rows; i++)
		print_row(ctl, &check->rows[i], &last);
	if (check->violations > check->n_rows)
		fprintf(ctl->out, "and %u more\n", check->violations - check->n_rows);
	if (check->violations || check->n_rows)
		fprintf(ctl->out, "heap %s: %u violations\n", heap,
		        check->violations > check->n_rows ? check->violations : check->n_rows);
	else
		fprintf(ctl->out, "heap %s: clean\n", heap);
	return CTL_OK;
}

static int print_json(struct ctl *ctl, const struct wire_check *check)
{
	json_t *json = ctl_json_new(ctl), *rows = json_array();

	json_object_set_new(json, "clean", json_boolean(!check->violations && !check->n_rows));
	json_object_set_new(json, "violations", report_json_number(check->violations));
	for (uint32_t i = 0; i < check->n_rows; i++) {
		const struct wire_check_row *row = &check->rows[i];
		const char *sentence = shmi_check_sentence(row->invariant);
		json_t *object = json_object();

		json_object_set_new(object, "invariant", report_json_number(row->invariant));
		json_object_set_new(object, "sentence", sentence ? json_string(sentence) : json_null());
		json_object_set_new(object, "page", report_json_number(row->page));
		json_object_set_new(object, "detail", report_json_number(row->detail));
		json_object_set_new(object, "text", report_json_text(row->text));
		json_array_append_new(rows, object);
	}
	json_object_set_new(json, "rows", rows);
	return ctl_json_print(ctl, json);
}

static int print(struct ctl *ctl, const struct wire_check *check)
{
	int status = ctl->json ? print_json(ctl, check) : print_text(ctl, check);

	if (status != CTL_OK)
		return status;
	return check->violations || check->n_rows ? CTL_FOUND : CTL_OK;
}

/* A saved image does not change: one pass says all. */
static int check_saved(struct ctl *ctl)
{
	static struct shmi_violation found[SHOWN];
	static struct wire_check check;
	struct ctl_saved saved;
	int status = ctl_saved_open(ctl, &saved);

	if (status != CTL_OK)
		return status;
	check.violations = shmi_check(&saved.img, NULL, 1, found, SHOWN);
	check.n_rows = check.violations < SHOWN ? check.violations : SHOWN;
	for (uint32_t i = 0; i < check.n_rows; i++) {
		check.rows[i] = (struct wire_check_row){
		        .invariant = found[i].invariant, .page = found[i].page, .detail = found[i].detail};
		memcpy(check.rows[i].text, found[i].text, sizeof(found[i].text));
	}
	status = print(ctl, &check);
	ctl_saved_close(&saved);
	return status;
}

static int run(struct ctl *ctl)
{
	const struct wire_msg *reply;

	if (ctl->image)
		return check_saved(ctl);
	if (ctl->n_args)
		return ctl_fail(ctl, CTL_USAGE, "'%s' is too much: did you mean --image?", ctl->args[0]);
	int status = ctl_query(ctl, WIRE_Q_CHECK, 0, WIRE_CHECK, &reply);

	return status == CTL_OK ? print(ctl, &reply->u.check) : status;
}

const struct ctl_command ctl_check = {.name = "check",
        .args = "[--image META [CTL]]",
        .summary = "look for violations of the heap's invariants; exit 1 if there are any",
        .help = "The daemon checks the running heap: findings about memory that clients write count if they are seen "
                "several\n"
                "times. With --image, saved copies of the shared memory objects are checked here. shm/README.md has "
                "the\n"
                "invariants by number.",
        .options = CTL_OPT_IMAGE,
        .max_args = 2,
        .run = run};
