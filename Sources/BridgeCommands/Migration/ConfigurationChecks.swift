import BridgeCore
import Foundation

/// What can be wrong with a configuration that is right by itself, once the tables are known.
enum ConfigurationChecks {
    static func findings(_ configuration: Configuration, sources: [TableSchema]) -> [Finding] {
        var findings = columns(configuration, sources: sources)
        if configuration.replication.applyJobs > 1 {
            findings.append(
                Finding(
                    .warning, .configurationInvalid,
                    what: "replication.apply_jobs is \(configuration.replication.applyJobs)",
                    why: "this version applies changes over one connection", mend: ["write apply_jobs: 1"]))
        }
        if let finding = dataDirectory(configuration.dataDirectory) { findings.append(finding) }
        if let finding = room(configuration.dataDirectory, journal: configuration.replication.journalBudget) {
            findings.append(finding)
        }
        return findings
    }

    private static func columns(_ configuration: Configuration, sources: [TableSchema]) -> [Finding] {
        var findings: [Finding] = []
        for (mapping, schema) in zip(configuration.mappings, sources) {
            guard let columns = mapping.columns else { continue }
            for name in columns where schema.column(named: name) == nil {
                let nearest = nearestName(to: name, in: schema.columns.map(\.name))
                findings.append(
                    Finding(
                        .blocking, .configurationInvalid, what: "the source table has no column '\(name)'",
                        why: "'columns' may list only columns that exist",
                        mend: [nearest.map { "write '\($0)' in 'columns'" } ?? "remove it from 'columns'"],
                        table: schema.name))
            }
            for name in schema.identity where !columns.contains(name) {
                findings.append(
                    Finding(
                        .blocking, .configurationInvalid, what: "'columns' leaves out the key column '\(name)'",
                        why: "without the whole key a change cannot find its row",
                        mend: ["add '\(name)' to 'columns'"], table: schema.name))
            }
        }
        return findings
    }

    /// Whether the disk has room for what the journal may take, and running transactions half as much. What the databases'
    /// own disks hold, no session can tell.
    private static func room(_ path: String, journal: Int64) -> Finding? {
        let (sum, isBeyond) = journal.addingReportingOverflow(journal / 2)
        let budget = isBeyond ? .max : sum
        let folder = nearestFolder(path)
        guard let facts = try? FileManager.default.attributesOfFileSystem(forPath: folder),
            let free = (facts[.systemFreeSize] as? NSNumber)?.int64Value, free < budget,
            // What is no disk has no size.
            let size = (facts[.systemSize] as? NSNumber)?.int64Value, size > 0
        else { return nil }
        let gigabytes = { (bytes: Int64) in String(format: "%.1f GB", Double(bytes) / 1e9) }
        return Finding(
            .warning, .diskFull, what: "the disk of data_dir has \(gigabytes(free)) free, and journal and running transactions may take \(gigabytes(budget))",
            why: "a run that fills the disk stops, while the source keeps its log for it",
            mend: ["make room, or write a smaller replication.journal_budget: capture then waits for the applier in time"])
    }

    private static func nearestFolder(_ path: String) -> String {
        var folder = path
        while !FileManager.default.fileExists(atPath: folder), folder != "/" {
            folder = (folder as NSString).deletingLastPathComponent
        }
        return folder
    }

    /// Whether the data directory, or the nearest folder above it that exists, can be written.
    private static func dataDirectory(_ path: String) -> Finding? {
        let folder = nearestFolder(path)
        guard !FileManager.default.isWritableFile(atPath: folder) else { return nil }
        return Finding(
            .blocking, .inputOutput, what: "data_dir cannot be written: \(folder)",
            why: "the journal is kept there", mend: ["make the folder writable, or set data_dir to one that is"])
    }
}
