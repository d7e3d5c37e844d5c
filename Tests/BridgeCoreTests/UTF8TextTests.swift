import BridgeCore
import BridgeTestSupport
import Testing

@Suite struct UTF8TextTests {
    /// How many bytes Swift's own decoder takes for one scalar at the beginning; nil if they are none.
    private func decoded(_ bytes: ArraySlice<UInt8>) -> Int? {
        var decoder = UTF8()
        var iterator = bytes.makeIterator()
        guard case .scalarValue(let scalar) = decoder.decode(&iterator) else { return nil }
        return String(scalar).utf8.count
    }

    @Test("S-types a sequence is well-formed UTF-8 or none, at any place, as Unicode has it")
    func sequences() {
        let (random, seed) = SeededGenerator.named("UTF-8 sequences")
        var generator = random
        let edges: [UInt8] = [0, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF]
        func check(_ bytes: [UInt8]) {
            let length = bytes.withUnsafeBytes { UTF8Text.sequenceLength($0, 0) }
            if length != decoded(bytes[...]) { Issue.record("seed \(seed): \(bytes) has the length \(length ?? 0)") }
            // Behind something else, and with nothing behind it, it is the same.
            let later = ([0x20] + bytes).withUnsafeBytes { UTF8Text.sequenceLength($0, 1) }
            if length != later { Issue.record("seed \(seed): \(bytes) is another later on") }
        }
        for first in UInt8.min...UInt8.max { for second in edges { check([first, second, 0x80, 0x80]); check([first, second]) } }
        for first in UInt8.min...UInt8.max { check([first]) }
        for _ in 0..<20_000 { check((0..<Int.random(in: 1...4, using: &generator)).map { _ in edges.randomElement(using: &generator) ?? 0 }) }
    }
}
