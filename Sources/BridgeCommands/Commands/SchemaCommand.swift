import ArgumentParser
import BridgeCore

struct SchemaCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "schema", abstract: "Derive the target's tables, constraints and indexes from the source.",
        subcommands: [Show.self, Apply.self])

    @OptionGroup var global: GlobalOptions

    struct Show: BridgeSubcommand {
        static let configuration = CommandConfiguration(
            abstract: "Print the statements; change nothing.",
            discussion: "What exists on the target already is printed as a comment.")

        @OptionGroup var global: GlobalOptions
        @OptionGroup var json: JSONOption

        func execute(_ context: CommandContext) async throws(BridgeError) -> ExitStatus {
            let migration = try Migration(try context.configuration(), registry: context.registry)
            let plan = try await migration.schemaPlan()
            await migration.close()
            context.report(json: json, plan.json(created: nil), plan.script)
            return .done
        }
    }

    struct Apply: BridgeSubcommand {
        static let configuration = CommandConfiguration(
            abstract: "Create what is missing on the target, all or nothing.")

        @OptionGroup var global: GlobalOptions
        @OptionGroup var json: JSONOption

        func execute(_ context: CommandContext) async throws(BridgeError) -> ExitStatus {
            let migration = try Migration(try context.configuration(), registry: context.registry)
            let plan = try await migration.schemaPlan()
            let missing = plan.statements.filter { !$0.exists }
            if !missing.isEmpty { try await migration.target.execute(plan) }
            await migration.close()
            context.report(json: json, plan.json(created: missing), lines(plan, missing, context.style))
            return .done
        }

        private func lines(_ plan: SchemaPlan, _ missing: [SchemaPlan.Statement], _ style: Style) -> [String] {
            let existing = plan.statements.count - missing.count
            return missing.map { "\(style.green("created"))  \($0.makes)" }
                + (existing > 0 ? ["\(existing) of \(plan.statements.count) existed already"] : [])
                + plan.notes.map { "\(style.yellow("note"))  \($0)" }
        }
    }
}

extension Migration {
    /// What the target lacks of the source's tables.
    func schemaPlan() async throws(BridgeError) -> SchemaPlan {
        let link = try await open()
        return try await target.schemaPlan(
            for: source.planTables(link.description.mappings.map(\.source)), mappings: link.description.mappings)
    }
}

extension SchemaPlan {
    /// The statements as a script; what exists is commented out.
    fileprivate var script: [String] {
        var lines = notes.map { "-- note: \($0)" }
        for statement in statements {
            lines.append("-- \(statement.makes)" + (statement.exists ? " (exists)" : ""))
            let text = statement.sql.hasSuffix(";") ? statement.sql : statement.sql + ";"
            lines += text.split(separator: "\n", omittingEmptySubsequences: false).map {
                statement.exists ? "-- \($0)" : String($0)
            }
        }
        return lines
    }

    fileprivate func json(created: [Statement]?) -> JSONValue {
        [
            "format_version": 1,
            "statements": .array(
                statements.map { statement in
                    [
                        "makes": .string(statement.makes), "sql": .string(statement.sql),
                        "exists": .bool(statement.exists),
                        "created": created.map { .bool($0.contains(statement)) } ?? false,
                    ]
                }),
            "notes": .array(notes.map(JSONValue.string)),
        ]
    }
}
