import CBridgeSystem

/// CRC-32C, as the format document defines it: the checksum of every frame and of every file of a journal.
package enum Checksum {
    private static let hasInstruction = bridge_crc32c_has_instruction() != 0
    private static let tables: [UInt32] = [UInt32](unsafeUninitializedCapacity: 8 * 256) { buffer, count in
        if let base = buffer.baseAddress {
            bridge_crc32c_fill_tables(base)
            count = 8 * 256
        }
    }

    package static func of(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
        hasInstruction ? ofWithInstruction(bytes) : ofWithTables(bytes)
    }

    /// Only where the processor has the instruction.
    static func ofWithInstruction(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
        ~bridge_crc32c_instruction(~0, bytes.bindMemory(to: UInt8.self).baseAddress, bytes.count)
    }

    static func ofWithTables(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
        tables.withUnsafeBufferPointer {
            ~bridge_crc32c_table($0.baseAddress, ~0, bytes.bindMemory(to: UInt8.self).baseAddress, bytes.count)
        }
    }

    static var canUseInstruction: Bool { hasInstruction }
}
