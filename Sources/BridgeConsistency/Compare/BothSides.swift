import BridgeCore

/// Does the same on both sides at the same time. The first failure ends the other side too.
func onBothSides<Answer: Sendable>(
    _ source: @escaping @Sendable () async throws(BridgeError) -> Answer,
    _ target: @escaping @Sendable () async throws(BridgeError) -> Answer
) async throws(BridgeError) -> (source: Answer, target: Answer) {
    let result: Result<(Answer, Answer), BridgeError> = await withTaskGroup(
        of: (ComparisonRole, Result<Answer, BridgeError>).self
    ) { group in
        group.addTask { (.source, await caught(source)) }
        group.addTask { (.target, await caught(target)) }
        var first: Answer?
        var second: Answer?
        var failure: BridgeError?
        for await (role, answer) in group {
            switch answer {
            case .success(let value): if role == .source { first = value } else { second = value }
            case .failure(let error):
                // What comes later is only the cancelled other side.
                if failure == nil { failure = error }
                group.cancelAll()
            }
        }
        if let failure { return .failure(failure) }
        guard let first, let second else { return .failure(BridgeError(.internalFault, "a side gave no answer")) }
        return .success((first, second))
    }
    let (first, second) = try result.get()
    return (first, second)
}

/// The outcome of something that is waited for later.
func caught<Answer: Sendable>(
    _ body: @Sendable () async throws(BridgeError) -> Answer
) async -> Result<Answer, BridgeError> {
    do throws(BridgeError) { return .success(try await body()) } catch { return .failure(error) }
}

/// Reads a stream to its end and closes it, also after a failure.
/// - Parameter batch: called with the buffer, full of rows, after every read.
func readAll(
    _ stream: any RowStream, limit: Int, _ batch: (RecordBuffer) async throws(BridgeError) -> Void
) async throws(BridgeError) {
    let buffer = RecordBuffer(capacity: min(limit, 8 << 20) + (64 << 10))
    do throws(BridgeError) {
        while true {
            if Task.isCancelled { throw BridgeError(.interrupted, "the comparison was stopped") }
            buffer.removeAll(retaining: 4 << 20)
            guard try await stream.read(into: buffer, limit: limit) > 0 else { break }
            try await batch(buffer)
        }
    } catch {
        await stream.close()
        throw error
    }
    await stream.close()
}

/// Looks keys up in batches that stay small where rows are large.
/// - Parameter find: appends the rows of some keys; false, and nothing appended, if they take too much.
func lookUp(
    _ keys: [KeyImage], limits: CompareLimits,
    find: (ArraySlice<KeyImage>, RecordBuffer) async throws(BridgeError) -> Bool,
    _ batch: (ArraySlice<KeyImage>, RecordBuffer) throws(BridgeError) -> Void
) async throws(BridgeError) {
    let buffer = RecordBuffer()
    var start = 0
    var size = FindSize(limits)
    while start < keys.count {
        if Task.isCancelled { throw BridgeError(.interrupted, "the comparison was stopped") }
        let end = min(keys.count, start + size.keys)
        buffer.removeAll(retaining: 4 << 20)
        guard try await find(keys[start..<end], buffer) else {
            size.shrink()
            continue
        }
        try batch(keys[start..<end], buffer)
        size.grow(keys: end - start, took: buffer.count)
        start = end
    }
}

/// How many keys are looked up at once: more and more, as long as their rows stay within so many bytes. Rows that are
/// larger than those before are refused, and asked for anew in smaller batches.
struct FindSize {
    private(set) var keys: Int
    /// Bytes that the rows of one look-up on one side may take.
    let bytes: Int
    private let most: Int

    /// - Parameter rowBytes: how large a row may be thought to be; nil if that is not known.
    init(_ limits: CompareLimits, rowBytes: Int64? = nil) {
        self.init(most: limits.findBatch, bytes: limits.findBytes, rowBytes: rowBytes)
    }

    init(most: Int, bytes: Int, rowBytes: Int64? = nil) {
        self.most = most
        self.bytes = bytes
        // A guess that is too good costs one look-up that is refused.
        let fitting = rowBytes.map { bytes / 16 / max(1, Int(clamping: $0)) } ?? 0
        keys = min(max(16, fitting), most)
    }

    /// The rows of a single key are never too much, so that this ends.
    mutating func shrink() { keys = max(1, keys / 4) }

    /// - Parameter took: bytes of the rows of the last look-up on the side that took more.
    mutating func grow(keys last: Int, took: Int) {
        keys = max(1, min(most, keys * 4, bytes / max(1, took / max(1, last))))
    }
}
