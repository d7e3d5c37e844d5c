import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

/// Two databases with the same tables, and the checker's sessions on both.
struct ComparisonFixture {
    let cluster: PostgresCluster
    let sourceURL: String
    let targetURL: String
    let link: LinkDescription
    let source: any ComparisonSession
    let target: any ComparisonSession
    let sourceConnector: PostgresSource
    let targetConnector: PostgresTarget
    static let frontier = Position(commit: 4_711)

    init(
        _ schema: String, target targetSchema: String? = nil, tables: [String], rowFilter: String? = nil,
        cluster: PostgresCluster? = nil
    ) async throws {
        self.cluster = if let cluster { cluster } else { try PostgresCluster.shared }
        sourceURL = try await self.cluster.makeDatabase("compared")
        targetURL = try await self.cluster.makeDatabase("compared")
        try await self.cluster.psql(sourceURL, schema)
        try await self.cluster.psql(targetURL, targetSchema ?? schema)
        link = LinkDescription(
            migration: "m\(UInt32.random(in: .min ... .max))", direction: .forward,
            mappings: tables.map {
                let name = TableName(schema: "public", name: $0)
                return TableMapping(source: name, target: name, rowFilter: rowFilter)
            }, form: .native)
        sourceConnector = try PostgresSource(connectionString: sourceURL)
        targetConnector = PostgresTarget(connectionString: targetURL)
        _ = try await targetConnector.prepareLink(link)
        try await targetConnector.recordOrigin(link, CaptureOrigin(identity: ["system": "7"], position: Self.frontier))
        try await self.cluster.psql(targetURL, "UPDATE _bridge.link_table SET state = 'done'")
        try await targetConnector.finishCopy(link)
        source = try await sourceConnector.openComparison(link, role: .source)
        target = try await targetConnector.openComparison(link, role: .target)
    }

    /// Both sides' requests for a table.
    func requests(_ table: Int = 0) async throws -> (source: ComparisonRequest, target: ComparisonRequest) {
        let mapping = link.mappings[table]
        let layout = try await source.layout(of: mapping, columns: nil)
        let other = try await target.layout(of: mapping, columns: layout.columns)
        return (ComparisonRequest(layout: layout, rowFilter: mapping.rowFilter), ComparisonRequest(layout: other))
    }

    func end() async throws {
        await source.close()
        await target.close()
        try await targetConnector.removeLink(link)
        await targetConnector.close()
        await sourceConnector.close()
    }
}

/// Rows of a buffer as readable lines, sorted.
func lines(_ buffer: RecordBuffer) throws -> [String] {
    var reader = ByteReader(buffer.bytes)
    var lines: [String] = []
    while !reader.isAtEnd {
        _ = try reader.readInteger(UInt32.self)
        lines.append(try Stream.text(try RowImage(&reader)))
    }
    return lines.sorted()
}

/// All rows of a stream.
func drain(_ stream: any RowStream, limit: Int = 1 << 16) async throws -> [String] {
    let buffer = RecordBuffer()
    while try await stream.read(into: buffer, limit: limit) > 0 {}
    await stream.close()
    return try lines(buffer)
}

func key(_ cells: TestCell...) -> KeyImage {
    let buffer = RecordBuffer(capacity: 64)
    buffer.append(row: cells)
    return KeyImage(Array(buffer.bytes))
}

/// The digest with the sums of all buckets in one.
func total(_ digests: [RowDigest]) -> RowDigest {
    digests.reduce(into: RowDigest()) { sum, digest in
        sum.count &+= digest.count
        sum.sum &+= digest.sum
    }
}
