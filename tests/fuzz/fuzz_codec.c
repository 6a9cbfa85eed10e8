/* The codec reads any bytes. What it accepts is a legal message: it can be written again, and that comes back the same.
 *
 * The seeds in corpus/codec are legal messages of every kind, as the codec writes them.
 */
#include <stdlib.h>
#include <string.h>

#include "proto/codec.h"

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len);

static struct codec_scratch scratch;

static void insist(int holds)
{
	if (!holds)
		abort();
}

int LLVMFuzzerTestOneInput(const unsigned char *bytes, size_t len)
{
	static struct wire_msg first, second;
	static unsigned char packet[WIRE_MAX];
	size_t packet_len;

	/* so that what a message does not use is the same in both */
	memset(&first, 0, sizeof(first));
	memset(&second, 0, sizeof(second));

	int error = shmi_codec_decode(&first, &scratch, bytes, len);

	insist((error == CODEC_E_TOO_LONG) == (len > WIRE_MAX));
	insist((error != 0) == (first.kind == WIRE_NONE));
	if (error)
		return 0;
	insist(shmi_codec_encode(&first, &scratch, packet, sizeof(packet), &packet_len) == 0);
	memset(scratch.bytes, 0xa5, 4096); /* nothing decoded may still lie there */
	insist(shmi_codec_decode(&second, &scratch, packet, packet_len) == 0);
	insist(memcmp(&first, &second, sizeof(first)) == 0);
	return 0;
}
