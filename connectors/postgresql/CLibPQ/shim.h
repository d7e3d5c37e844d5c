#pragma once
#include <libpq-fe.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

/// An event counter for waking a thread that waits in poll(2); -1 if the system refuses.
static inline int bridge_eventfd(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

static inline void bridge_eventfd_signal(int descriptor) {
    uint64_t one = 1;
    // Fails only when the counter is full, and then it is signalled already.
    ssize_t ignored = write(descriptor, &one, sizeof one);
    (void)ignored;
}

static inline void bridge_eventfd_reset(int descriptor) {
    uint64_t count;
    ssize_t ignored = read(descriptor, &count, sizeof count);
    (void)ignored;
}

/// A notice processor that swallows: notices may hold names and values, and nobody reads them.
static inline void bridge_ignore_notice(void *context, const char *message) {
    (void)context;
    (void)message;
}
static inline void bridge_ignore_notices(PGconn *connection) {
    PQsetNoticeProcessor(connection, bridge_ignore_notice, NULL);
}
