/* The codec reads any bytes. What it accepts is a legal message: it can be written again, and that comes back the same.
 *
 * The seeds in corpus/codec are legal messages of every kind, as the codec writes them. Plain mutation seldom gets a text or
 * a row longer, as the lengths of all that is around it must grow with it: half of the mutations change what is inside
 * of a field, and mend the lengths.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/codec.h"

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len);
size_t LLVMFuzzerMutate(unsigned char *bytes, size_t len, size_t room);
size_t LLVMFuzzerCustomMutator(unsigned char *bytes, size_t len, size_t room, unsigned seed);

static struct codec_scratch scratch;

static void insist(int holds)
{
	if (!holds)
		abort();
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len)
{
	static struct wire_msg first, second;
	static unsigned char packet[WIRE_MAX], again[WIRE_MAX];
	size_t packet_len, again_len;
	int error = shmi_codec_decode(&first, &scratch, bytes, len);

	insist((error == CODEC_E_TOO_LONG) == (len > WIRE_MAX));
	insist((error != 0) == (first.kind == WIRE_NONE));
	if (error)
		return 0;
	insist(shmi_codec_encode(&first, &scratch, packet, sizeof(packet), &packet_len) == 0);
	memset(scratch.bytes, 0xa5, 4096); /* nothing decoded may still lie there */
	insist(shmi_codec_decode(&second, &scratch, packet, packet_len) == 0);
	insist(shmi_codec_encode(&second, &scratch, again, sizeof(again), &again_len) == 0);
	insist(packet_len == again_len && memcmp(packet, again, packet_len) == 0);
	return 0;
}

/* ---- mutation inside of fields ---- */

static size_t varint_get(const unsigned char *bytes, size_t len, size_t at, uint64_t *v)
{
	*v = 0;
	for (unsigned shift = 0; at < len && shift < 64; shift += 7) {
		*v |= (uint64_t)(bytes[at] & 0x7f) << shift;
		if (!(bytes[at++] & 0x80))
			return at;
	}
	return 0;
}

static size_t varint_put(unsigned char *bytes, size_t at, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		bytes[at++] = (unsigned char)(v | 0x80);
	bytes[at++] = (unsigned char)v;
	return at;
}

/* A field with a length: where its length stands, where its inside begins and ends. */
struct field {
	size_t head, from, to;
};

/* The fields of one level that have a length, until something is not protobuf. */
static unsigned fields_of(const unsigned char *bytes, size_t len, struct field *fields, unsigned room)
{
	uint64_t tag, v;
	unsigned n = 0;

	for (size_t at = 0, next; at < len && n < room; at = next) {
		size_t head = varint_get(bytes, len, at, &tag);

		if (!head)
			break;
		switch (tag & 7) {
		case 0:
			next = varint_get(bytes, len, head, &v);
			break;
		case 1:
			next = head + 8;
			break;
		case 2:
			next = varint_get(bytes, len, head, &v);
			if (!next || v > len - next)
				return n;
			fields[n++] = (struct field){head, next, next + v};
			next += v;
			break;
		case 5:
			next = head + 4;
			break;
		default:
			return n;
		}
		if (!next || next > len)
			break;
	}
	return n;
}

static size_t mutate(unsigned char *bytes, size_t len, size_t room, unsigned seed, unsigned depth)
{
	struct field fields[160];
	unsigned n = depth > 0 && seed % 4 ? fields_of(bytes, len, fields, 160) : 0;

	if (n == 0)
		return LLVMFuzzerMutate(bytes, len, room);

	struct field f = fields[seed / 4 % n];
	unsigned char *inside = malloc(room);
	size_t rest = len - f.to, spare = room - len, size = f.to - f.from;

	insist(inside != NULL);
	memcpy(inside, bytes + f.from, size);
	if (spare > 4) /* a length that grows may need more bytes itself */
		size = mutate(inside, size, size + spare - 4, seed / 4 / n, depth - 1);

	unsigned char *tail = malloc(rest + 1);

	insist(tail != NULL);
	memcpy(tail, bytes + f.to, rest);

	size_t at = varint_put(bytes, f.head, size);

	memcpy(bytes + at, inside, size);
	memcpy(bytes + at + size, tail, rest);
	free(inside);
	free(tail);
	return at + size + rest;
}

size_t LLVMFuzzerCustomMutator(unsigned char *bytes, size_t len, size_t room, unsigned seed)
{
	return mutate(bytes, len, room, seed / 2, seed % 2 ? 3 : 0);
}
