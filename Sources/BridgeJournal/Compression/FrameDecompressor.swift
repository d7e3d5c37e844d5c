import BridgeCore
import CLZ4

/// Reads LZ4 frames, one context for all of them.
struct FrameDecompressor: ~Copyable {
    private let context: OpaquePointer

    init() throws(BridgeError) {
        var made: OpaquePointer?
        let result = LZ4F_createDecompressionContext(&made, UInt32(LZ4F_VERSION))
        guard LZ4F_isError(result) == 0, let made else {
            throw BridgeError(.internalFault, "the LZ4 library refuses a decompression context")
        }
        context = made
    }

    deinit { LZ4F_freeDecompressionContext(context) }

    /// Appends the frame's contents to `buffer`. False, with nothing appended, unless the frame is whole, fills all of
    /// `frame` and holds exactly `count` bytes.
    func decompress(_ frame: UnsafeRawBufferPointer, count: Int, into buffer: RecordBuffer) -> Bool {
        // LZ4 expands at most 255 times; whatever claims more is not worth the memory.
        guard count > 0, count / 255 <= frame.count else { return false }
        LZ4F_resetDecompressionContext(context)
        var isWhole = false
        // The library decodes straight into the room it is given if a full LZ4 block would fit, and copies otherwise.
        buffer.appendUninitialized(count + Self.slack(count)) { room -> Int in
            var options = LZ4F_decompressOptions_t()
            options.stableDst = 1
            var consumed = 0
            var produced = 0
            while consumed < frame.count {
                var source = frame.count - consumed
                var destination = room.count - produced
                let hint = LZ4F_decompress(
                    context, room.baseAddress.map { $0 + produced }, &destination,
                    frame.baseAddress.map { $0 + consumed }, &source, &options)
                guard LZ4F_isError(hint) == 0, source > 0 || destination > 0 else { return 0 }
                consumed += source
                produced += destination
                guard produced <= count else { return 0 }
                if hint == 0 { break }
                if consumed == frame.count { return 0 }
            }
            isWhole = consumed == frame.count && produced == count
            return isWhole ? produced : 0
        }
        return isWhole
    }

    private static func slack(_ count: Int) -> Int {
        switch count {
        case ...(64 << 10): 64 << 10
        case ...(256 << 10): 256 << 10
        case ...(1 << 20): 1 << 20
        default: 4 << 20
        }
    }
}
