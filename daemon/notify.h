/* Tells the service manager how the daemon is, if there is one ($NOTIFY_SOCKET). */
#ifndef DAEMON_NOTIFY_H
#define DAEMON_NOTIFY_H

/* "READY=1", "STOPPING=1"; a failure is of no interest. */
void notify_state(const char *state);

#endif
