#include "proto/wire.h"

#include "proto/codec.h"

static const char *const names[WIRE_KINDS] = {
        [WIRE_NONE] = "none",
        [WIRE_HELLO] = "hello",
        [WIRE_ATTACH] = "attach",
        [WIRE_THREAD] = "thread",
        [WIRE_REFILL] = "refill",
        [WIRE_LARGE] = "large",
        [WIRE_FREE] = "free",
        [WIRE_ROOT_SET] = "root_set",
        [WIRE_ROOT_DEL] = "root_del",
        [WIRE_DETACH] = "detach",
        [WIRE_TRIM] = "trim",
        [WIRE_QUERY] = "query",
        [WIRE_EVICT] = "evict",
        [WIRE_OK] = "ok",
        [WIRE_ERROR] = "error",
        [WIRE_HELLO_OK] = "hello_ok",
        [WIRE_ATTACH_OK] = "attach_ok",
        [WIRE_THREAD_OK] = "thread_ok",
        [WIRE_REFILL_OK] = "refill_ok",
        [WIRE_LARGE_OK] = "large_ok",
        [WIRE_TRIM_OK] = "trim_ok",
        [WIRE_STATS] = "stats",
        [WIRE_CLIENTS] = "clients",
        [WIRE_CLASSES] = "classes",
        [WIRE_SPAN_ROWS] = "span_rows",
        [WIRE_ROOTS] = "roots",
        [WIRE_CHECK] = "check",
        [WIRE_USERS] = "users",
        [WIRE_HEAPS] = "heaps",
};

static const char *const sentences[] = {
        [WIRE_E_PROTOCOL] = "the message is malformed or out of order",
        [WIRE_E_VERSION] = "the two sides are of different versions",
        [WIRE_E_NO_HEAP] = "there is no heap of that name",
        [WIRE_E_ACCESS] = "access to the heap is not allowed",
        [WIRE_E_NO_MEMORY] = "the heap or the memory behind it is full",
        [WIRE_E_LIMIT] = "the limit of the client or of its user is reached",
        [WIRE_E_NO_ROOM] = "there are too many clients, threads or roots",
        [WIRE_E_NOT_FOUND] = "there is no such root or client",
        [WIRE_E_INVALID] = "a field is out of range, or a span is not the client's",
        [WIRE_E_BAD_FREE] = "what was freed is not an allocated large block",
        [WIRE_E_DAMAGED] = "the heap is damaged and out of service",
        [WIRE_E_EVICTED] = "an operator has ended this client's use of the heap",
        [WIRE_E_EXISTS] = "there is a root of that name already",
};

const char *shmi_wire_kind_name(enum wire_kind kind)
{
	return (unsigned)kind < WIRE_KINDS ? names[kind] : "unknown";
}

const char *shmi_wire_strerror(uint32_t code)
{
	if (code == 0 || code >= sizeof(sentences) / sizeof(*sentences))
		return "unknown error";
	return sentences[code];
}
