#include "proto/map.h"

#include <string.h>

void *shmi_arena_alloc(void *ctx, size_t size)
{
	struct arena *a = ctx;
	void *p = a->at;

	if (size > (size_t)(a->end - a->at))
		return NULL;
	a->at += (size + 15) & ~(size_t)15;
	return p;
}

void shmi_arena_free(void *ctx, void *p)
{
	(void)ctx;
	(void)p;
}

static bool u32_copy(const struct field *f, uint32_t *to, const uint32_t *from)
{
	uint32_t v = *from;

	if (v < f->lo || v > f->hi || (f->type == FIELD_POW2 && (v & (v - 1)) != 0))
		return false;
	*to = v;
	return true;
}

static bool text_put(const struct field *f, ProtobufCBinaryData *to, const char *from)
{
	to->len = strnlen(from, f->hi);
	to->data = shmi_at(from, 0);
	return to->len < f->hi;
}

static bool text_get(const struct field *f, char *to, const ProtobufCBinaryData *from)
{
	size_t len = from->len;

	if (len >= f->hi || (len > 0 && memchr(from->data, 0, len)))
		return false;
	if (len > 0)
		memcpy(to, from->data, len);
	to[len] = 0;
	return true;
}

static bool rows_put(const struct field *f, void *pb, const void *wire, struct arena *arena)
{
	uint32_t n = *(const uint32_t *)wire;
	void **to = n <= f->hi ? shmi_arena_alloc(arena, sizeof(*to) * n) : NULL;

	if (!to)
		return false;
	for (uint32_t i = 0; i < n; i++) {
		to[i] = shmi_arena_alloc(arena, f->rows->pb->sizeof_message);
		if (!to[i] ||
		        !shmi_map_put(f->rows, to[i], shmi_at(wire, f->wire + (size_t)f->rows->wire_bytes * i), arena))
			return false;
	}
	*(size_t *)shmi_at(pb, f->pb_count) = n;
	*(void ***)shmi_at(pb, f->pb) = to;
	return true;
}

static bool rows_get(const struct field *f, void *wire, const void *pb)
{
	size_t n = *(size_t *)shmi_at(pb, f->pb_count);
	void **from = *(void ***)shmi_at(pb, f->pb);

	if (n > f->hi)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!shmi_map_get(f->rows, shmi_at(wire, f->wire + (size_t)f->rows->wire_bytes * i), from[i]))
			return false;
	*(uint32_t *)wire = (uint32_t)n;
	return true;
}

static bool field_put(const struct field *f, void *pb, const void *wire, struct arena *arena)
{
	void *to = shmi_at(pb, f->pb);
	const void *from = shmi_at(wire, f->wire);

	switch ((enum field_type)f->type) {
	case FIELD_U32:
	case FIELD_POW2:
		return u32_copy(f, to, from);
	case FIELD_U64:
		*(uint64_t *)to = *(const uint64_t *)from;
		return true;
	case FIELD_BOOL:
		*(protobuf_c_boolean *)to = *(const bool *)from;
		return true;
	case FIELD_TEXT:
		return text_put(f, to, from);
	case FIELD_U64S:
		*(size_t *)shmi_at(pb, f->pb_count) = f->hi;
		*(uint64_t **)to = shmi_at(from, 0);
		return true;
	case FIELD_ROWS:
		return rows_put(f, pb, wire, arena);
	}
	return false;
}

static bool field_get(const struct field *f, void *wire, const void *pb)
{
	void *to = shmi_at(wire, f->wire);
	const void *from = shmi_at(pb, f->pb);

	switch ((enum field_type)f->type) {
	case FIELD_U32:
	case FIELD_POW2:
		return u32_copy(f, to, from);
	case FIELD_U64:
		*(uint64_t *)to = *(const uint64_t *)from;
		return true;
	case FIELD_BOOL:
		*(bool *)to = *(const protobuf_c_boolean *)from;
		return true;
	case FIELD_TEXT:
		return text_get(f, to, from);
	case FIELD_U64S:
		if (*(size_t *)shmi_at(pb, f->pb_count) != f->hi)
			return false;
		memcpy(to, *(uint64_t *const *)from, sizeof(uint64_t) * f->hi);
		return true;
	case FIELD_ROWS:
		return rows_get(f, wire, pb);
	}
	return false;
}

bool shmi_map_put(const struct map *map, void *pb, const void *wire, struct arena *arena)
{
	map->pb->message_init(pb);
	for (uint32_t i = 0; i < map->n_fields; i++)
		if (!field_put(&map->fields[i], pb, wire, arena))
			return false;
	return !map->put || map->put(pb, wire, arena);
}

bool shmi_map_get(const struct map *map, void *wire, const void *pb)
{
	for (uint32_t i = 0; i < map->n_fields; i++)
		if (!field_get(&map->fields[i], wire, pb))
			return false;
	return !map->get || map->get(wire, pb);
}
