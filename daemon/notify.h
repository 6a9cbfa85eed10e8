/* What the daemon has to do with a service manager (systemd's protocol, by libsystemd). Without one nothing here has any effect.
 *
 * It is told when the daemon is ready (the heap adopted and checked, the socket listening), how it is, and when it stops; it is
 * fed its watchdog from the event loop, so that a loop that hangs is killed and started anew; and it may have passed the
 * listening socket, which then stays open while the daemon is away: clients that connect meanwhile wait, and no connect fails.
 */
#ifndef DAEMON_NOTIFY_H
#define DAEMON_NOTIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How it is, in one line, which `systemctl status` shows. */
void notify_status(const char *format, ...) __attribute__((format(printf, 1, 2)));

void notify_ready(void);

/* The configuration is being read again; notify_ready says that it is done. */
void notify_reloading(void);
void notify_stopping(void);

/* True if somebody listens to the above. */
bool notify_is_watched(void);

/* How often notify_alive must be called, in milliseconds: half of what the watchdog allows; 0 if there is none. */
uint32_t notify_alive_ms(void);
void notify_alive(void);

/* The listening sockets that were passed: *http is the one for HTTP, which has that name (FileDescriptorName=), *sock the other one;
 * -1 if there is none. Returns 0, or -EINVAL with the reason in words if what was passed cannot be used. To be called once: the
 * environment that says so is removed. */
int notify_sockets(int *sock, int *http, char *why, size_t room);

#endif
