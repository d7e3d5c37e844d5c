import CBridgeSystem

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// A serial executor with a thread of its own, for actors that block: libpq, sqlite3, fsync.
///
/// The thread lives as long as the executor. An actor that returns it as its `unownedExecutor` and holds it in a stored
/// property runs all its code on that thread, so a C handle inside the actor is only ever touched from there, and
/// nothing blocks the cooperative pool.
package final class ThreadExecutor: SerialExecutor {
    private let queue: JobQueue

    /// - Parameter name: shown by debuggers and `top -H`; the kernel keeps 15 bytes.
    package init(name: String) {
        queue = JobQueue(name: name)
        queue.start()
    }

    deinit { queue.stop() }

    package func enqueue(_ job: consuming ExecutorJob) { queue.push(UnownedJob(job), for: asUnownedSerialExecutor()) }
}

/// The executor's state, kept apart so that the thread does not keep the executor alive.
private final class JobQueue: @unchecked Sendable {
    private let name: String
    private var mutex = pthread_mutex_t()
    private var condition = pthread_cond_t()
    private var jobs: [(UnownedJob, UnownedSerialExecutor)] = []
    private var isStopped = false

    init(name: String) {
        self.name = name
        pthread_mutex_init(&mutex, nil)
        pthread_cond_init(&condition, nil)
    }

    deinit {
        pthread_cond_destroy(&condition)
        pthread_mutex_destroy(&mutex)
    }

    func start() {
        var thread = pthread_t()
        let context = Unmanaged.passRetained(self).toOpaque()
        let result = pthread_create(
            &thread, nil,
            { context in
                guard let context else { return nil }
                Unmanaged<JobQueue>.fromOpaque(context).takeRetainedValue().run()
                return nil
            }, context)
        // Without a thread no job would ever run; a process that cannot have one more thread cannot go on.
        precondition(result == 0, "the system refuses another thread (\(result))")
        bridge_name_thread(thread, String(name.prefix(15)))
        pthread_detach(thread)
    }

    func push(_ job: UnownedJob, for executor: UnownedSerialExecutor) {
        pthread_mutex_lock(&mutex)
        jobs.append((job, executor))
        pthread_cond_signal(&condition)
        pthread_mutex_unlock(&mutex)
    }

    func stop() {
        pthread_mutex_lock(&mutex)
        isStopped = true
        pthread_cond_signal(&condition)
        pthread_mutex_unlock(&mutex)
    }

    private func run() {
        var batch: [(UnownedJob, UnownedSerialExecutor)] = []
        while true {
            pthread_mutex_lock(&mutex)
            while jobs.isEmpty && !isStopped { pthread_cond_wait(&condition, &mutex) }
            if jobs.isEmpty {
                pthread_mutex_unlock(&mutex)
                return
            }
            swap(&batch, &jobs)
            pthread_mutex_unlock(&mutex)
            for (job, executor) in batch { job.runSynchronously(on: executor) }
            batch.removeAll(keepingCapacity: true)
        }
    }
}
