package import BridgeCore

/// What bounds the comparison of a chunk.
package struct CompareLimits: Hashable, Sendable {
    /// Differences kept in an outcome; all of them go to `onDifference`.
    package var samples: Int
    /// Bytes of keys and hashes of differing rows held at once; beyond it they go to a file.
    package var memory: Int
    /// Keys looked up at once, at most; fewer where rows are large.
    package var findBatch: Int
    /// Bytes that the rows of one look-up may take on one side, a row more at most.
    package var findBytes: Int { max(1024, memory / 2) }
    /// Bytes read from a view at once, a row more at most.
    package var readBytes: Int
    /// Where that file is made; it has no name there. Nil: the system's folder for temporary files.
    package var spillDirectory: String?

    package init(
        samples: Int = 20, memory: Int = 32 << 20, findBatch: Int = 500, readBytes: Int = 1 << 20,
        spillDirectory: String? = nil
    ) {
        self.samples = max(0, samples)
        self.memory = max(4096, memory)
        self.findBatch = max(1, findBatch)
        self.readBytes = max(1, readBytes)
        self.spillDirectory = spillDirectory
    }
}

/// What the comparison of a chunk found. `rowsCompared` is the sum of the four counts that follow it.
package struct ChunkOutcome: Hashable, Sendable {
    /// Pairs of rows, and rows without a partner.
    package var rowsCompared: Int64 = 0
    /// Equal rows, those equal only by a policy included.
    package var matching: Int64 = 0
    package var mismatched: Int64 = 0
    package var sourceOnly: Int64 = 0
    package var targetOnly: Int64 = 0
    /// Rows equal only under a policy, by its name; one that needs two policies counts under both.
    package var equalByPolicy: [String: Int64] = [:]
    package var samples: [CheckReport.Sample] = []
    /// Whether there were more differences than samples.
    package var samplesCut = false

    package init() {}

    package var isEqual: Bool { mismatched == 0 && sourceOnly == 0 && targetOnly == 0 }
}

/// What looking one key up on both sides found.
package struct KeyOutcome: Hashable, Sendable {
    /// As it was given.
    package var key: KeyImage
    /// Nil if both sides have the same, or both nothing.
    package var difference: CheckReport.Sample?
    /// The key in canonical form, if a row with it was found.
    package var canonicalKey: KeyImage?
    /// The policies without which they would differ.
    package var equalByPolicy: Set<String>

    package init(
        key: KeyImage, canonicalKey: KeyImage? = nil, difference: CheckReport.Sample? = nil,
        equalByPolicy: Set<String> = []
    ) {
        self.key = key
        self.canonicalKey = canonicalKey
        self.difference = difference
        self.equalByPolicy = equalByPolicy
    }
}

/// Called with every difference and the canonical key of its row.
package typealias DifferenceHandler = (CheckReport.Sample, KeyImage) throws(BridgeError) -> Void
