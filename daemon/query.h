/* Questions about a heap: for whoever may connect, attached or not; they change nothing.
 *
 * Rows come WIRE_ROWS at a time; the cursor that is returned with them says where to go on. Figures (stats, clients, classes, users)
 * come from a survey and its snapshot (daemon/survey.h): a question without a cursor is answered when the next survey is over; with
 * one, at once, from the snapshot that it is of, so that all pages of rows, and rows of all kinds, are of one moment. Rows of spans
 * and roots are of the moment of each message. A check is done in one go: policy_checks says who may ask for it.
 */
#ifndef DAEMON_QUERY_H
#define DAEMON_QUERY_H

#include "daemon/core.h"

enum outcome query_run(struct core *core, struct caller *caller, const struct wire_msg *req);

#endif
