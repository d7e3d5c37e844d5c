#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// Random numbers that come again with their seed, the same on every machine (SplitMix64).
package struct SeededGenerator: RandomNumberGenerator, Sendable {
    private var state: UInt64

    package init(seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 &+ 0x1234_5678_9ABC_DEF1 }

    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    package mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(bound)) }
    package mutating func chance(_ percent: Int) -> Bool { below(100) < percent }
    package mutating func pick<Element>(_ elements: [Element]) -> Element { elements[below(elements.count)] }

    /// A generator from the environment variable `BRIDGE_TEST_SEED`, or from a new seed; printed, so that a failure can be
    /// had again.
    package static func named(_ test: String) -> (generator: SeededGenerator, seed: UInt64) {
        let seed = getenv("BRIDGE_TEST_SEED").flatMap { UInt64(String(cString: $0)) } ?? UInt64.random(in: 0...99_999)
        print("\(test): BRIDGE_TEST_SEED=\(seed)")
        return (SeededGenerator(seed: seed), seed)
    }
}
