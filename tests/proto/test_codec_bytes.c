/* The codec, from bytes: what a peer that is old, broken or hostile may send.
 *
 * Field numbers are repeated here as literals: a change of the schema that breaks the wire fails here.
 */
#include <criterion/criterion.h>

#include "proto/codec.h"
#include "tests/proto/messages.h"

enum body_number {
	REFILL = 2,
	REFILL_OK = 3,
	LARGE = 4,
	LARGE_OK = 5,
	FREE = 6,
	OK = 7,
	ERROR = 8,
	HELLO = 16,
	ATTACH = 17,
	THREAD = 18,
	ROOT_SET = 19,
	QUERY = 23,
	STATS = 36,
	CLIENTS = 37,
	CLASSES = 38,
	SPAN_ROWS = 39,
	ROOTS = 40,
	CHECK = 41,
	USERS = 42,
	HEAPS = 43
};

static struct codec_scratch scratch;
static struct wire_msg msg, again;

/* ---- a writer of protobuf that knows nothing of the schema ---- */

struct pb {
	size_t len;
	unsigned char bytes[4 * WIRE_MAX];
};

static struct pb inner, body, packet;

static void pb_varint(struct pb *p, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		p->bytes[p->len++] = (unsigned char)(v | 0x80);
	p->bytes[p->len++] = (unsigned char)v;
}

static void pb_number(struct pb *p, uint32_t field, uint64_t v)
{
	pb_varint(p, field << 3);
	pb_varint(p, v);
}

static void pb_bytes(struct pb *p, uint32_t field, const void *bytes, size_t len)
{
	pb_varint(p, field << 3 | 2);
	pb_varint(p, len);
	if (len > 0)
		memcpy(p->bytes + p->len, bytes, len);
	p->len += len;
}

/* `n` times the byte `c`: a text, or a packed column of small numbers. */
static void pb_fill(struct pb *p, uint32_t field, unsigned char c, size_t n)
{
	static unsigned char bytes[WIRE_MAX];

	memset(bytes, c, n);
	pb_bytes(p, field, bytes, n);
}

/* Decodes from an allocation of exactly the packet's length, so that a read behind it is seen. */
static int decode(const unsigned char *bytes, size_t len)
{
	unsigned char *copy = calloc(1, len ? len : 1);

	cr_assert_not_null(copy);
	memcpy(copy, bytes, len);

	int error = shmi_codec_decode(&msg, &scratch, copy, len);

	free(copy);
	return error;
}

/* Decodes an envelope around `body` and empties it. */
static int decode_body(uint32_t number)
{
	packet.len = 0;
	pb_number(&packet, 1, 77);
	pb_bytes(&packet, number, body.bytes, body.len);
	body.len = 0;

	int error = decode(packet.bytes, packet.len);

	cr_expect(msg.serial == 77 || (error && msg.serial == 0));
	cr_expect_eq(msg.kind == WIRE_NONE, error != 0);
	return error;
}

/* ---- what the wire is ---- */

/* These two never change: they are what two versions say to each other. */
Test(codec_bytes, hello_and_error_are_for_ever)
{
	static const unsigned char hello[] = {0x08, 0x01, 0x82, 0x01, 0x18, 0x08, 0x01, 0x11, 0x88, 0x77, 0x66, 0x55,
	        0x44, 0x33, 0x22, 0x11, 0x1a, 0x05, '0', '.', '1', '.', '0', 0x22, 0x04, 'p', 'r', 'o', 'g'};
	static const unsigned char error[] = {0x08, 0x01, 0x42, 0x06, 0x08, 0x02, 0x12, 0x02, 'n', 'o'};
	unsigned char out[64];
	size_t len;

	cr_assert_eq(decode(hello, sizeof(hello)), 0);
	cr_assert_eq(msg.kind, WIRE_HELLO);
	cr_assert_eq(msg.serial, 1);
	cr_assert_eq(msg.u.hello.protocol, 1);
	cr_assert_eq(msg.u.hello.layout_hash, 0x1122334455667788);
	cr_assert_str_eq(msg.u.hello.version, "0.1.0");
	cr_assert_str_eq(msg.u.hello.label, "prog");
	cr_assert_eq(shmi_codec_encode(&msg, &scratch, out, sizeof(out), &len), 0);
	cr_assert_eq(len, sizeof(hello));
	cr_assert_eq(memcmp(out, hello, len), 0);

	cr_assert_eq(decode(error, sizeof(error)), 0);
	cr_assert_eq(msg.kind, WIRE_ERROR);
	cr_assert_eq(msg.u.error.code, WIRE_E_VERSION);
	cr_assert_str_eq(msg.u.error.text, "no");
	cr_assert_eq(shmi_codec_encode(&msg, &scratch, out, sizeof(out), &len), 0);
	cr_assert_eq(len, sizeof(error));
	cr_assert_eq(memcmp(out, error, len), 0);
}

/* Page in the low half, generation in the high one, little-endian. */
Test(codec_bytes, a_span_is_a_fixed64)
{
	static const unsigned char span[] = {0x04, 0x03, 0x02, 0x01, 0x14, 0x13, 0x12, 0x11};

	pb_bytes(&body, 1, span, 8);
	pb_bytes(&body, 2, "\x0c", 1);
	pb_bytes(&body, 3, "\x01", 1);
	cr_assert_eq(decode_body(REFILL_OK), 0);
	cr_assert_eq(msg.u.refill_ok.n_grants, 1);
	cr_assert_eq(msg.u.refill_ok.grants[0].page, 0x01020304);
	cr_assert_eq(msg.u.refill_ok.grants[0].generation, 0x11121314);
	cr_assert_eq(msg.u.refill_ok.grants[0].sclass, 12);
	cr_assert_eq(msg.u.refill_ok.grants[0].fresh, true);
}

/* ---- what a later version may send ---- */

Test(codec_bytes, unknown_fields_are_passed_over)
{
	pb_number(&body, 1, 3);
	pb_number(&body, 200, 12345);
	pb_bytes(&body, 201, "later", 5);
	packet.len = 0;
	pb_bytes(&packet, 300, "later", 5);
	pb_number(&packet, 1, 9);
	pb_bytes(&packet, THREAD, body.bytes, body.len);
	pb_number(&packet, 301, 1);
	cr_assert_eq(decode(packet.bytes, packet.len), 0);
	cr_assert_eq(msg.kind, WIRE_THREAD);
	cr_assert_eq(msg.serial, 9);
	cr_assert_eq(msg.u.thread.thread, 3);
}

Test(codec_bytes, a_body_is_needed)
{
	cr_expect_eq(decode(packet.bytes, 0), CODEC_E_MALFORMED);
	cr_expect_eq(msg.serial, 0);
	pb_number(&packet, 1, 9);
	cr_expect_eq(decode(packet.bytes, packet.len), CODEC_E_MALFORMED);
	cr_expect_eq(msg.serial, 9);
	cr_expect_eq(decode_body(15), CODEC_E_MALFORMED);
	cr_expect_eq(decode_body(OK), 0);
}

/* As protobuf says: the last of a oneof holds. */
Test(codec_bytes, of_two_bodies_the_last_holds)
{
	packet.len = 0;
	pb_bytes(&packet, THREAD, "\x08\x03", 2);
	pb_bytes(&packet, OK, NULL, 0);
	cr_assert_eq(decode(packet.bytes, packet.len), 0);
	cr_assert_eq(msg.kind, WIRE_OK);
}

/* ---- bounds, broken by one ---- */

Test(codec_bytes, numbers_out_of_range)
{
	static const struct {
		uint32_t body, field;
		uint64_t good, bad;
	} t[] = {
	        {THREAD, 2, 15, 16},
	        {LARGE, 3, 1u << 31, 0},
	        {LARGE, 3, 2, 3},
	        {LARGE, 3, 1, 0xffffffff},
	        {ERROR, 1, 1, 0},
	        {ERROR, 1, 13, 14},
	        {QUERY, 1, 1, 0},
	        {QUERY, 1, 8, 9},
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++) {
		pb_number(&body, t[i].field, t[i].good);
		cr_expect_eq(decode_body(t[i].body), 0, "case %zu", i);
		pb_number(&body, t[i].field, t[i].bad);
		cr_expect_eq(decode_body(t[i].body), CODEC_E_MALFORMED, "case %zu", i);
	}
	pb_number(&body, 3, 1);
	pb_number(&body, 4, 3);
	cr_expect_eq(decode_body(LARGE), 0);
	pb_number(&body, 3, 1);
	pb_number(&body, 4, 4);
	cr_expect_eq(decode_body(LARGE), CODEC_E_MALFORMED);
}

Test(codec_bytes, numbers_of_rows_out_of_range)
{
	static const struct {
		uint32_t body, field, good, bad;
	} t[] = {{CLIENTS, 5, 1, 2}, {CLASSES, 1, 4095, 4096}, {SPAN_ROWS, 4, 4095, 4096}};

	for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++) {
		for (int bad = 0; bad < 2; bad++) {
			inner.len = 0;
			pb_number(&inner, t[i].field, bad ? t[i].bad : t[i].good);
			pb_bytes(&body, 1, NULL, 0);
			pb_bytes(&body, 1, inner.bytes, inner.len);
			cr_expect_eq(decode_body(t[i].body), bad ? CODEC_E_MALFORMED : 0, "case %zu", i);
		}
	}
}

Test(codec_bytes, texts_too_long_or_with_a_zero)
{
	static const struct {
		uint32_t body, field, room;
		bool in_row;
	} t[] = {{ERROR, 2, WIRE_TEXT, false}, {HELLO, 3, 32, false}, {HELLO, 4, WIRE_NAME, false},
	        {ATTACH, 1, WIRE_NAME, false}, {ROOT_SET, 1, WIRE_NAME, false}, {QUERY, 2, WIRE_NAME, false},
	        {STATS, 1, WIRE_NAME, false}, {CLIENTS, 11, WIRE_NAME, true}, {ROOTS, 1, WIRE_NAME, true},
	        {CHECK, 4, 120, true}};

	for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++) {
		for (int bad = 0; bad < 3; bad++) {
			struct pb *p = t[i].in_row ? &inner : &body;

			inner.len = 0;
			pb_fill(p, t[i].field, 'x', t[i].room - (bad != 1));
			if (bad == 2)
				p->bytes[p->len - 1] = 0;
			if (t[i].body == ERROR || t[i].body == QUERY)
				pb_number(p, 1, 1);
			if (t[i].body == STATS) {
				pb_fill(p, 23, 0, WIRE_COUNTERS);
				pb_fill(p, 31, 0, WIRE_BUCKETS);
				pb_fill(p, 32, 0, WIRE_BUCKETS);
			}
			if (t[i].in_row)
				pb_bytes(&body, 1, inner.bytes, inner.len);
			cr_expect_eq(decode_body(t[i].body), bad ? CODEC_E_MALFORMED : 0, "case %zu, %d", i, bad);
		}
	}
}

/* Columns: {body, field, bytes of an element, limit}. */
Test(codec_bytes, columns_too_long)
{
	static const struct {
		uint32_t body, field, size, limit;
	} t[] = {{REFILL, 3, 8, WIRE_SPANS}, {REFILL, 4, 4, WIRE_REPORTS}, {FREE, 1, 8, WIRE_BIGS}};

	for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++) {
		pb_fill(&body, t[i].field, 1, (size_t)t[i].size * t[i].limit);
		cr_expect_eq(decode_body(t[i].body), 0, "case %zu", i);
		pb_fill(&body, t[i].field, 1, (size_t)t[i].size * (t[i].limit + 1));
		cr_expect_eq(decode_body(t[i].body), CODEC_E_MALFORMED, "case %zu", i);
		pb_fill(&body, t[i].field, 1, (size_t)t[i].size * t[i].limit - 1);
		cr_expect_eq(decode_body(t[i].body), CODEC_E_MALFORMED, "case %zu", i);
	}
}

static int refill_wants(size_t sclasses, size_t spans)
{
	pb_fill(&body, 1, 1, sclasses);
	pb_fill(&body, 2, 1, spans);
	return decode_body(REFILL);
}

static int refill_grants(size_t grants, size_t sclasses, size_t fresh)
{
	pb_fill(&body, 1, 1, 8 * grants);
	pb_fill(&body, 2, 1, sclasses);
	pb_fill(&body, 3, 1, fresh);
	return decode_body(REFILL_OK);
}

Test(codec_bytes, columns_of_different_lengths)
{
	cr_expect_eq(refill_wants(WIRE_WANTS, WIRE_WANTS), 0);
	cr_expect_eq(refill_wants(WIRE_WANTS + 1, WIRE_WANTS + 1), CODEC_E_MALFORMED);
	cr_expect_eq(refill_wants(2, 3), CODEC_E_MALFORMED);
	cr_expect_eq(refill_wants(3, 2), CODEC_E_MALFORMED);
	cr_expect_eq(refill_wants(0, 1), CODEC_E_MALFORMED);
	cr_expect_eq(refill_grants(WIRE_SPANS, WIRE_SPANS, WIRE_SPANS), 0);
	cr_expect_eq(refill_grants(WIRE_SPANS + 1, WIRE_SPANS + 1, WIRE_SPANS + 1), CODEC_E_MALFORMED);
	cr_expect_eq(refill_grants(2, 2, 3), CODEC_E_MALFORMED);
	cr_expect_eq(refill_grants(2, 3, 2), CODEC_E_MALFORMED);
	cr_expect_eq(refill_grants(3, 2, 2), CODEC_E_MALFORMED);
	cr_expect_eq(refill_grants(0, 1, 1), CODEC_E_MALFORMED);
}

Test(codec_bytes, span_classes_out_of_range)
{
	for (uint32_t sclass = 4095; sclass <= 4096; sclass++) {
		inner.len = 0;
		pb_varint(&inner, sclass);
		pb_bytes(&body, 1, inner.bytes, inner.len);
		pb_bytes(&body, 2, "\x01", 1);
		cr_expect_eq(decode_body(REFILL), sclass < 4096 ? 0 : CODEC_E_MALFORMED);
		pb_fill(&body, 1, 1, 8);
		pb_bytes(&body, 2, inner.bytes, inner.len);
		pb_bytes(&body, 3, "\x00", 1);
		cr_expect_eq(decode_body(REFILL_OK), sclass < 4096 ? 0 : CODEC_E_MALFORMED);
	}
}

/* The lists of a STATS, whose lengths are given. */
static void stats_lists(size_t counters, size_t served, size_t waited)
{
	pb_fill(&body, 23, 1, counters);
	pb_fill(&body, 31, 1, served);
	pb_fill(&body, 32, 1, waited);
}

Test(codec_bytes, counters_and_histograms_are_all_there)
{
	for (size_t n = 0; n < 3; n++) {
		size_t counters = WIRE_COUNTERS - 1 + n, buckets = WIRE_BUCKETS - 1 + n;

		stats_lists(counters, WIRE_BUCKETS, WIRE_BUCKETS);
		cr_expect_eq(decode_body(STATS), n == 1 ? 0 : CODEC_E_MALFORMED);
		stats_lists(WIRE_COUNTERS, buckets, WIRE_BUCKETS);
		cr_expect_eq(decode_body(STATS), n == 1 ? 0 : CODEC_E_MALFORMED);
		stats_lists(WIRE_COUNTERS, WIRE_BUCKETS, buckets);
		cr_expect_eq(decode_body(STATS), n == 1 ? 0 : CODEC_E_MALFORMED);
	}
	cr_expect_eq(decode_body(STATS), CODEC_E_MALFORMED);
	for (uint32_t damaged = 1; damaged <= 2; damaged++) {
		stats_lists(WIRE_COUNTERS, WIRE_BUCKETS, WIRE_BUCKETS);
		pb_number(&body, 26, damaged);
		cr_expect_eq(decode_body(STATS), damaged == 1 ? 0 : CODEC_E_MALFORMED);
	}
}

Test(codec_bytes, rows_too_many)
{
	for (uint32_t number = CLIENTS; number <= HEAPS; number++) {
		for (uint32_t n = WIRE_ROWS; n <= WIRE_ROWS + 1; n++) {
			for (uint32_t i = 0; i < n; i++)
				pb_bytes(&body, 1, NULL, 0);
			cr_expect_eq(decode_body(number), n == WIRE_ROWS ? 0 : CODEC_E_MALFORMED, "body %u", number);
		}
	}
}

/* ---- what nobody sends by mistake ---- */

Test(codec_bytes, too_long)
{
	static unsigned char zeros[WIRE_MAX + 1];

	cr_expect_eq(decode(zeros, WIRE_MAX + 1), CODEC_E_TOO_LONG);
	cr_expect_eq(decode(zeros, WIRE_MAX), CODEC_E_MALFORMED);
}

/* Each would have protobuf-c allocate many times the packet's length. */
Test(codec_bytes, the_scratch_is_the_limit)
{
	for (size_t i = 0; i < 30000; i++)
		pb_bytes(&body, 1, NULL, 0);
	cr_expect_eq(decode_body(CLIENTS), CODEC_E_MALFORMED);
	msg.kind = WIRE_OK;
	pb_fill(&body, 23, 1, 65500);
	cr_expect_eq(decode(body.bytes, body.len), CODEC_E_MALFORMED);
	packet.len = 0;
	for (size_t i = 0; i < 30000; i++)
		pb_number(&packet, 9, 1);
	pb_bytes(&packet, OK, NULL, 0);
	cr_expect_eq(decode(packet.bytes, packet.len), CODEC_E_MALFORMED);
	packet.len = 0;
	pb_fill(&body, 3, 1, 8 * 100);
	for (size_t i = 0; i < 70; i++)
		pb_bytes(&packet, REFILL, body.bytes, 8 * 100 + 3);
	cr_expect_eq(decode(packet.bytes, packet.len), CODEC_E_MALFORMED);
}

/* If `bytes` decode, the result is legal: it can be encoded, and comes back the same from that. */
static void decode_anything(const unsigned char *bytes, size_t len)
{
	static unsigned char canonical[WIRE_MAX];
	size_t canonical_len;

	memset(&msg, 0, sizeof(msg));
	if (decode(bytes, len)) {
		cr_assert_eq(msg.kind, WIRE_NONE);
		return;
	}
	cr_assert_eq(shmi_codec_encode(&msg, &scratch, canonical, sizeof(canonical), &canonical_len), 0);
	memset(&again, 0, sizeof(again));
	cr_assert_eq(shmi_codec_decode(&again, &scratch, canonical, canonical_len), 0);
	cr_assert_eq(memcmp(&msg, &again, sizeof(msg)), 0);
}

static size_t encode(struct fill *f, enum wire_kind kind, unsigned char out[WIRE_MAX])
{
	static struct wire_msg m;
	size_t len = 0;

	fill_msg(f, kind, &m);
	cr_assert_eq(shmi_codec_encode(&m, &scratch, out, WIRE_MAX, &len), 0);
	return len;
}

Test(codec_bytes, every_message_cut_at_every_length, .timeout = 120)
{
	static unsigned char bytes[WIRE_MAX];

	for (enum wire_kind kind = WIRE_HELLO; kind < WIRE_KINDS; kind++) {
		struct fill f = {.mode = FILL_MAX, .most = 5};
		size_t len = encode(&f, kind, bytes);

		for (size_t cut = 0; cut < len; cut++)
			decode_anything(bytes, cut);

		f.most = UINT32_MAX;
		len = encode(&f, kind, bytes);
		for (size_t cut = 0; cut < len; cut += 1 + len / 251)
			decode_anything(bytes, cut);
	}
}

Test(codec_bytes, bits_flipped, .timeout = 120)
{
	static unsigned char bytes[WIRE_MAX];
	struct fill f = {.mode = FILL_RANDOM, .state = seed_from_env()};
	int decoded = 0;

	for (int i = 0; i < 40000; i++) {
		f.most = i % 100 ? 6 : UINT32_MAX;

		size_t len = encode(&f, WIRE_HELLO + fill_next(&f) % (WIRE_KINDS - WIRE_HELLO), bytes);

		for (uint64_t flips = 1 + fill_next(&f) % 8; len > 0 && flips > 0; flips--)
			bytes[fill_next(&f) % len] ^= (unsigned char)(1 << fill_next(&f) % 8);
		decode_anything(bytes, len);
		decoded += msg.kind != WIRE_NONE;
	}
	cr_assert_gt(decoded, 400, "most flips were to hit values, not structure: %d", decoded);
}

Test(codec_bytes, noise)
{
	static unsigned char bytes[512];
	struct fill f = {.mode = FILL_RANDOM, .state = seed_from_env()};

	for (int i = 0; i < 20000; i++) {
		size_t len = fill_next(&f) % sizeof(bytes);

		for (size_t j = 0; j < len; j++)
			bytes[j] = (unsigned char)fill_next(&f);
		decode_anything(bytes, len);
	}
}
