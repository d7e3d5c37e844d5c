// swift-tools-version: 6.2
import PackageDescription

// A package of its own, so that building bridge does not build it. It holds the parts that it measures by links to their
// folders: what they declare is visible within one package only.
let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
]

let package = Package(
    name: "sqlite-apply",
    targets: [
        .systemLibrary(name: "CBridgeSystem"),
        .systemLibrary(name: "CSQLite", pkgConfig: "sqlite3", providers: [.apt(["libsqlite3-dev"])]),
        .target(name: "BridgeCore", dependencies: ["CBridgeSystem"], swiftSettings: strict),
        .target(name: "BridgeSQLite", dependencies: ["BridgeCore", "CSQLite"], swiftSettings: strict),
        .executableTarget(name: "sqlite-apply", dependencies: ["BridgeCore", "BridgeSQLite", "CSQLite"], swiftSettings: strict),
    ]
)
