#if canImport(Glibc)
import Glibc
#else
import Musl
#endif

/// What is wrong with a state.
enum Violation: String {
    /// The verdict is consistent and the rows are not the same.
    case falseConsistent = "a false \"consistent\""
    /// A row is called a definite mismatch, and nothing had gone wrong.
    case falseAlarm = "a false alarm"
}

/// A world by its bytes: all its fields are bytes, so there is no padding.
struct Packed: Hashable {
    var world: World

    static func == (a: Packed, b: Packed) -> Bool {
        withUnsafeBytes(of: a.world) { left in
            withUnsafeBytes(of: b.world) { right in
                guard let x = left.baseAddress, let y = right.baseAddress else { return true }
                return memcmp(x, y, left.count) == 0
            }
        }
    }

    func hash(into hasher: inout Hasher) {
        withUnsafeBytes(of: world) { hasher.combine(bytes: $0) }
    }
}

/// Explores every state that can be reached, breadth first, so that a counterexample is a shortest one.
struct Explorer {
    struct Result {
        var states = 0
        var transitions = 0
        var consistent = 0
        var inconsistent = 0
        var inconclusive = 0
        var violation: Violation?
        var trace: [String] = []

        mutating func add(_ other: Result) {
            states += other.states
            transitions += other.transitions
            consistent += other.consistent
            inconsistent += other.inconsistent
            inconclusive += other.inconclusive
            if violation == nil { (violation, trace) = (other.violation, other.trace) }
        }
    }

    /// No scenario has as many.
    static let bound = 400_000

    let rules: Rules
    /// What ends the search; nil for anything.
    var sought: Violation?

    init(_ scenario: Scenario, without missing: Obligation? = nil, sought: Violation? = nil) {
        rules = Rules(scenario: scenario, missing: missing)
        self.sought = sought
    }

    func run() -> Result {
        var result = Result()
        let start = rules.scenario.start
        var worlds = [start]
        var origins: [(parent: Int, move: Move)] = [(-1, Move(kind: .check))]
        var seen: Set<Packed> = [Packed(world: start)]
        var current = 0
        while current < worlds.count, worlds.count < Self.bound {
            let world = worlds[current]
            switch world.step {
            case .consistent: result.consistent += 1
            case .inconsistent: result.inconsistent += 1
            case .inconclusive: result.inconclusive += 1
            default: break
            }
            if let violation = violation(world), sought == nil || violation == sought {
                result.violation = violation
                result.trace = trace(current, worlds, origins)
                break
            }
            rules.successors(of: world) { after, move in
                result.transitions += 1
                if seen.insert(Packed(world: after)).inserted {
                    worlds.append(after)
                    origins.append((current, move))
                }
            }
            current += 1
        }
        result.states = worlds.count
        return result
    }

    private func violation(_ world: World) -> Violation? {
        // The views' rows are what the verdict speaks of; and under the fence the source stays what it was.
        if world.step == .consistent, world.sourceRows != world.targetRows || world.source != world.sourceRows {
            return .falseConsistent
        }
        if !world.isFaulty, world.mismatched != 0 || world.step == .inconsistent { return .falseAlarm }
        return nil
    }

    private func trace(_ last: Int, _ worlds: [World], _ origins: [(parent: Int, move: Move)]) -> [String] {
        var lines: [String] = []
        var index = last
        while index > 0 {
            let world = worlds[index]
            lines.append(
                "\(origins[index].move)  [source \(text(world.source)) target \(text(world.target)) dirty \(keys(world.dirty))]")
            index = origins[index].parent
        }
        lines.append("at first  [source \(text(worlds[0].source)) target \(text(worlds[0].target))]")
        return lines.reversed()
    }

    private func text(_ rows: Rows) -> String { "a=\(rows[0]) b=\(rows[1])" }
    private func keys(_ bits: UInt8) -> String { "{\(bits & 1 != 0 ? "a" : "")\(bits & 2 != 0 ? "b" : "")}" }
}
