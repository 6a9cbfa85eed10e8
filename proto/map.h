/* Tables of fields, and the engine that moves a message between its wire struct and protobuf-c's struct by them.
 *
 * A struct map lists a message's fields: the place of each in either struct, and its legal values. shmi_map_put and
 * shmi_map_get walk the same table in the two directions, so one line says, and one line checks, what a field may hold when it
 * is written and when it is read. What a table cannot say (columns) is left to two functions of the message.
 *
 * Memory comes from an arena over an area of the caller's: allocation moves a pointer up, nothing is freed.
 */
#ifndef PROTO_MAP_H
#define PROTO_MAP_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Both are multiples of 16. */
struct arena {
	unsigned char *at, *end;
};

/* NULL if there is no room; else 16-byte aligned. `arena` is a struct arena; the two fit struct ProtobufCAllocator. */
void *shmi_arena_alloc(void *arena, size_t size);
void shmi_arena_free(void *arena, void *p);

enum field_type {
	FIELD_U32, /* lo <= value <= hi */
	FIELD_POW2, /* uint32_t, a power of two */
	FIELD_U64,
	FIELD_BOOL,
	FIELD_TEXT, /* char[hi], zero-terminated */
	FIELD_U64S, /* uint64_t[hi]: all of them */
	FIELD_ROWS /* up to hi structs of map `rows`; their number leads the wire struct */
};

struct field {
	uint8_t type;
	uint16_t wire, pb, pb_count; /* offsets */
	uint32_t lo, hi;
	const struct map *rows;
};

struct map {
	const ProtobufCMessageDescriptor *pb;
	uint32_t wire_bytes;
	uint32_t n_fields;
	const struct field *fields;
	bool (*put)(void *pb, const void *wire, struct arena *arena); /* what `fields` does not cover; or NULL */
	bool (*get)(void *wire, const void *pb);
};

/* Fill `pb` from `wire`, or `wire` from `pb`; false if a bound is broken or the arena has no room. After a put, `pb` points
 * into `wire`. A get writes no more of `wire` than the message uses. */
bool shmi_map_put(const struct map *map, void *pb, const void *wire, struct arena *arena);
bool shmi_map_get(const struct map *map, void *wire, const void *pb);

/* `base` + `offset`, const or not: protobuf-c has no const in the structs that it only reads. */
static inline void *shmi_at(const void *base, size_t offset)
{
	return (void *)((uintptr_t)base + offset);
}

#endif
