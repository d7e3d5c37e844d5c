package import BridgeConsistency
package import BridgeCore
import BridgeReplication
import Foundation

/// The reports of the last checks, one file each, in the data directory. Everything blocks: callers are on a thread of
/// their own.
package struct CheckHistory: Sendable {
    /// How many are kept.
    package static let limit = 100

    package struct Entry: Sendable {
        package let checkId: String
        package let path: String
        /// Nil for a file that cannot be read as a report.
        package let report: CheckReport?
    }

    private let directory: DataDirectory

    package init(_ directory: DataDirectory) { self.directory = directory }

    package func path(of checkId: String) -> String { "\(directory.checksDirectory)/\(checkId).json" }

    // MARK: - Reading

    /// All of them, newest first.
    /// - Throws: `inputOutput` if the folder is there and cannot be read.
    package func entries() throws(BridgeError) -> [Entry] { try identifiers().map(entry) }

    /// The newest one of a migration. One that cannot be read counts: it may have said anything.
    package func newest(of migration: String) throws(BridgeError) -> Entry? {
        for identifier in try identifiers() {
            let entry = entry(identifier)
            if entry.report.map({ $0.migration == migration }) ?? true { return entry }
        }
        return nil
    }

    /// The newest report from which a gate for some tables can be judged: one of all of them, that is no sample; or a newer
    /// one that found a difference in any of them, whatever it looked at.
    /// - Parameters:
    ///   - source: as reports name the database that was compared to.
    ///   - tables: as that database names them.
    package func newest(of migration: String, source: String, tables: [String]) throws(BridgeError) -> CheckReport? {
        for identifier in try identifiers() {
            // One that cannot be read may have said anything.
            guard let report = entry(identifier).report else { return nil }
            guard report.migration == migration, report.source == source else { continue }
            let looked = Set(report.tables.map(\.source))
            let differing = Set(report.tables.filter { $0.status == .inconsistent }.map(\.source))
            if !differing.isDisjoint(with: tables) || report.mode != .sample && looked.isSuperset(of: tables) { return report }
        }
        return nil
    }

    private func entry(_ identifier: String) -> Entry {
        let path = path(of: identifier)
        let report = FileManager.default.contents(atPath: path).flatMap { CheckReport.read($0) }
        return Entry(checkId: identifier, path: path, report: report?.checkId == identifier ? report : nil)
    }

    /// Newest first.
    private func identifiers() throws(BridgeError) -> [String] {
        try names().compactMap { name in
            guard name.hasSuffix(".json") else { return nil }
            let identifier = String(name.dropLast(".json".count))
            return CheckIdentifier.isValid(identifier) ? identifier : nil
        }.sorted(by: >)
    }

    private func names() throws(BridgeError) -> [String] {
        let path = directory.checksDirectory
        guard FileManager.default.fileExists(atPath: path) else { return [] }
        do { return try FileManager.default.contentsOfDirectory(atPath: path) } catch {
            throw BridgeError(.inputOutput, "the history of checks cannot be read", context: [.init(.file, path)])
        }
    }

    // MARK: - Writing

    /// Adds a report, so that it is there whole after a crash, or not at all, and removes the oldest beyond ``limit``.
    /// - Throws: `inputOutput`, `diskFull`.
    package func add(_ report: CheckReport) throws(BridgeError) {
        guard CheckIdentifier.isValid(report.checkId) else {
            throw BridgeError(.internalFault, "a check has a name that cannot be one of a file")
        }
        try makeFolder(directory.checksDirectory)
        try WholeFile(path: path(of: report.checkId), what: "a check's report", permissions: 0o600).write(report.json.pretty + "\n")
        if report.background { removeBackground(before: report) }
        try prune()
    }

    /// Of the reports that a running link makes by itself only the newest one and those that found something stay, so that they leave the places to
    /// those that somebody asked for.
    private func removeBackground(before report: CheckReport) {
        guard let all = try? identifiers() else { return }
        for identifier in all where identifier < report.checkId {
            guard let old = entry(identifier).report, old.background, old.migration == report.migration, old.verdict == .consistent
            else { continue }
            unlink(path(of: identifier))
        }
    }

    private func makeFolder(_ folder: String) throws(BridgeError) {
        // Keys of rows are in it: its owner's alone, as the data directory.
        if mkdir(folder, 0o700) == 0 { return try synchronize(directory.path) }
        guard errno == EEXIST else { throw Self.failure("the folder for reports cannot be made", folder) }
    }

    private func synchronize(_ folder: String) throws(BridgeError) {
        let descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw Self.failure("a folder cannot be opened", folder) }
        defer { close(descriptor) }
        guard fsync(descriptor) == 0 else { throw Self.failure("a folder cannot be made durable", folder) }
    }

    private func prune() throws(BridgeError) {
        for identifier in try identifiers().dropFirst(Self.limit) { unlink(path(of: identifier)) }
        // What a crash left; a file that is being written is younger.
        for name in try names() where name.hasSuffix(".tmp") {
            var status = stat()
            let path = "\(directory.checksDirectory)/\(name)"
            if stat(path, &status) == 0, time(nil) - status.st_mtim.tv_sec > 3600 { unlink(path) }
        }
    }

    private static func failure(_ message: String, _ path: String) -> BridgeError {
        BridgeError(
            errno == ENOSPC || errno == EDQUOT ? .diskFull : .inputOutput, message,
            context: [.init(.file, path), .init(.detail, String(cString: strerror(errno)))])
    }
}

extension CheckHistory {
    /// The object that `check --history --json` prints.
    package static func json(_ entries: [Entry]) -> JSONValue {
        [
            "format_version": 1,
            "checks": .array(
                entries.map { entry in
                    let report = entry.report
                    return [
                        "check_id": .string(entry.checkId),
                        "readable": .bool(report != nil),
                        "migration": JSONValue(report?.migration),
                        "mode": JSONValue(report?.mode.rawValue),
                        "background": JSONValue(report?.background),
                        "verdict": JSONValue(report?.verdict.rawValue),
                        "gate_open": JSONValue(report?.gate.isOpen),
                        "started_at": JSONValue(report?.startedAt),
                        "completed_at": JSONValue(report?.completedAt),
                        "rows_compared": JSONValue(report?.total(\.rowsCompared)),
                        "rows_different": JSONValue(report?.rowsDifferent),
                        "file": .string(entry.path),
                    ]
                }),
        ]
    }

    package static func lines(_ entries: [Entry], _ style: Style) -> [String] {
        guard !entries.isEmpty else { return ["no check was made yet"] }
        var table = Table([
            ("check", .left), ("mode", .left), ("verdict", .left), ("gate", .left), ("rows", .right),
            ("different", .right), ("completed", .left),
        ])
        for entry in entries {
            guard let report = entry.report else {
                table.append([entry.checkId, "–", "broken file", "–", "–", "–", "–"])
                continue
            }
            table.append([
                entry.checkId, report.mode.rawValue + (report.background ? ", by the run" : ""), report.verdict.rawValue, report.gate.isOpen ? "open" : "shut",
                Numbers.grouped(report.total(\.rowsCompared)), Numbers.grouped(report.rowsDifferent),
                report.completedAt.map(Printable.text) ?? "–",
            ])
        }
        return table.lines(style: style)
    }
}

extension CheckReport {
    /// A figure over all tables.
    func total(_ figure: any KeyPath<Table, Int64> & Sendable) -> Int64 {
        tables.reduce(0) { sum, table in
            let (result, isTooLarge) = sum.addingReportingOverflow(table[keyPath: figure])
            return isTooLarge ? .max : result
        }
    }

    /// Rows that are not the same on both sides.
    var rowsDifferent: Int64 {
        [total(\.mismatched), total(\.sourceOnly), total(\.targetOnly)].reduce(0) { sum, count in
            let (result, isTooLarge) = sum.addingReportingOverflow(count)
            return isTooLarge ? .max : result
        }
    }
}
