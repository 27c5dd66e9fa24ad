/* The inside of sessions that benchmarks look at. */
#ifndef ITERA_INFER_SESSION_IMPL_H
#define ITERA_INFER_SESSION_IMPL_H

#include "itera/session.h"

struct itera_executable;
struct itera_program;

/* The compiled step of a session that was warmed, which reads and samples one token; the session's.
 * Running it moves the session on without its knowledge: itera_session_reset makes up for that. */
struct itera_executable *itera_session_step(const struct itera_session *session,
                                            const struct itera_program **program,
                                            size_t *state_bytes);

#endif
