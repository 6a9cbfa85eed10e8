/* Lines of text without stdio: what shm/check and shm/dump say.
 *
 * A small part of printf: %s, %c, %% and, with or without `l` (64 bits), %u and %x. The compiler checks the arguments as it
 * does printf's; uint64_t is an unsigned long wherever this builds.
 */
#ifndef SHM_TEXT_H
#define SHM_TEXT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

_Static_assert(sizeof(unsigned long) == sizeof(uint64_t), "%lu is a uint64_t");

/* Writes to buf of `room` bytes (at least 1), cut to what fits, always zero-terminated. Returns the length. */
__attribute__((format(printf, 3, 4))) size_t shmi_text(char *buf, size_t room, const char *format, ...);
__attribute__((format(printf, 3, 0))) size_t shmi_text_v(char *buf, size_t room, const char *format, va_list args);

#endif
