#pragma once
// What Swift cannot call in the C library: variadic functions, and GNU extensions that Swift's overlay leaves out.
#include <pthread.h>

extern int pthread_setname_np(pthread_t thread, const char *name);

/// Names a thread for debuggers and `top -H`. At most 15 bytes.
static inline void bridge_name_thread(pthread_t thread, const char *name) {
    (void)pthread_setname_np(thread, name);
}
