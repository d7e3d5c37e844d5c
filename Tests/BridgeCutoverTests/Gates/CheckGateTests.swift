import BridgeCore
import Testing

@testable import BridgeCutover

@Suite("The gate of the check")
struct CheckGateTests {
    private static let orders = (TableName(schema: "old", name: "orders"), TableName(schema: "new", name: "orders"))

    private static func definitions(
        source: (String?, String?) = ("a", "a"), target: (String?, String?) = ("b", "b")
    ) -> [GateInputs.Definition] {
        [
            .init(.source, orders.0, checked: source.0, present: source.1),
            .init(.target, orders.1, checked: target.0, present: target.1),
        ]
    }

    private static func gate(
        _ definitions: [GateInputs.Definition]?, goal: Attempt.Goal = .switchReads, isConsistent: Bool = true,
        age: Duration? = .seconds(12)
    ) throws -> Gate {
        var inputs = GateInputs(phases: [:])
        inputs.check = .init(
            verdict: isConsistent ? "consistent" : "inconsistent", isConsistent: isConsistent, opensGate: isConsistent, reasons: [],
            age: age, definitions: definitions)
        let gates = GateKeeper(limits: CutoverLimits(), goal: goal, services: ["orders"]).gates(inputs)
        return try #require(gates.first { $0.name == .check })
    }

    @Test("C10 a clean check of the tables as they are opens the gate", arguments: [Attempt.Goal.switchReads, .switchWrites, .rehearse])
    func same(_ goal: Attempt.Goal) throws {
        let gate = try Self.gate(Self.definitions(), goal: goal)
        #expect(gate.isOpen)
        #expect(gate.measured == "consistent, 12 s old")
    }

    @Test("C10 a table that is defined otherwise than when the check began shuts the gate, and is named with its side",
        arguments: [Attempt.Goal.switchReads, .switchWrites, .rehearse])
    func altered(_ goal: Attempt.Goal) throws {
        for (definitions, named) in [
            (Self.definitions(target: ("b", "c")), "new.orders on the target"), (Self.definitions(source: ("a", "c")), "old.orders on the source"),
            (Self.definitions(source: ("a", "c"), target: ("b", "c")), "old.orders on the source, new.orders on the target"),
        ] {
            let gate = try Self.gate(definitions, goal: goal)
            #expect(!gate.isOpen)
            #expect(gate.measured == "consistent, 12 s old; altered since: \(named)")
            #expect(gate.hint == "bridge check")
        }
        let unclean = try Self.gate(Self.definitions(), goal: goal, isConsistent: false)
        #expect(!unclean.isOpen && unclean.hint == "bridge check, and what it says")
    }

    @Test("C10 a definition that the check did not tell, or that cannot be read now, shuts the gate", arguments: [Attempt.Goal.switchReads, .switchWrites, .rehearse])
    func unknown(_ goal: Attempt.Goal) throws {
        for unknown in [(nil, "b"), ("b", nil), (nil, nil)] as [(String?, String?)] {
            let gate = try Self.gate(Self.definitions(target: unknown), goal: goal)
            #expect(!gate.isOpen)
            #expect(gate.measured == "consistent, 12 s old; definition unknown: new.orders on the target")
            #expect(gate.hint == "bridge check")
        }
        let unseen = try Self.gate(nil, goal: goal)
        #expect(!unseen.isOpen && unseen.measured.contains("unknown"))
    }

    @Test("C10 both kinds are told, and of many tables ten are named")
    func many() throws {
        let definitions = (1...12).map { number in
            GateInputs.Definition(.target, TableName(name: "t\(number)"), checked: "a", present: "b")
        }
        let gate = try Self.gate(definitions + Self.definitions(source: (nil, "a")))
        #expect(!gate.isOpen)
        #expect(gate.measured.contains("t10 on the target and 2 more; definition unknown: old.orders on the source"), "\(gate.measured)")
    }

    @Test("C10 a check that is too old, or was made before the application moved, shuts the gate and says which")
    func age() throws {
        let limit = CutoverLimits().maxCheckAge
        #expect(try Self.gate(Self.definitions(), age: limit).isOpen)
        let old = try Self.gate(Self.definitions(), age: limit + .seconds(1))
        #expect(!old.isOpen && old.measured == "consistent, 901 s old")
        let before = try Self.gate(Self.definitions(), age: nil)
        #expect(!before.isOpen && before.measured == "consistent, made before the application moved")
    }

    @Test("C10 the way back rests on a check that is made for it, whatever the tables were before")
    func wayBack() throws {
        #expect(try Self.gate(nil, goal: .writesBack).isOpen)
    }
}
