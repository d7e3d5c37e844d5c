import BridgeCore
import Synchronization

#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// One row of the log that was the last of what had been delivered: its place, and the random bits that it got when it
/// was written.
struct DeliveryProof: Hashable, Sendable {
    var sequence: Int64
    var mark: Int64
}

/// What is kept in a capture's folder to know the log by: after a restore or a power failure the application may write as
/// many rows as the source lost, and then the places are all there and hold other changes.
///
/// A value for each place up to which changes were delivered. It is written before they are, so whatever the journal has a
/// value is here for, unless a power failure took it: it is synced a moment after. The older ones are then proof enough,
/// unless all that the source lost was delivered in that moment.
///
/// Used by the capture's thread; ``sync()`` by any.
final class DeliveryProofs: Sendable {
    private struct State {
        var descriptor: Int32 = -1
        var isSynced = true
        var proofs: [DeliveryProof] = []
    }

    private static let fileName = "delivered"
    private static let temporaryName = "delivered.new"
    /// Proofs kept before those of what was acknowledged are thrown away.
    private static let bound = 4_096

    private let directory: String?
    private let nonce: String
    private let state = Mutex(State())

    /// Reads what an earlier session left.
    /// - Parameter directory: nil to keep everything in memory.
    init(directory: String?, nonce: String) throws(BridgeError) {
        self.directory = directory
        self.nonce = nonce
        guard let directory else { return }
        let proofs = DeliveryProofText(nonce: nonce).decode(try Self.contents(directory + "/" + Self.fileName))
        state.withLock { $0.proofs = proofs }
    }

    deinit { state.withLock { if $0.descriptor >= 0 { _ = systemClose($0.descriptor) } } }

    /// What must be in a log that was acknowledged, and delivered, so far.
    func proofs(from acknowledged: Int64, before durable: Int64) -> [DeliveryProof] {
        state.withLock { state in
            // A place can have been delivered twice, if the journal did not get it the first time.
            var newest: [Int64: Int64] = [:]
            for proof in state.proofs where proof.sequence >= acknowledged - 1 && proof.sequence < durable {
                newest[proof.sequence] = proof.mark
            }
            return newest.map { DeliveryProof(sequence: $0.key, mark: $0.value) }.sorted { $0.sequence < $1.sequence }
        }
    }

    /// Forgets what was delivered and is not durable: it will be delivered again, and may be something else then.
    func begin(durable: Int64) throws(BridgeError) {
        try rewrite { $0.sequence < durable }
    }

    /// Keeps a proof, before the changes that it stands for are delivered.
    /// - Parameter acknowledged: what stands before it needs no proof any more.
    func add(_ proof: DeliveryProof, acknowledged: Int64) throws(BridgeError) {
        let count = state.withLock { state in
            state.proofs.append(proof)
            return state.proofs.count
        }
        if count > Self.bound, state.withLock({ $0.proofs[0].sequence < acknowledged - 1 }) {
            return try rewrite { $0.sequence >= acknowledged - 1 }
        }
        guard directory != nil else { return }
        let written = state.withLock { state in
            state.isSynced = false
            return Self.write(DeliveryProofText(nonce: nonce).encode(proof), to: state.descriptor)
        }
        guard written else { throw failure("cannot be written") }
    }

    /// Makes sure that what was added survives a power failure, as far as that is possible.
    func sync() {
        let copy: Int32? = state.withLock { state in
            guard !state.isSynced, state.descriptor >= 0 else { return nil }
            state.isSynced = true
            return dup(state.descriptor)
        }
        guard let copy, copy >= 0 else { return }
        _ = fdatasync(copy)
        _ = systemClose(copy)
    }

    private func rewrite(keeping isKept: (DeliveryProof) -> Bool) throws(BridgeError) {
        let proofs = state.withLock { state in
            state.proofs = state.proofs.filter(isKept)
            return state.proofs
        }
        guard let directory else { return }
        try Self.makeDirectory(directory)
        let text = DeliveryProofText(nonce: nonce)
        var bytes = text.header
        for proof in proofs { bytes += text.encode(proof) }
        let temporary = directory + "/" + Self.temporaryName
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw failure("cannot be made") }
        guard Self.write(bytes, to: descriptor), fdatasync(descriptor) == 0,
            rename(temporary, directory + "/" + Self.fileName) == 0
        else {
            let error = failure("cannot be written")
            _ = systemClose(descriptor)
            throw error
        }
        state.withLock { state in
            if state.descriptor >= 0 { _ = systemClose(state.descriptor) }
            state.descriptor = descriptor
        }
    }

    // MARK: Files

    private func failure(_ what: String) -> BridgeError {
        BridgeError(
            errno == ENOSPC ? .diskFull : .inputOutput, "the record of what was delivered \(what)",
            context: [
                .init(.file, (directory ?? "") + "/" + Self.fileName), .init(.detail, String(cString: strerror(errno))),
            ])
    }

    /// With the folders above it.
    private static func makeDirectory(_ directory: String) throws(BridgeError) {
        var path = ""
        for part in directory.split(separator: "/", omittingEmptySubsequences: false) {
            path += path.isEmpty && part.isEmpty ? "" : (path.isEmpty && !directory.hasPrefix("/") ? "" : "/") + part
            guard !path.isEmpty, mkdir(path, 0o700) != 0, errno != EEXIST, errno != EISDIR else { continue }
            var facts = stat()
            guard stat(path, &facts) != 0 else { continue }
            throw BridgeError(.inputOutput, "a folder cannot be made", context: [.init(.file, path)])
        }
    }

    private static func contents(_ path: String) throws(BridgeError) -> [UInt8] {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            if errno == ENOENT || errno == ENOTDIR { return [] }
            throw BridgeError(
                .inputOutput, "the record of what was delivered cannot be read", context: [.init(.file, path)])
        }
        defer { _ = systemClose(descriptor) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = read(descriptor, &buffer, buffer.count)
            guard count >= 0 else {
                throw BridgeError(
                    .inputOutput, "the record of what was delivered cannot be read", context: [.init(.file, path)])
            }
            guard count > 0 else { return bytes }
            bytes += buffer[0..<count]
        }
    }

    private static func write(_ bytes: [UInt8], to descriptor: Int32) -> Bool {
        var offset = 0
        while offset < bytes.count {
            let count = bytes[offset...].withUnsafeBytes { systemWrite(descriptor, $0) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return false }
            offset += count
        }
        return true
    }
}

/// The file's form: a line with the log's nonce, then 24 bytes for each proof, the last eight of them a check sum. What
/// stands behind a proof that is not whole was never finished.
struct DeliveryProofText {
    let nonce: String

    var header: [UInt8] { Array("bridge delivered 1 \(nonce)\n".utf8) }

    func encode(_ proof: DeliveryProof) -> [UInt8] {
        [UInt64(bitPattern: proof.sequence), UInt64(bitPattern: proof.mark), Self.check(proof)].flatMap { word in
            (0..<8).map { UInt8(truncatingIfNeeded: word >> (56 - 8 * $0)) }
        }
    }

    /// The proofs of this log; none if the file is another log's.
    func decode(_ bytes: [UInt8]) -> [DeliveryProof] {
        guard bytes.starts(with: header) else { return [] }
        var proofs: [DeliveryProof] = []
        var offset = header.count
        while offset + 24 <= bytes.count {
            let words = (0..<3).map { word in
                bytes[offset + 8 * word..<offset + 8 * word + 8].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
            }
            let proof = DeliveryProof(sequence: Int64(bitPattern: words[0]), mark: Int64(bitPattern: words[1]))
            guard words[2] == Self.check(proof) else { break }
            proofs.append(proof)
            offset += 24
        }
        return proofs
    }

    private static func check(_ proof: DeliveryProof) -> UInt64 {
        let mixed = (UInt64(bitPattern: proof.sequence) ^ 0x6272_6964_6765) &* 0x9E37_79B9_7F4A_7C15
        return (mixed ^ mixed >> 29 ^ UInt64(bitPattern: proof.mark)) &* 0xBF58_476D_1CE4_E5B9
    }
}

private func systemClose(_ descriptor: Int32) -> Int32 { close(descriptor) }
private func systemWrite(_ descriptor: Int32, _ bytes: UnsafeRawBufferPointer) -> Int {
    write(descriptor, bytes.baseAddress, bytes.count)
}
