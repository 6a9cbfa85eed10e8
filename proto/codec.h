/* struct wire_msg to bytes and back, as protobuf (proto/shmalloc.proto).
 *
 * Neither allocates from malloc: protobuf-c works in a scratch area that the caller gives, through its allocator hook, so
 * that the library may talk to the daemon inside an allocation. Nothing here keeps state; any number of threads may
 * call with areas of their own.
 */
#ifndef PROTO_CODEC_H
#define PROTO_CODEC_H

#include <stddef.h>

#include "proto/wire.h"

#define CODEC_SCRATCH (512 * 1024) /* bytes of scratch: what the largest legal message needs, with room */

#define CODEC_E_MALFORMED 1 /* not a message, or a field out of its range */
#define CODEC_E_TOO_LONG 2 /* more than WIRE_MAX bytes */

struct codec_scratch {
	_Alignas(16) unsigned char bytes[CODEC_SCRATCH];
};

/* Writes the message to `out` of `room` bytes. Returns 0 and *len, or CODEC_E_TOO_LONG, or CODEC_E_MALFORMED if the struct
 * itself breaks a bound. */
int shmi_codec_encode(
        const struct wire_msg *msg, struct codec_scratch *scratch, unsigned char *out, size_t room, size_t *len);

/* Reads a message. Every count, string and enum is checked. Only what the message uses of *msg is written: a text up to its
 * final zero, arrays up to their count. Returns 0, CODEC_E_MALFORMED or CODEC_E_TOO_LONG; then msg->kind is WIRE_NONE and
 * msg->serial what could be read of it, else 0, so that an error can be addressed. */
int shmi_codec_decode(struct wire_msg *msg, struct codec_scratch *scratch, const unsigned char *in, size_t len);

/* "refill", for logs and SHMALLOC_DEBUG. */
const char *shmi_wire_kind_name(enum wire_kind kind);

/* A sentence for a wire_error_code. */
const char *shmi_wire_strerror(uint32_t code);

#endif
