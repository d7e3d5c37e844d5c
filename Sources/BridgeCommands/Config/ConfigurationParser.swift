import BridgeConsistency
import BridgeCore
import BridgeCutover
import BridgeReplication

/// Turns the text of `bridge.yaml` into a ``Configuration``, by walking the document by hand so that every error names
/// its key and line.
struct ConfigurationParser {
    let file: String
    /// What relative paths in the file are relative to.
    let directory: String
    let substitution: Substitution
    let registry: ConnectorRegistry

    /// Settings that stand above the file, which then need not hold them.
    struct Given {
        var source: DatabaseAddress?
        var target: DatabaseAddress?
        var dataDirectory: String?
    }

    struct Parsed {
        var migration: String
        var source: DatabaseAddress
        var target: DatabaseAddress
        var dataDirectory: String?
        var services: [Configuration.Service] = []
        var replication = Configuration.Replication()
        var check = Configuration.Check()
        var cutover = Configuration.Cutover()
        /// Dotted keys whose value the file gave.
        var givenKeys: Set<String> = []
    }

    func parse(_ text: String, given: Given = Given()) throws(BridgeError) -> Parsed {
        let root = try YAMLValue.document(text, file: file)
        let top = try root.mapping(known: [
            "migration", "source", "target", "data_dir", "services", "replication", "check", "cutover",
        ])
        guard let migration = top["migration"] else {
            throw missing("migration", hint: "give the migration a name: migration: shop-users")
        }
        let name = try migrationName(migration)
        let source = try address(top["source"], given.source, "source")
        let target = try address(top["target"], given.target, "target")
        var parsed = Parsed(migration: name, source: source, target: target)
        parsed.givenKeys.insert("migration")
        if given.source == nil { parsed.givenKeys.insert("source") }
        if given.target == nil { parsed.givenKeys.insert("target") }
        if let value = top["data_dir"], given.dataDirectory == nil {
            parsed.dataDirectory = try value.text(substitution)
            parsed.givenKeys.insert("data_dir")
        }
        guard let services = top["services"], !services.isEmptyNode else {
            throw missing("services", hint: "name the tables to move: services: { app: { tables: [users] } }")
        }
        parsed.services = try ServicesParser(
            substitution: substitution, sourceHasSchemas: registry.hasSchemas(source.engine),
            targetHasSchemas: registry.hasSchemas(target.engine)
        ).parse(services)
        if let value = top["replication"] { try parseReplication(value, into: &parsed) }
        if let value = top["check"] { try parseCheck(value, into: &parsed) }
        if let value = top["cutover"] { try parseCutover(value, into: &parsed) }
        return parsed
    }

    private func missing(_ key: String, hint: String) -> BridgeError {
        BridgeError(.configurationInvalid, "'\(key)' is missing", context: [.init(.file, file)], hint: hint)
    }

    private func migrationName(_ value: YAMLValue) throws(BridgeError) -> String {
        let name = try value.text(substitution)
        guard MigrationName.isValid(name) else {
            throw value.invalid(
                "must be \(MigrationName.rule)", hint: "write, for example, migration: \(MigrationName.sanitized(name))"
            )
        }
        return name
    }

    private func address(
        _ value: YAMLValue?, _ given: DatabaseAddress?, _ key: String
    ) throws(BridgeError) -> DatabaseAddress {
        if let given { return given }
        guard let value else {
            throw missing(
                key, hint: "write \(key): and the database's address, or set BRIDGE_\(key.uppercased())")
        }
        let text = try value.address(substitution)
        do throws(BridgeError) {
            return try DatabaseAddress(text, relativeTo: directory, registry: registry)
        } catch {
            throw value.error(error.code, "\(value.key): \(error.message)", hint: error.hint)
        }
    }

    private func parseReplication(_ value: YAMLValue, into parsed: inout Parsed) throws(BridgeError) {
        let keys = try value.mapping(known: [
            "batch_bytes", "copy_jobs", "copy_part_bytes", "copy_indexes", "apply_jobs", "journal_budget", "journal_keep",
            "on_conflict", "slot_retained_limit", "at_slot_limit",
        ])
        parsed.givenKeys.formUnion(keys.keys.map { "replication.\($0)" })
        if let value = keys["batch_bytes"] {
            let bytes = try value.quantity(substitution, Quantity.bytes)
            guard (65_536...1_000_000_000).contains(bytes) else { throw value.invalid("must be from 64KiB to 1GB") }
            parsed.replication.batchBytes = Int(bytes)
        }
        if let value = keys["copy_jobs"] {
            parsed.replication.copyJobs = try value.integer(substitution, in: 1...64)
        }
        if let value = keys["copy_part_bytes"] {
            let bytes = try value.quantity(substitution, Quantity.bytes)
            guard bytes >= 65_536 else { throw value.invalid("must be at least 64KiB") }
            parsed.replication.copyPartBytes = bytes
        }
        if let value = keys["copy_indexes"] {
            let word = try value.text(substitution)
            let known = Configuration.Replication.CopyIndexes.allCases.map(\.rawValue)
            guard let choice = Configuration.Replication.CopyIndexes(rawValue: word) else {
                throw value.invalid(
                    "must be one of \(known.joined(separator: ", "))",
                    hint: nearestName(to: word, in: known).map { "write copy_indexes: \($0)" })
            }
            parsed.replication.copyIndexes = choice
        }
        if let value = keys["apply_jobs"] {
            parsed.replication.applyJobs = try value.integer(substitution, in: 1...64)
        }
        if let value = keys["journal_budget"] {
            let bytes = try value.quantity(substitution, Quantity.bytes)
            guard bytes >= 64_000_000 else { throw value.invalid("must be at least 64MB") }
            parsed.replication.journalBudget = bytes
        }
        if let value = keys["journal_keep"] {
            parsed.replication.journalKeep = try value.quantity(substitution, Quantity.duration)
        }
        if let value = keys["on_conflict"] {
            let word = try value.text(substitution)
            let known = ConflictPolicy.allCases.map(\.rawValue)
            guard let policy = ConflictPolicy(rawValue: word) else {
                throw value.invalid(
                    "must be one of \(known.joined(separator: ", "))",
                    hint: nearestName(to: word, in: known).map { "write on_conflict: \($0)" })
            }
            parsed.replication.onConflict = policy
        }
        if let value = keys["slot_retained_limit"] {
            let bytes = try value.quantity(substitution, Quantity.bytes)
            guard bytes >= 64_000_000 else { throw value.invalid("must be at least 64MB") }
            parsed.replication.slotRetainedLimit = bytes
        }
        if let value = keys["at_slot_limit"] {
            let word = try value.text(substitution)
            let known = SlotLimit.Action.allCases.map(\.rawValue)
            guard let action = SlotLimit.Action(rawValue: word) else {
                throw value.invalid(
                    "must be one of \(known.joined(separator: ", "))",
                    hint: nearestName(to: word, in: known).map { "write at_slot_limit: \($0)" })
            }
            parsed.replication.atSlotLimit = action
        }
    }

    private func parseCheck(_ value: YAMLValue, into parsed: inout Parsed) throws(BridgeError) {
        let keys = try value.mapping(known: ["max_age", "throttle", "equal", "memory"])
        parsed.givenKeys.formUnion(keys.keys.map { "check.\($0)" })
        if let value = keys["max_age"] {
            parsed.check.maxAge = try value.quantity(substitution, Quantity.duration)
        }
        if let value = keys["throttle"] {
            guard let part = Double(try value.text(substitution)), part > 0, part <= 1 else {
                throw value.invalid("must be a number above 0 and at most 1", hint: "write, for example, throttle: 0.9")
            }
            parsed.check.throttle = part
        }
        for value in try keys["equal"]?.elements() ?? [] {
            let name = try value.text(substitution)
            guard let policy = EqualityPolicies(name: name) else {
                let known = EqualityPolicies.knownNames
                throw value.invalid(
                    "must be one of \(known.joined(separator: ", "))",
                    hint: nearestName(to: name, in: known).map { "write \($0)" })
            }
            parsed.check.equal.formUnion(policy)
        }
        if let value = keys["memory"] {
            let bytes = try value.quantity(substitution, Quantity.bytes)
            guard bytes >= 16_000_000 else { throw value.invalid("must be at least 16MB") }
            parsed.check.memory = bytes
        }
    }

    private func parseCutover(_ value: YAMLValue, into parsed: inout Parsed) throws(BridgeError) {
        let keys = try value.mapping(
            known: ["max_lag", "max_pause", "window", "timeout", "max_transaction_age", "soak", "old_tables", "routing_file", "hooks"])
        parsed.givenKeys.formUnion(keys.keys.map { "cutover.\($0)" })
        if let value = keys["max_lag"] {
            parsed.cutover.maxLag = try positive(value)
        }
        if let value = keys["max_pause"] {
            parsed.cutover.maxPause = try positive(value)
        }
        if let value = keys["window"] {
            parsed.cutover.window = try value.quantity(substitution) { text throws(Quantity.Malformed) in
                try CutoverWindow(text)
            }
        }
        if let value = keys["timeout"] { parsed.cutover.timeout = try positive(value) }
        if let value = keys["max_transaction_age"] { parsed.cutover.maxTransactionAge = try positive(value) }
        if let value = keys["soak"] { parsed.cutover.soak = try value.quantity(substitution, Quantity.duration) }
        if let value = keys["old_tables"] {
            let word = try value.text(substitution)
            let known = OldTables.allCases.map(\.rawValue)
            guard let choice = OldTables(rawValue: word) else {
                throw value.invalid(
                    "must be one of \(known.joined(separator: ", "))",
                    hint: nearestName(to: word, in: known).map { "write old_tables: \($0)" })
            }
            parsed.cutover.oldTables = choice
        }
        if let value = keys["routing_file"] { parsed.cutover.routingFile = try value.text(substitution) }
        if let value = keys["hooks"] { try parseHooks(value, into: &parsed) }
    }

    private func parseHooks(_ value: YAMLValue, into parsed: inout Parsed) throws(BridgeError) {
        let keys = try value.mapping(known: HookMoment.allCases.map(\.rawValue) + ["timeout"])
        for moment in HookMoment.allCases {
            guard let value = keys[moment.rawValue] else { continue }
            parsed.cutover.hooks[moment] = try value.text(substitution)
        }
        if let value = keys["timeout"] { parsed.cutover.hookTimeout = try positive(value) }
    }

    private func positive(_ value: YAMLValue) throws(BridgeError) -> Duration {
        let duration = try value.quantity(substitution, Quantity.duration)
        guard duration > .zero else { throw value.invalid("must be longer than nothing") }
        return duration
    }
}

/// What a migration may be called: both databases hold objects named after it.
package enum MigrationName {
    package static let rule = "lower-case letters, digits and hyphens, beginning with a letter, not ending in -reverse, 40 at most"

    package static func isValid(_ name: String) -> Bool {
        guard let first = name.utf8.first, (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(first) else { return false }
        // What the way back of `shop` makes is called as the way forward of `shop-reverse` would be.
        return name.utf8.count <= 40 && !name.hasSuffix("-reverse")
            && name.utf8.allSatisfy {
                (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0)
                    || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) || $0 == UInt8(ascii: "-")
            }
    }

    /// A valid name that is as near as possible to any text.
    package static func sanitized(_ text: String) -> String {
        var result = ""
        for character in text.lowercased() {
            if character.isASCII, character.isLetter || character.isNumber {
                result.append(character)
            } else if !result.isEmpty, result.last != "-" {
                result.append("-")
            }
        }
        result = String(result.drop { !$0.isLetter }.prefix(40))
        while result.last == "-" { result.removeLast() }
        return result.isEmpty ? "migration" : result
    }
}
