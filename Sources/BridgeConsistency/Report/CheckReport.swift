/// What a check found: the object that `bridge check --json` prints and that the history keeps. Its form is fixed by the
/// JSON Schema `check-report.schema.json`; a minor version only adds. Times are RFC 3339 in UTC, durations in seconds,
/// ratios from 0 to 1; positions, hashes and 64-bit keys are strings. Row values are in it only if they were asked for.
package struct CheckReport: Codable, Hashable, Sendable {
    package static let formatVersion = "1.0"

    package enum Verdict: String, Codable, Sendable { case consistent, inconsistent, inconclusive, error }
    package enum Mode: String, Codable, Sendable, CaseIterable { case full, incremental, sample, fence }

    /// Whether a phase change may rest on the check.
    package struct Gate: Codable, Hashable, Sendable {
        package var isOpen: Bool
        /// Why it is shut; empty if it is open.
        package var reasons: [String]

        package init(isOpen: Bool, reasons: [String] = []) {
            self.isOpen = isOpen
            self.reasons = reasons
        }

        private enum CodingKeys: String, CodingKey {
            case isOpen = "open"
            case reasons
        }
    }

    /// One of the assumptions that the verdict rests on, and whether a machine found it to hold.
    package struct Obligation: Codable, Hashable, Sendable {
        package var name: String
        package var holds: Bool
        package var detail: String?

        package init(name: String, holds: Bool, detail: String? = nil) {
            self.name = name
            self.holds = holds
            self.detail = detail
        }
    }

    package struct Progress: Codable, Hashable, Sendable {
        package var rowsDone: Int64
        package var rowsEstimated: Int64?
        package var etaSeconds: Double?

        package init(rowsDone: Int64 = 0, rowsEstimated: Int64? = nil, etaSeconds: Double? = nil) {
            self.rowsDone = rowsDone
            self.rowsEstimated = rowsEstimated
            self.etaSeconds = etaSeconds
        }
    }

    package enum ValidationName: String, Codable, Sendable, CaseIterable {
        case rowCounts = "row_counts"
        case schemas, indexes, constraints
        case dataSamples = "data_samples"
        case checksums
    }

    package struct Validation: Codable, Hashable, Sendable {
        package enum Status: String, Codable, Sendable { case passed, failed, inconclusive, skipped }
        package var name: ValidationName
        package var status: Status
        /// One sentence each; the first says most.
        package var findings: [String]

        package init(name: ValidationName, status: Status, findings: [String] = []) {
            self.name = name
            self.status = status
            self.findings = findings
        }
    }

    /// One row that differs.
    package struct Sample: Codable, Hashable, Sendable {
        package enum Kind: String, Codable, Sendable {
            /// On the source only.
            case missing
            /// On the target only.
            case extra
            case different
        }
        package var kind: Kind
        /// Column and value of the key, values as text.
        package var key: [String: String?]
        /// The columns that differ; for `missing` and `extra` none.
        package var columns: [String]
        /// The target's applied position when the row was compared.
        package var position: String?
        package var sourceHash: String?
        package var targetHash: String?
        /// Only with `--show-values`.
        package var sourceValues: [String: String?]?
        package var targetValues: [String: String?]?

        package init(
            kind: Kind, key: [String: String?], columns: [String] = [], position: String? = nil,
            sourceHash: String? = nil, targetHash: String? = nil
        ) {
            self.kind = kind
            self.key = key
            self.columns = columns
            self.position = position
            self.sourceHash = sourceHash
            self.targetHash = targetHash
        }
    }

    package struct Table: Codable, Hashable, Sendable {
        package var source: String
        package var target: String
        package var status: Verdict
        package var rowsCompared: Int64 = 0
        package var matching: Int64 = 0
        package var mismatched: Int64 = 0
        package var sourceOnly: Int64 = 0
        package var targetOnly: Int64 = 0
        /// Rows that changed meanwhile and are not settled yet.
        package var pending: Int64 = 0
        /// Rows that this check compared and found equal only under a policy, by the policy's name.
        package var equalByPolicy: [String: Int64] = [:]
        package var hashAlgorithm: String?
        package var samples: [Sample] = []
        package var samplesCut = false
        /// Rows of the target that this check wrote over with the source's.
        package var repaired: Int64 = 0
        /// Why it is inconclusive or an error.
        package var reason: String?
        /// What the table was defined as on either side when the check began, before it opened a view; see
        /// ``CutoverSession/schemaFingerprints(of:)``. Nil where the side did not tell.
        package var sourceSchema: String?
        package var targetSchema: String?

        package init(source: String, target: String, status: Verdict) {
            self.source = source
            self.target = target
            self.status = status
        }
    }

    package struct Failure: Codable, Hashable, Sendable {
        package var code: String
        package var message: String
        package var hint: String

        package init(code: String, message: String, hint: String) {
            self.code = code
            self.message = message
            self.hint = hint
        }
    }

    package var formatVersion = CheckReport.formatVersion
    package var kind = "check"
    package var checkId: String
    package var migration: String
    package var mode: Mode
    /// Whether a running link made it by itself.
    package var background = false
    /// The policies of equality in force, by name.
    package var policies: [String] = []
    /// What the rows of a sample were drawn by; of the check that drew them.
    package var sampleSeed: String?
    package var verdict: Verdict
    package var gate: Gate
    package var startedAt: String
    package var completedAt: String?
    package var source: String
    package var target: String
    /// Predicted duration of the fence check as things stand, in seconds.
    package var fenceSeconds: Double?
    /// Writes to the target by others than bridge, since the last full check began; nil where they are not watched.
    package var foreignWrites: Int64?
    package var soundness: [Obligation]
    package var progress: Progress
    package var validations: [Validation]
    package var tables: [Table]
    package var errors: [Failure]

    package init(
        checkId: String, migration: String, mode: Mode, verdict: Verdict, gate: Gate, startedAt: String,
        source: String, target: String
    ) {
        self.checkId = checkId
        self.migration = migration
        self.mode = mode
        self.verdict = verdict
        self.gate = gate
        self.startedAt = startedAt
        self.source = source
        self.target = target
        soundness = []
        progress = Progress()
        validations = []
        tables = []
        errors = []
    }
}
