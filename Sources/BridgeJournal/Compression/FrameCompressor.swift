import BridgeCore
import CLZ4

/// Makes LZ4 frames, one context for all of them.
struct FrameCompressor: ~Copyable {
    private let context: OpaquePointer

    init() throws(BridgeError) {
        var made: OpaquePointer?
        let result = LZ4F_createCompressionContext(&made, UInt32(LZ4F_VERSION))
        guard LZ4F_isError(result) == 0, let made else {
            throw BridgeError(.internalFault, "the LZ4 library refuses a compression context")
        }
        context = made
    }

    deinit { LZ4F_freeCompressionContext(context) }

    /// How many bytes a frame may need.
    static func bound(_ count: Int) -> Int {
        var preferences = preferences(count)
        return LZ4F_compressFrameBound(count, &preferences)
    }

    /// Makes one frame of all of the bytes; returns its size.
    func compress(
        _ bytes: UnsafeRawBufferPointer, into output: UnsafeMutableRawBufferPointer
    ) throws(BridgeError) -> Int {
        var preferences = Self.preferences(bytes.count)
        var options = LZ4F_compressOptions_t()
        options.stableSrc = 1
        var size = 0
        guard let start = output.baseAddress else { throw BridgeError(.internalFault, "a frame without room") }
        size += try Self.checked(LZ4F_compressBegin(context, start, output.count, &preferences))
        size += try Self.checked(
            LZ4F_compressUpdate(context, start + size, output.count - size, bytes.baseAddress, bytes.count, &options))
        size += try Self.checked(LZ4F_compressEnd(context, start + size, output.count - size, &options))
        return size
    }

    /// The smallest LZ4 block size that holds everything in one block, so that nothing is copied to keep blocks linked;
    /// giant rows take several linked blocks of 4 MiB.
    private static func preferences(_ count: Int) -> LZ4F_preferences_t {
        var preferences = LZ4F_preferences_t()
        preferences.frameInfo.contentSize = UInt64(count)
        preferences.autoFlush = 1
        switch count {
        case ...(64 << 10): preferences.frameInfo.blockSizeID = LZ4F_max64KB
        case ...(256 << 10): preferences.frameInfo.blockSizeID = LZ4F_max256KB
        case ...(1 << 20): preferences.frameInfo.blockSizeID = LZ4F_max1MB
        default: preferences.frameInfo.blockSizeID = LZ4F_max4MB
        }
        preferences.frameInfo.blockMode = count <= 4 << 20 ? LZ4F_blockIndependent : LZ4F_blockLinked
        return preferences
    }

    private static func checked(_ result: Int) throws(BridgeError) -> Int {
        guard LZ4F_isError(result) == 0 else {
            throw BridgeError(
                .internalFault, "the LZ4 library cannot compress: \(String(cString: LZ4F_getErrorName(result)))")
        }
        return result
    }
}
