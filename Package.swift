// swift-tools-version: 6.2
import PackageDescription

/// Every target is held to the same rules: Swift 6 language mode, warnings are errors.
let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]

let package = Package(
    name: "bridge",
    products: [.executable(name: "bridge", targets: ["bridge"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
    ],
    targets: [
        // C libraries, one module map each.
        .systemLibrary(name: "CBridgeSystem"),
        .systemLibrary(name: "CLZ4", pkgConfig: "liblz4", providers: [.apt(["liblz4-dev"])]),
        .systemLibrary(name: "CLibPQ", path: "connectors/postgresql/CLibPQ", pkgConfig: "libpq", providers: [.apt(["libpq-dev"])]),
        .systemLibrary(name: "CSQLite", path: "connectors/sqlite/CSQLite", pkgConfig: "sqlite3", providers: [.apt(["libsqlite3-dev"])]),

        // The parts, in dependency order.
        .target(name: "BridgeCore", dependencies: ["CBridgeSystem"], swiftSettings: strict),
        .target(
            name: "BridgeJournal",
            dependencies: ["BridgeCore", "CLZ4", .product(name: "SystemPackage", package: "swift-system")],
            swiftSettings: strict),
        .target(
            name: "BridgePostgreSQL",
            dependencies: ["BridgeCore", "CLibPQ"],
            path: "connectors/postgresql/Sources",
            swiftSettings: strict),
        .target(
            name: "BridgeSQLite",
            dependencies: ["BridgeCore", "CSQLite"],
            path: "connectors/sqlite/Sources",
            swiftSettings: strict),
        .target(
            name: "BridgeReplication",
            dependencies: ["BridgeCore", "BridgeJournal", .product(name: "Logging", package: "swift-log")],
            swiftSettings: strict),
        .target(
            name: "BridgeConsistency",
            dependencies: ["BridgeCore", "BridgeJournal", .product(name: "Logging", package: "swift-log")],
            swiftSettings: strict),
        .target(name: "BridgeCutover", dependencies: ["BridgeCore"], swiftSettings: strict),
        .target(
            name: "BridgeCommands",
            dependencies: [
                "BridgeCore", "BridgeJournal", "BridgeReplication", "BridgeConsistency", "BridgeCutover", "BridgePostgreSQL", "BridgeSQLite", "Yams",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: strict),
        .executableTarget(name: "bridge", dependencies: ["BridgeCommands"], swiftSettings: strict),

        // Tests.
        .target(
            name: "BridgeTestSupport", dependencies: ["BridgeCore"], path: "Tests/BridgeTestSupport",
            swiftSettings: strict),
        .target(
            name: "BridgeConformance",
            dependencies: [
                "BridgeCore", "BridgeJournal", "BridgeReplication", "BridgeTestSupport",
                .product(name: "Logging", package: "swift-log"),
            ], path: "Tests/BridgeConformance", swiftSettings: strict),
        .target(
            name: "BridgeTestEngines",
            dependencies: [
                "BridgeConformance", "BridgePostgreSQL", "BridgeSQLite", "BridgeTestSupport",
                .product(name: "GRDB", package: "GRDB.swift"),
            ], path: "Tests/BridgeTestEngines", swiftSettings: strict),
        .testTarget(name: "BridgeCoreTests", dependencies: ["BridgeCore", "BridgeTestSupport"], swiftSettings: strict),
        .testTarget(
            name: "BridgeJournalTests", dependencies: ["BridgeJournal", "BridgeTestSupport"], swiftSettings: strict),
        .testTarget(
            name: "BridgePostgreSQLTests", dependencies: ["BridgePostgreSQL", "BridgeTestSupport"],
            path: "connectors/postgresql/Tests", swiftSettings: strict),
        .testTarget(
            name: "BridgeSQLiteTests",
            dependencies: ["BridgeSQLite", "BridgeTestSupport", .product(name: "GRDB", package: "GRDB.swift")],
            path: "connectors/sqlite/Tests", swiftSettings: strict),
        .testTarget(
            name: "BridgeReplicationTests",
            dependencies: [
                "BridgeConformance", "BridgeReplication", "BridgeJournal", "BridgePostgreSQL", "BridgeSQLite",
                "BridgeTestEngines", "BridgeTestSupport", .product(name: "GRDB", package: "GRDB.swift"),
            ], swiftSettings: strict),
        .testTarget(
            name: "BridgeConsistencyTests",
            dependencies: [
                "BridgeConformance", "BridgeConsistency", "BridgeTestEngines", "BridgeReplication", "BridgePostgreSQL", "BridgeSQLite", "BridgeTestSupport",
                .product(name: "GRDB", package: "GRDB.swift"),
            ], swiftSettings: strict),
        .testTarget(
            name: "BridgeCutoverTests", dependencies: ["BridgeCutover", "BridgeTestSupport"], swiftSettings: strict),
        .testTarget(
            name: "BridgeCommandsTests",
            dependencies: ["BridgeCommands", "BridgeConformance", "BridgeCutover", "BridgeReplication", "BridgeTestEngines", "BridgeTestSupport"], swiftSettings: strict),
    ]
)
