import BridgeCore
import Synchronization

/// What the writer, its syncs and its readers know in common: how far the journal reaches, and who waits for more.
final class JournalShared: Sendable {
    private struct Content {
        var segments: [SegmentEntry]
        var written: JournalEnd
        var durable: JournalEnd
        var bytesOnDisk: Int64
        /// The file that the writer appends to.
        var activeFile: OpenFile?
        /// Why nothing more can be written.
        var failure: BridgeError?
        var isClosed = false
        var lastReader: UInt64 = 0
        /// The first segment that each open reader still needs.
        var readers: [UInt64: UInt64] = [:]
        var lastWaiter: UInt64 = 0
        var waiters: [UInt64: Waiter] = [:]

        /// Segments have no gap between them.
        func index(ofSegment number: UInt64) -> Int? {
            guard let first = segments.first?.number, number >= first, number - first < UInt64(segments.count) else {
                return nil
            }
            return Int(number - first)
        }

        /// Takes out those who wait. Those who are just about to wait look at what is there first.
        mutating func takeWaiting() -> [CheckedContinuation<Bool, Never>] {
            guard !waiters.isEmpty else { return [] }
            var waiting: [CheckedContinuation<Bool, Never>] = []
            for (id, waiter) in waiters {
                guard case .waiting(let continuation) = waiter else { continue }
                waiting.append(continuation)
                waiters[id] = .ended
            }
            return waiting
        }
    }

    private enum Waiter {
        case arriving
        case waiting(CheckedContinuation<Bool, Never>)
        case ended
    }

    private let content: Mutex<Content>
    let binding: JournalBinding

    /// - Parameter segments: at least one.
    init(_ segments: [SegmentEntry], binding: JournalBinding, activeFile: OpenFile?) {
        self.binding = binding
        let end =
            segments.last.map {
                JournalEnd($0.end, origin: binding.origin, segment: $0.number, offset: $0.fileBytes)
            }
            ?? JournalEnd(
                lastCommit: nil, frontier: binding.origin, isInsideTransaction: false, records: 0, segment: 0,
                offset: 0)
        content = Mutex(
            Content(
                segments: segments, written: end, durable: end,
                bytesOnDisk: segments.reduce(0) { $0 + Int64(clamping: $1.fileBytes) }, activeFile: activeFile))
    }

    var written: JournalEnd { content.withLock { $0.written } }
    var durable: JournalEnd { content.withLock { $0.durable } }
    var bytesOnDisk: Int64 { content.withLock { $0.bytesOnDisk } }
    var segments: [SegmentEntry] { content.withLock { $0.segments } }
    var failure: BridgeError? { content.withLock { $0.failure } }
}

// MARK: For the writer and its syncs

extension JournalShared {
    /// What a sync has to make durable.
    struct SyncTarget {
        let written: JournalEnd
        let durable: JournalEnd
        let file: OpenFile?
        let failure: BridgeError?
    }

    var syncTarget: SyncTarget {
        content.withLock {
            SyncTarget(written: $0.written, durable: $0.durable, file: $0.activeFile, failure: $0.failure)
        }
    }

    /// How many bytes of the segment are durable.
    func durableBytes(ofSegment number: UInt64) -> UInt64 {
        content.withLock { $0.durable.segment == number ? $0.durable.offset : 0 }
    }

    /// Takes in a block that was just written, and wakes the readers.
    func publish(_ block: BlockDescriptor, checksum: UInt32) {
        let waiters = content.withLock { content in
            let last = content.segments.count - 1
            guard last >= 0 else { return [CheckedContinuation<Bool, Never>]() }
            content.segments[last].add(block, checksum: checksum)
            content.bytesOnDisk += Int64(clamping: block.nextOffset - block.offset)
            content.written = JournalEnd(
                block.end, origin: binding.origin, segment: block.segment, offset: block.nextOffset)
            return content.takeWaiting()
        }
        for waiter in waiters { waiter.resume(returning: true) }
    }

    /// States that the last segment was closed and that a new one, durable with all it has, follows it.
    func publish(closed: SegmentEntry, next: SegmentEntry, file: OpenFile) {
        let waiters = content.withLock { content in
            let last = content.segments.count - 1
            if last >= 0 {
                content.bytesOnDisk +=
                    Int64(clamping: closed.fileBytes) - Int64(clamping: content.segments[last].fileBytes)
                content.segments[last] = closed
            }
            content.segments.append(next)
            content.bytesOnDisk += Int64(clamping: next.fileBytes)
            content.activeFile = file
            content.written = JournalEnd(
                next.end, origin: binding.origin, segment: next.number, offset: next.fileBytes)
            content.durable = content.written
            return content.takeWaiting()
        }
        for waiter in waiters { waiter.resume(returning: true) }
    }

    /// States that everything up to `end` is durable; what is known already is not taken back.
    func publish(durable end: JournalEnd) {
        content.withLock {
            if (end.segment, end.offset) > ($0.durable.segment, $0.durable.offset) { $0.durable = end }
        }
    }

    /// States that nothing more can be written. The first reason stays.
    func fail(_ error: BridgeError) { content.withLock { if $0.failure == nil { $0.failure = error } } }

    /// Forgets the segments before `number`.
    func removeSegments(before number: UInt64) {
        content.withLock { content in
            while let first = content.segments.first, first.number < number {
                content.bytesOnDisk -= Int64(clamping: first.fileBytes)
                content.segments.removeFirst()
            }
        }
    }

    /// The first segment that an open reader needs; nil without readers.
    var firstNeededByReaders: UInt64? { content.withLock { $0.readers.values.min() } }

    /// Ends all waiting; nothing will be written any more.
    func close() {
        let waiters = content.withLock { content in
            content.isClosed = true
            content.activeFile = nil
            return content.takeWaiting()
        }
        for waiter in waiters { waiter.resume(returning: false) }
    }
}

// MARK: For readers

extension JournalShared {
    /// Registers a reader, which keeps every segment until it says which one it needs.
    func addReader() -> UInt64 {
        content.withLock {
            $0.lastReader += 1
            $0.readers[$0.lastReader] = 0
            return $0.lastReader
        }
    }

    /// States that a reader needs nothing before this segment any more.
    func reader(_ id: UInt64, needs segment: UInt64) { content.withLock { $0.readers[id] = segment } }

    func removeReader(_ id: UInt64) { _ = content.withLock { $0.readers.removeValue(forKey: id) } }

    /// How far a segment may be read.
    struct Extent {
        let dataEnd: UInt64
        /// Where to go on behind it.
        let next: SegmentEntry?
    }

    /// nil if the segment is not there any more.
    func extent(ofSegment number: UInt64) -> Extent? {
        content.withLock { content in
            guard let index = content.index(ofSegment: number) else { return nil }
            let isLast = index + 1 == content.segments.count
            return Extent(
                dataEnd: content.segments[index].dataEnd, next: isLast ? nil : content.segments[index + 1])
        }
    }

    /// Takes in what a reader found that another process has written: the last segment as it is now, and those behind it.
    func extend(with entries: [SegmentEntry]) {
        content.withLock { content in
            for entry in entries {
                if let index = content.index(ofSegment: entry.number) {
                    content.segments[index] = entry
                } else if content.segments.last?.number == entry.number - 1 {
                    content.segments.append(entry)
                }
            }
        }
    }

    func entry(ofSegment number: UInt64) -> SegmentEntry? {
        content.withLock { content in content.index(ofSegment: number).map { content.segments[$0] } }
    }

    /// Returns true as soon as there are records behind number `records`; false after `patience`, when the caller's
    /// task is cancelled, or when nothing will be written any more.
    func waitForRecords(beyond records: UInt64, patience: Duration) async -> Bool {
        let id = content.withLock {
            $0.lastWaiter += 1
            $0.waiters[$0.lastWaiter] = .arriving
            return $0.lastWaiter
        }
        defer { _ = content.withLock { $0.waiters.removeValue(forKey: id) } }
        return await withTaskCancellationHandler {
            let alarm = Task {
                try await Task.sleep(for: patience)
                self.endWaiting(id)
            }
            defer { alarm.cancel() }
            return await withCheckedContinuation { continuation in
                let answer: Bool? = content.withLock { content in
                    if content.written.records > records { return true }
                    guard !content.isClosed, case .arriving = content.waiters[id] else { return false }
                    content.waiters[id] = .waiting(continuation)
                    return nil
                }
                if let answer { continuation.resume(returning: answer) }
            }
        } onCancel: {
            endWaiting(id)
        }
    }

    private func endWaiting(_ id: UInt64) {
        let continuation: CheckedContinuation<Bool, Never>? = content.withLock { content in
            guard let waiter = content.waiters.updateValue(.ended, forKey: id) else {
                content.waiters.removeValue(forKey: id)
                return nil
            }
            guard case .waiting(let continuation) = waiter else { return nil }
            return continuation
        }
        continuation?.resume(returning: false)
    }
}
