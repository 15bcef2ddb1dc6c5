/*
 * Policies on the command line, and plans as a table.
 */
#ifndef EXAMPLES_POLICY_H
#define EXAMPLES_POLICY_H

#include "common.h"

/*
 * The text of a policy: what the file of that name holds, or `argument` itself where there is none.
 * To be freed; NULL after a line on stderr.
 */
char *read_policy(const char *program, const char *argument);

/* One line per tensor with format, method, bytes and reason, then the totals. False where `json`,
 * which is the library's, cannot be read: no memory. */
bool print_plan(FILE *out, const char *json);

#endif
