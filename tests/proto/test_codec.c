/* The codec, from structs: what is legal comes back the same, what is not is refused on the way out. */
#include <criterion/criterion.h>

#include "proto/codec.h"
#include "tests/proto/messages.h"

static struct codec_scratch scratch;
static struct wire_msg in, out;
static unsigned char bytes[WIRE_MAX];

static struct fill filler(enum fill_mode mode)
{
	return (struct fill){.mode = mode, .state = mode == FILL_RANDOM ? seed_from_env() : 0, .most = UINT32_MAX};
}

/* Encodes `in`, decodes it into `out` and compares them whole. Returns the length of the packet. */
static size_t round_trip(void)
{
	size_t len = 0;

	cr_assert_eq(
	        shmi_codec_encode(&in, &scratch, bytes, sizeof(bytes), &len), 0, "%s", shmi_wire_kind_name(in.kind));
	memset(&scratch, 0xa5, 1 << 16);
	memset(&out, 0, sizeof(out));
	cr_assert_eq(shmi_codec_decode(&out, &scratch, bytes, len), 0, "%s", shmi_wire_kind_name(in.kind));
	cr_assert_eq(memcmp(&in, &out, sizeof(in)), 0, "%s", shmi_wire_kind_name(in.kind));
	return len;
}

Test(codec, smallest_of_every_kind)
{
	struct fill f = filler(FILL_MIN);

	for (enum wire_kind kind = WIRE_HELLO; kind < WIRE_KINDS; kind++) {
		fill_msg(&f, kind, &in);
		round_trip();
	}
}

/* That it is encoded at all says that the largest message of every kind is within WIRE_MAX. */
Test(codec, largest_of_every_kind)
{
	struct fill f = filler(FILL_MAX);

	for (enum wire_kind kind = WIRE_HELLO; kind < WIRE_KINDS; kind++) {
		fill_msg(&f, kind, &in);
		round_trip();
	}
}

Test(codec, random_of_every_kind)
{
	struct fill f = filler(FILL_RANDOM);

	for (int i = 0; i < 200; i++) {
		f.most = i % 4 ? 8 : UINT32_MAX;
		for (enum wire_kind kind = WIRE_HELLO; kind < WIRE_KINDS; kind++) {
			fill_msg(&f, kind, &in);
			round_trip();
		}
	}
}

Test(codec, little_is_touched)
{
	in = (struct wire_msg){.serial = 5, .kind = WIRE_REFILL_OK};
	in.u.refill_ok.n_grants = 2;

	size_t len;

	cr_assert_eq(shmi_codec_encode(&in, &scratch, bytes, sizeof(bytes), &len), 0);
	memset(&out, 0xaa, sizeof(out));
	cr_assert_eq(shmi_codec_decode(&out, &scratch, bytes, len), 0);
	cr_assert_eq(out.u.refill_ok.n_grants, 2);

	const unsigned char *behind = (const unsigned char *)&out.u.refill_ok.grants[2];

	while (behind < (const unsigned char *)(&out + 1))
		cr_assert_eq(*behind++, 0xaa);
}

Test(codec, a_reply_that_is_kept_fits_in_4_KiB)
{
	struct fill f = {.mode = FILL_MAX, .most = WIRE_GRANTS_KEPT};

	fill_msg(&f, WIRE_REFILL_OK, &in);
	cr_assert_eq(in.u.refill_ok.n_grants, WIRE_GRANTS_KEPT);
	cr_assert_leq(round_trip(), 4096);
}

Test(codec, no_room)
{
	struct fill f = filler(FILL_MAX);

	for (enum wire_kind kind = WIRE_HELLO; kind < WIRE_KINDS; kind++) {
		size_t len, again = 0;

		fill_msg(&f, kind, &in);
		cr_assert_eq(shmi_codec_encode(&in, &scratch, bytes, sizeof(bytes), &len), 0);
		memset(bytes, 0xa5, sizeof(bytes));
		cr_assert_eq(shmi_codec_encode(&in, &scratch, bytes, len - 1, &again), CODEC_E_TOO_LONG);
		cr_assert_eq(bytes[0], 0xa5);
		cr_assert_eq(shmi_codec_encode(&in, &scratch, bytes, len, &again), 0);
		cr_assert_eq(again, len);
	}
}

/* A uint32_t of the largest legal message, and a value that is one too far. */
#define OVER(k, member, v)                                                                                             \
	{                                                                                                              \
		k, offsetof(struct wire_msg, u.member), v                                                              \
	}

static const struct {
	enum wire_kind kind;
	size_t offset;
	uint32_t value;
} overs[] = {
        OVER(WIRE_THREAD, thread.parts, 16),
        OVER(WIRE_REFILL, refill.n_wants, WIRE_WANTS + 1),
        OVER(WIRE_REFILL, refill.n_returns, WIRE_SPANS + 1),
        OVER(WIRE_REFILL, refill.n_reports, WIRE_REPORTS + 1),
        OVER(WIRE_REFILL, refill.n_reports, UINT32_MAX),
        OVER(WIRE_REFILL, refill.wants[WIRE_WANTS - 1].sclass, WIRE_SCLASSES),
        OVER(WIRE_REFILL_OK, refill_ok.n_grants, WIRE_SPANS + 1),
        OVER(WIRE_REFILL_OK, refill_ok.n_grants, UINT32_MAX),
        OVER(WIRE_REFILL_OK, refill_ok.grants[0].sclass, WIRE_SCLASSES),
        OVER(WIRE_LARGE, large.align_pages, 0),
        OVER(WIRE_LARGE, large.align_pages, 3),
        OVER(WIRE_LARGE, large.attrs, 4),
        OVER(WIRE_FREE, free.n_spans, WIRE_BIGS + 1),
        OVER(WIRE_LARGE, large.freed.n_spans, WIRE_BIGS + 1),
        OVER(WIRE_REFILL, refill.freed.n_spans, WIRE_BIGS + 1),
        OVER(WIRE_QUERY, query.kind, WIRE_Q_STATS - 1),
        OVER(WIRE_QUERY, query.kind, WIRE_Q_HEAPS + 1),
        OVER(WIRE_ERROR, error.code, WIRE_E_PROTOCOL - 1),
        OVER(WIRE_ERROR, error.code, WIRE_E_EXISTS + 1),
        OVER(WIRE_STATS, stats.damaged, 2),
        OVER(WIRE_CLIENTS, clients.n_rows, WIRE_ROWS + 1),
        OVER(WIRE_CLIENTS, clients.n_rows, UINT32_MAX),
        OVER(WIRE_CLIENTS, clients.rows[WIRE_ROWS - 1].detached, 2),
        OVER(WIRE_CLASSES, classes.n_rows, WIRE_ROWS + 1),
        OVER(WIRE_CLASSES, classes.rows[0].sclass, WIRE_SCLASSES),
        OVER(WIRE_SPAN_ROWS, span_rows.n_rows, WIRE_ROWS + 1),
        OVER(WIRE_SPAN_ROWS, span_rows.rows[WIRE_ROWS - 1].sclass, WIRE_SCLASSES),
        OVER(WIRE_ROOTS, roots.n_rows, WIRE_ROWS + 1),
        OVER(WIRE_CHECK, check.n_rows, WIRE_ROWS + 1),
};

Test(codec, numbers_out_of_range_are_not_sent)
{
	struct fill f = filler(FILL_MAX);

	for (size_t i = 0; i < sizeof(overs) / sizeof(*overs); i++) {
		size_t len;

		fill_msg(&f, overs[i].kind, &in);
		memcpy((unsigned char *)&in + overs[i].offset, &overs[i].value, sizeof(overs[i].value));
		cr_expect_eq(shmi_codec_encode(&in, &scratch, bytes, sizeof(bytes), &len), CODEC_E_MALFORMED,
		        "case %zu, %s", i, shmi_wire_kind_name(in.kind));
	}
}

#define ENDLESS(k, member)                                                                                             \
	{                                                                                                              \
		k, offsetof(struct wire_msg, u.member), sizeof(in.u.member)                                            \
	}

static const struct {
	enum wire_kind kind;
	size_t offset, room;
} endless[] = {
        ENDLESS(WIRE_HELLO, hello.version),
        ENDLESS(WIRE_HELLO, hello.label),
        ENDLESS(WIRE_HELLO_OK, hello.label),
        ENDLESS(WIRE_ATTACH, attach.heap),
        ENDLESS(WIRE_ROOT_SET, root.name),
        ENDLESS(WIRE_ROOT_DEL, root.name),
        ENDLESS(WIRE_QUERY, query.heap),
        ENDLESS(WIRE_ERROR, error.text),
        ENDLESS(WIRE_STATS, stats.heap),
        ENDLESS(WIRE_CLIENTS, clients.rows[0].label),
        ENDLESS(WIRE_ROOTS, roots.rows[WIRE_ROWS - 1].name),
        ENDLESS(WIRE_CHECK, check.rows[WIRE_ROWS - 1].text),
};

Test(codec, texts_without_an_end_are_not_sent)
{
	struct fill f = filler(FILL_MAX);

	for (size_t i = 0; i < sizeof(endless) / sizeof(*endless); i++) {
		size_t len;

		fill_msg(&f, endless[i].kind, &in);
		memset((unsigned char *)&in + endless[i].offset, 'x', endless[i].room);
		cr_expect_eq(shmi_codec_encode(&in, &scratch, bytes, sizeof(bytes), &len), CODEC_E_MALFORMED,
		        "case %zu, %s", i, shmi_wire_kind_name(in.kind));
	}
}

Test(codec, kinds_that_are_none_are_not_sent)
{
	const int kinds[] = {WIRE_NONE, WIRE_KINDS, -1, 1000};
	size_t len;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		in.kind = (enum wire_kind)kinds[i];
		cr_expect_eq(shmi_codec_encode(&in, &scratch, bytes, sizeof(bytes), &len), CODEC_E_MALFORMED);
	}
}

Test(codec, every_kind_and_error_has_a_name)
{
	for (int i = 0; i < WIRE_KINDS; i++)
		for (int j = 0; j < i; j++)
			cr_expect_str_neq(
			        shmi_wire_kind_name((enum wire_kind)i), shmi_wire_kind_name((enum wire_kind)j));
	cr_expect_str_eq(shmi_wire_kind_name(WIRE_REFILL), "refill");
	cr_expect_str_eq(shmi_wire_kind_name(WIRE_KINDS), "unknown");
	cr_expect_str_eq(shmi_wire_kind_name((enum wire_kind) - 1), "unknown");
	for (uint32_t i = WIRE_E_PROTOCOL; i <= WIRE_E_EXISTS; i++)
		for (uint32_t j = 0; j < i; j++)
			cr_expect_str_neq(shmi_wire_strerror(i), shmi_wire_strerror(j));
	cr_expect_str_eq(shmi_wire_strerror(0), "unknown error");
	cr_expect_str_eq(shmi_wire_strerror(WIRE_E_EXISTS + 1), "unknown error");
	cr_expect_str_eq(shmi_wire_strerror(UINT32_MAX), "unknown error");
}
