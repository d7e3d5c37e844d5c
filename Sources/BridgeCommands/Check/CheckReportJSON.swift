package import BridgeConsistency
package import BridgeCore
package import Foundation

extension CheckReport {
    /// The object that `check --json` prints and that the history keeps. What is not known is null; all six validations are
    /// always there. Fields may be added; none goes.
    package var json: JSONValue {
        [
            "format_version": .string(formatVersion),
            "kind": .string(kind),
            "check_id": .string(checkId),
            "migration": .string(migration),
            "mode": .string(mode.rawValue),
            "background": .bool(background),
            "policies": Self.strings(policies),
            "sample_seed": JSONValue(sampleSeed),
            "verdict": .string(verdict.rawValue),
            "gate": ["open": .bool(gate.isOpen), "reasons": Self.strings(gate.reasons)],
            "started_at": .string(startedAt),
            "completed_at": JSONValue(completedAt),
            "source": .string(source),
            "target": .string(target),
            "fence_seconds": JSONValue(fenceSeconds),
            "foreign_writes": JSONValue(foreignWrites),
            "soundness": .array(
                soundness.map { obligation in
                    [
                        "name": .string(obligation.name), "holds": .bool(obligation.holds),
                        "detail": JSONValue(obligation.detail),
                    ]
                }),
            "progress": [
                "rows_done": .integer(progress.rowsDone), "rows_estimated": JSONValue(progress.rowsEstimated),
                "eta_seconds": JSONValue(progress.etaSeconds),
            ],
            "validations": .array(
                allValidations.map { validation in
                    [
                        "name": .string(validation.name.rawValue), "status": .string(validation.status.rawValue),
                        "findings": Self.strings(validation.findings),
                    ]
                }),
            "tables": .array(tables.map(Self.json)),
            "errors": .array(
                errors.map { error in
                    ["code": .string(error.code), "message": .string(error.message), "hint": .string(error.hint)]
                }),
        ]
    }

    /// The six in their order; what a check did not look at was skipped.
    package var allValidations: [Validation] {
        ValidationName.allCases.map { name in
            validations.first { $0.name == name } ?? Validation(name: name, status: .skipped)
        }
    }

    private static func json(_ table: Table) -> JSONValue {
        [
            "source": .string(table.source),
            "target": .string(table.target),
            "status": .string(table.status.rawValue),
            "reason": JSONValue(table.reason),
            "rows_compared": .integer(table.rowsCompared),
            "matching": .integer(table.matching),
            "mismatched": .integer(table.mismatched),
            "source_only": .integer(table.sourceOnly),
            "target_only": .integer(table.targetOnly),
            "pending": .integer(table.pending),
            "repaired": .integer(table.repaired),
            "equal_by_policy": .object(
                table.equalByPolicy.sorted { $0.key < $1.key }.map { .init(name: $0.key, value: .integer($0.value)) }),
            "hash_algorithm": JSONValue(table.hashAlgorithm),
            "samples": .array(table.samples.map(json)),
            "samples_cut": .bool(table.samplesCut),
            "source_schema": JSONValue(table.sourceSchema),
            "target_schema": JSONValue(table.targetSchema),
        ]
    }

    private static func json(_ sample: Sample) -> JSONValue {
        var members: [JSONValue.Member] = [
            .init(name: "kind", value: .string(sample.kind.rawValue)),
            .init(name: "key", value: values(sample.key)),
            .init(name: "columns", value: strings(sample.columns)),
            .init(name: "position", value: JSONValue(sample.position)),
            .init(name: "source_hash", value: JSONValue(sample.sourceHash)),
            .init(name: "target_hash", value: JSONValue(sample.targetHash)),
        ]
        // Values are there only if they were asked for.
        if let source = sample.sourceValues { members.append(.init(name: "source_values", value: values(source))) }
        if let target = sample.targetValues { members.append(.init(name: "target_values", value: values(target))) }
        return .object(members)
    }

    private static func strings(_ texts: [String]) -> JSONValue { .array(texts.map(JSONValue.string)) }

    private static func values(_ values: [String: String?]) -> JSONValue {
        .object(values.sorted { $0.key < $1.key }.map { .init(name: $0.key, value: JSONValue($0.value)) })
    }

    /// Reads back ``json``; keys that this version does not know are passed over. Nil for anything else, and for a report
    /// of another major version.
    package static func read(_ data: Data) -> CheckReport? {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        guard let report = try? decoder.decode(CheckReport.self, from: data),
            report.formatVersion.split(separator: ".").first == formatVersion.split(separator: ".").first,
            report.kind == "check"
        else { return nil }
        return report
    }

    /// The report of a check that could not be made.
    package static func failed(
        _ error: BridgeError, checkId: String, migration: String, mode: Mode, startedAt: String, source: String,
        target: String
    ) -> CheckReport {
        var report = CheckReport(
            checkId: checkId, migration: migration, mode: mode, verdict: .error,
            gate: Gate(isOpen: false, reasons: ["the check could not be made"]), startedAt: startedAt, source: source,
            target: target)
        report.completedAt = Timestamp.now.rfc3339
        report.errors = [
            Failure(code: error.code.rawValue, message: ErrorRenderer.headline(error), hint: error.hint)
        ]
        return report
    }

    /// What the process ends with.
    package var exitStatus: ExitStatus {
        switch verdict {
        case .consistent: .done
        case .inconsistent: .inconsistent
        case .inconclusive: .inconclusive
        case .error: errors.first.flatMap { ErrorCode(rawValue: $0.code) }?.exitStatus ?? .internalFault
        }
    }
}
