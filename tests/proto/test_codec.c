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
