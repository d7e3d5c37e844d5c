import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgeConsistency

@Suite("Comparison: the hash")
struct RowHasherTests {
    private func hash(_ hasher: RowHasher, _ bytes: [UInt8]) -> UInt128 { bytes.withUnsafeBytes { hasher.hash($0) } }

    @Test("K5 every bit of the input changes every bit of the hash in about half of the cases")
    func avalanche() {
        var (generator, _) = SeededGenerator.named("avalanche")
        for size in [1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 100] {
            let rounds = 200
            var flips = [Int](repeating: 0, count: 128)
            var lowest = 128
            for _ in 0..<rounds {
                let hasher = RowHasher(using: &generator)
                var bytes = (0..<size).map { _ in UInt8.random(in: 0...255, using: &generator) }
                let before = hash(hasher, bytes)
                let bit = generator.below(size * 8)
                bytes[bit / 8] ^= 1 << UInt8(bit % 8)
                let change = before ^ hash(hasher, bytes)
                lowest = min(lowest, change.nonzeroBitCount)
                for index in 0..<128 where change >> UInt128(index) & 1 == 1 { flips[index] += 1 }
            }
            // Six standard deviations around one half; 128 bits, 14 sizes.
            #expect(flips.allSatisfy { abs($0 - rounds / 2) < 43 }, "size \(size)")
            #expect(lowest > 30, "size \(size)")
        }
    }

    @Test("K4 sums see values that are permuted among rows, and lengths that are moved between cells")
    func permutation() {
        var (generator, _) = SeededGenerator.named("permutation")
        for _ in 0..<2000 {
            let hasher = RowHasher(using: &generator)
            let a = (0..<2).map { _ in UInt8.random(in: 0...255, using: &generator) }
            let b = (0..<2).map { _ in UInt8.random(in: 0...255, using: &generator) }
            guard a[0] != b[0], a[1] != b[1] else { continue }
            let wide = [UInt8](repeating: 0, count: generator.below(40))
            let straight = hash(hasher, wide + a) &+ hash(hasher, wide + b)
            let crossed = hash(hasher, wide + [a[0], b[1]]) &+ hash(hasher, wide + [b[0], a[1]])
            #expect(straight != crossed)
        }
        let hasher = RowHasher()
        var seen: Set<UInt128> = []
        for size in 0..<200 { seen.insert(hash(hasher, [UInt8](repeating: 0, count: size))) }
        #expect(seen.count == 200)
    }

    @Test("no collision among 250,000 short inputs, in either half")
    func collisions() {
        let hasher = RowHasher()
        var high: Set<UInt64> = []
        var low: Set<UInt64> = []
        for number in 0..<UInt64(250_000) {
            let value = withUnsafeBytes(of: number.bigEndian) { hasher.hash($0) }
            high.insert(UInt64(truncatingIfNeeded: value >> 64))
            low.insert(UInt64(truncatingIfNeeded: value))
        }
        #expect(high.count == 250_000 && low.count == 250_000)
    }

    @Test("two checks have different secrets")
    func secrets() { #expect(hash(RowHasher(), [1, 2, 3]) != hash(RowHasher(), [1, 2, 3])) }
}
