#pragma once
// What Swift cannot call in the C library: variadic functions, names that are both a function and a structure, and GNU
// extensions that Swift's overlay leaves out.
#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>

#include "crc32c.h"

extern int pthread_setname_np(pthread_t thread, const char *name);

/// Names a thread for debuggers and `top -H`. At most 15 bytes.
static inline void bridge_name_thread(pthread_t thread, const char *name) {
    (void)pthread_setname_np(thread, name);
}

/// Locks a whole open file for this open file description alone, without waiting. 0, or -1 with errno.
static inline int bridge_lock_file(int descriptor) { return flock(descriptor, LOCK_EX | LOCK_NB); }

/// `open`, which is variadic. The descriptor, or -1 with errno.
static inline int bridge_open_file(const char *path, int flags, unsigned mode) { return open(path, flags, mode); }
