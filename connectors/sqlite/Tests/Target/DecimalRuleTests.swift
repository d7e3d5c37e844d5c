import BridgeCore
import BridgeTestSupport
import GRDB
import Testing

@testable import BridgeSQLite

/// What is decided before a value is bound, held against what SQLite itself makes of the value.
@Suite struct DecimalRuleTests {
    private func isNumber(_ text: String) -> Bool { Array(text.utf8).withUnsafeBytes { NumericText.isNumber($0) } }

    private func number(_ text: String, _ rule: DecimalRule) -> DecimalRule.Number? {
        Array(text.utf8).withUnsafeBytes { rule.number($0) }
    }

    @Test("S16 what SQLite takes for a number is known before it is bound")
    func numbers() throws {
        let (random, seed) = SeededGenerator.named("numeric text")
        var generator = random
        let queue = try DatabaseQueue()
        try queue.write { try $0.execute(sql: "CREATE TABLE t(n NUMERIC, i INTEGER, r REAL)") }
        let alphabet = Array(" \t\n\u{0B}\u{0C}\r+-.0123456789eEx\u{1F}_aI\u{A0}").map(String.init)
        let known = [
            "", " ", "1", " 1 ", "\u{0B}1\u{0C}", "+.5", "5.", ".", "1e3", "1e+", "e3", ".e3", "0x10", "1e400", "-1e400", "123e4567",
            "Inf", "NaN", "Infinity", "1_000", "007", "2024-01-02", "12:30", "1,5", "--1", "1 2", "\u{A0}1",
        ]
        try queue.write { database in
            let statement = try database.makeStatement(sql: "INSERT INTO t VALUES(?1, ?1, ?1)")
            for round in 0..<(known.count + 20_000) {
                let text =
                    round < known.count
                    ? known[round] : (0..<Int.random(in: 0...6, using: &generator)).map { _ in alphabet.randomElement(using: &generator) ?? "" }.joined()
                try database.execute(sql: "DELETE FROM t")
                try statement.execute(arguments: [text])
                let kinds = try Row.fetchOne(database, sql: "SELECT typeof(n) = 'text', typeof(i) = 'text', typeof(r) = 'text' FROM t")
                let isText = !isNumber(text)
                if (0..<3).contains(where: { kinds?[$0] != isText }) { Issue.record("seed \(seed): \(text.debugDescription)") }
            }
        }
        #expect(Array("1\u{0}".utf8).withUnsafeBytes { !NumericText.isNumber($0) })
    }

    @Test("S15 S16 a decimal becomes the number that reads back as it, or nothing")
    func decimals() {
        let there = DecimalRule(scale: nil, ignoresTrailingZeros: false, isReal: false)
        let back = DecimalRule(scale: nil, ignoresTrailingZeros: true, isReal: false)
        let scaled = DecimalRule(scale: 2, ignoresTrailingZeros: false, isReal: false)
        let real = DecimalRule(scale: nil, ignoresTrailingZeros: true, isReal: true)
        let realThere = DecimalRule(scale: nil, ignoresTrailingZeros: false, isReal: true)
        let realScaled = DecimalRule(scale: 2, ignoresTrailingZeros: false, isReal: true)
        let smallest = "0." + String(repeating: "0", count: 323) + "5"
        for (text, rule, wanted) in [
            ("0", there, .integer(0)), ("-5", there, .integer(-5)), ("1.1", there, .real(1.1)), ("-0.001", there, .real(-0.001)),
            ("1.10", there, nil), ("5.00", there, nil), ("1.10", back, .real(1.1)), ("5.00", back, .integer(5)), ("0.00", back, .integer(0)),
            ("1.10", scaled, .real(1.1)), ("5.00", scaled, .integer(5)), ("5", scaled, nil), ("1.1", scaled, nil), ("19.99", scaled, .real(19.99)),
            ("9223372036854775807", there, .integer(.max)), ("-9223372036854775808", there, .integer(.min)),
            ("9007199254740993", there, .integer(9_007_199_254_740_993)), ("9223372036854775808", there, nil),
            ("9223372036854775808.00", back, nil), ("9223372036854776000", there, .real(9_223_372_036_854_775_808)),
            ("100000000000000000000", there, .real(1e20)), ("123456789012345678901234567890", back, nil),
            ("0.30000000000000004", there, .real(0.30000000000000004)), ("0.1000000000000000055511151231257827", back, nil),
            ("123456789012345.6", there, .real(123456789012345.6)), ("9007199254740992.5", back, nil), (smallest, there, .real(.leastNonzeroMagnitude)),
            ("0." + String(repeating: "0", count: 330) + "5", back, nil), ("1" + String(repeating: "0", count: 400), back, nil),
            ("-0.00", back, nil), ("", back, nil), ("1e3", back, nil), ("NaN", back, .text), ("-Infinity", back, .text), ("5", real, .real(5)),
            ("0", real, .real(0)), ("9007199254740993", real, nil), ("5", realThere, .real(5)), ("0", realThere, .real(0)), ("-120", realThere, .real(-120)),
            ("5.0", realThere, nil), ("0.0", realThere, nil), ("-0", realThere, nil), ("1.5", realThere, .real(1.5)), ("1.50", realThere, nil),
            ("9007199254740992", realThere, .real(9_007_199_254_740_992)), ("9007199254740993", realThere, nil), ("100000000000000000000", realThere, .real(1e20)),
            ("5.00", realScaled, .real(5)), ("5", realScaled, nil), ("1.10", realScaled, .real(1.1)),
        ] as [(String, DecimalRule, DecimalRule.Number?)] {
            #expect(number(text, rule) == wanted, "\(text.prefix(40)), \(rule)")
        }
    }

    @Test("S15 random decimals: what is bound is stored as it is, and reads back as the decimal")
    func randomDecimals() throws {
        let (random, seed) = SeededGenerator.named("decimals")
        var generator = random
        let queue = try DatabaseQueue()
        let rule = DecimalRule(scale: nil, ignoresTrailingZeros: false, isReal: false)
        var bound = 0
        try queue.write { database in
            try database.execute(sql: "CREATE TABLE t(n NUMERIC)")
            for _ in 0..<20_000 {
                let whole = Int64.random(in: 0...(1 << Int64.random(in: 0...62, using: &generator)), using: &generator)
                let digits = Int.random(in: 0...18, using: &generator)
                let fraction = (0..<digits).map { _ in "\(Int.random(in: 0...9, using: &generator))" }.joined()
                let text = "\(whole)" + (digits > 0 ? "." + fraction : "")
                guard let number = number(text, rule) else { continue }
                bound += 1
                try database.execute(sql: "DELETE FROM t")
                switch number {
                case .integer(let value): try database.execute(sql: "INSERT INTO t VALUES(?)", arguments: [value])
                case .real(let value): try database.execute(sql: "INSERT INTO t VALUES(?)", arguments: [value])
                case .text: Issue.record("seed \(seed): \(text)")
                }
                let stored = try DatabaseValue.fetchOne(database, sql: "SELECT n FROM t")
                let back: String? =
                    switch stored?.storage {
                    case .int64(let value)?: "\(value)"
                    case .double(let value)?: NumberText.decimal(value)
                    default: nil
                    }
                if back != text { Issue.record("seed \(seed): \(text) became \(back ?? "something else")") }
            }
        }
        #expect(bound > 2_000, "seed \(seed)")
    }
}
