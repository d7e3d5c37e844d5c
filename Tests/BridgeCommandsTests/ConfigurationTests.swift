import BridgeConsistency
import BridgeCore
import Testing

@testable import BridgeCommands

/// Reads a configuration as if it stood in `/etc/shop/bridge.yaml`, with nothing in the environment but `environment`.
func parse(
    _ text: String, environment: [String: String] = [:], overrides: ConfigurationOverrides = .init()
) throws(BridgeError) -> Configuration {
    try ConfigurationLoader(environment: environment, workingDirectory: "/home/me")
        .parse(text, path: "/etc/shop/bridge.yaml", overrides)
}

/// The error that `body` throws; nil if it throws none.
func failure(_ body: () throws(BridgeError) -> Void) -> BridgeError? {
    do throws(BridgeError) {
        try body()
        return nil
    } catch { return error }
}

private let minimal = """
    migration: shop-users
    source: postgresql://app@old-db:5432/shop
    target: sqlite:new.db
    services:
      app:
        tables: [users]

    """

@Suite("Configuration")
struct ConfigurationTests {
    @Test("the smallest file has the documented defaults")
    func defaults() throws {
        let configuration = try parse(minimal)
        #expect(configuration.migration == "shop-users")
        #expect(configuration.source.connection == "postgresql://app@old-db:5432/shop")
        #expect(configuration.target.connection == "/etc/shop/new.db")
        #expect(configuration.dataDirectory == "/etc/shop/bridge-data")
        #expect(configuration.replication.batchBytes == 8_000_000)
        #expect(configuration.replication.copyJobs == 2)
        #expect(configuration.replication.copyPartBytes == 128 << 20 && configuration.replication.copyIndexes == .after)
        #expect(configuration.replication.journalBudget == 20_000_000_000)
        #expect(configuration.replication.slotRetainedLimit == 50_000_000_000)
        #expect(configuration.replication.atSlotLimit == .drop)
        #expect(configuration.replication.journalKeep == .seconds(86_400))
        #expect(configuration.replication.onConflict == .stop)
        #expect(configuration.check.maxAge == .seconds(900))
        #expect(configuration.cutover.maxLag == .seconds(2))
        #expect(configuration.cutover.oldTables == .leave)
        #expect(ConfigurationRenderer(configuration: configuration).yaml.contains("  old_tables: leave  # default"))
        #expect(configuration.link().form == .canonical)
        #expect(
            configuration.link().mappings == [
                TableMapping(source: TableName(name: "users"), target: TableName(name: "users"))
            ])
    }

    @Test("the file of the contract is understood whole")
    func contractExample() throws {
        let configuration = try parse(
            """
            migration: shop-users
            source: postgresql://app@old-db:5432/shop
            target: postgresql://app@new-db:5432/users      # or sqlite:file.db
            data_dir: ./bridge-data
            services:
              user_service:
                tables:
                  - users
                  - from: public.profiles
                    to: accounts.user_profiles
                    columns: [id, user_id, bio]
                    where: "tenant_id = 7"
            replication: { batch_bytes: 8MB, copy_jobs: 2, apply_jobs: 1, journal_budget: 20GB, journal_keep: 24h, on_conflict: stop, slot_retained_limit: 80GB, at_slot_limit: hold }
            check: { max_age: 15m, throttle: 0.9, equal: [numeric_scale, negative_zero], memory: 64MB }
            cutover: { max_lag: 2s, max_pause: 2s, window: "Sunday 02:00-06:00 UTC", old_tables: rename }
            """)
        #expect(configuration.link().form == .native)
        #expect(
            configuration.mappings[1]
                == TableMapping(
                    source: TableName(schema: "public", name: "profiles"),
                    target: TableName(schema: "accounts", name: "user_profiles"), columns: ["id", "user_id", "bio"],
                    rowFilter: "tenant_id = 7"))
        #expect(configuration.check.equal == [.numericScale, .negativeZero])
        #expect(configuration.check.memory == 64_000_000)
        let shown = ConfigurationRenderer(configuration: configuration).yaml.joined(separator: "\n")
        #expect(shown.contains(#"equal: ["negative_zero","numeric_scale"]"#), "\(shown)")
        #expect(configuration.replication.slotRetainedLimit == 80_000_000_000)
        #expect(shown.contains("slot_retained_limit: 80GB") && shown.contains("at_slot_limit: hold"), "\(shown)")
        #expect(configuration.cutover.oldTables == .rename)
        #expect(shown.contains("old_tables: rename"))
        #expect(configuration.cutover.window?.weekdays == [0])
        #expect(configuration.cutover.window?.startMinute == 120)
        #expect(configuration.cutover.window?.endMinute == 360)
        #expect(configuration.origin(of: "replication.batch_bytes") == .file)
    }

    /// What replaces a part of the smallest file, and what must come of it.
    struct Refusal: CustomTestStringConvertible, Sendable {
        var remove = ""
        var add = ""
        var code = ErrorCode.configurationInvalid
        var message: String
        var hint = ""
        var testDescription: String { message }
    }

    @Test(
        "every mistake is refused with its place and what to do",
        arguments: [
            Refusal(
                add: "replicaton: {}", code: .configurationUnknownKey, message: "unknown key 'replicaton'",
                hint: "'replication'"),
            Refusal(
                add: "replication: { batch_byte: 8MB }", code: .configurationUnknownKey,
                message: "unknown key 'batch_byte' in replication", hint: "'batch_bytes'"),
            Refusal(
                add: "zzzzzzzzzz: 1", code: .configurationUnknownKey, message: "unknown key 'zzzzzzzzzz'",
                hint: "known here: migration"),
            Refusal(remove: "migration: shop-users", message: "'migration' is missing", hint: "migration: shop-users"),
            Refusal(
                remove: "source: postgresql://app@old-db:5432/shop", message: "'source' is missing",
                hint: "BRIDGE_SOURCE"),
            Refusal(remove: "target: sqlite:new.db", message: "'target' is missing", hint: "BRIDGE_TARGET"),
            Refusal(remove: "shop-users", add: "check: {}", message: "migration must be a text that is not empty"),
            Refusal(remove: "shop-users", add: "", message: "migration must be"),
            Refusal(
                add: "replication: { batch_bytes: 8 }", message: "replication.batch_bytes needs a unit", hint: "8MB"),
            Refusal(
                add: "replication: { batch_bytes: 8parsecs }",
                message: "replication.batch_bytes has the unknown unit 'parsecs'", hint: "KiB"),
            Refusal(add: "replication: { batch_bytes: 1kB }", message: "replication.batch_bytes must be from 64KiB"),
            Refusal(
                add: "replication: { batch_bytes: many }",
                message: "replication.batch_bytes is not a number with a unit"),
            Refusal(
                add: "replication: { journal_keep: 24 }", message: "replication.journal_keep needs a unit", hint: "15m"),
            Refusal(
                add: "replication: { journal_keep: 24hours }",
                message: "replication.journal_keep has the unknown unit 'hours'"),
            Refusal(
                add: "replication: { journal_budget: 99999999TB }", message: "replication.journal_budget is too large"),
            Refusal(
                add: "replication: { journal_budget: 1MB }", message: "replication.journal_budget must be at least"),
            Refusal(
                add: "replication: { slot_retained_limit: 1MB }", message: "replication.slot_retained_limit must be at least"),
            Refusal(
                add: "replication: { slot_retain_limit: 1GB }", code: .configurationUnknownKey,
                message: "unknown key 'slot_retain_limit' in replication", hint: "slot_retained_limit"),
            Refusal(
                add: "replication: { at_slot_limit: holt }", message: "replication.at_slot_limit must be one of drop, hold",
                hint: "write at_slot_limit: hold"),
            Refusal(
                add: "replication: { copy_jobs: 0 }", message: "replication.copy_jobs must be a whole number from 1"),
            Refusal(
                add: "replication: { copy_jobs: 99999999999999999999 }",
                message: "replication.copy_jobs must be a whole number"),
            Refusal(
                add: "replication: { copy_part_bytes: 1kB }", message: "replication.copy_part_bytes must be at least 64KiB"),
            Refusal(
                add: "replication: { copy_indexes: aftr }", message: "replication.copy_indexes must be one of",
                hint: "copy_indexes: after"),
            Refusal(
                add: "replication: { on_conflict: skipp }", message: "replication.on_conflict must be one of",
                hint: "on_conflict: skip"),
            Refusal(add: "replication: [1]", message: "replication must hold keys and values"),
            Refusal(add: "check: { throttle: 90 }", message: "check.throttle must be a number above 0 and at most 1"),
            Refusal(
                add: "check: { equal: [negative_zero, numeric_scales] }",
                message: "check.equal[1] must be one of negative_zero, numeric_scale, json_spacing, character_padding"),
            Refusal(add: "check: { equal: numeric_scale }", message: "check.equal must be a list"),
            Refusal(add: "check: { memory: 1MB }", message: "check.memory must be at least 16MB"),
            Refusal(add: "check: { max_age: 15 }", message: "check.max_age needs a unit"),
            Refusal(
                add: "cutover: { old_tables: drop }", message: "cutover.old_tables must be one of leave, rename"),
            Refusal(
                add: "cutover: { old_tables: renam }", message: "cutover.old_tables must be one of", hint: "old_tables: rename"),
            Refusal(add: "cutover: { max_lag: 0s }", message: "cutover.max_lag must be longer than nothing"),
            Refusal(
                add: "cutover: { window: \"Someday 02:00-06:00 UTC\" }",
                message: "cutover.window has the unknown day 'Someday'", hint: "Sunday 02:00-06:00 UTC"),
            Refusal(add: "cutover: { window: \"Sunday 02:00-26:00 UTC\" }", message: "cutover.window has a time"),
            Refusal(
                add: "cutover: { window: \"Sunday 02:00-06:00 Moon\" }",
                message: "cutover.window has the unknown zone 'Moon'"),
            Refusal(
                add: "cutover: { window: \"02:00-06:00\" }", message: "cutover.window is not a day, a time and a zone"),
            Refusal(remove: "sqlite:new.db", add: "", message: "target must be a text that is not empty"),
            Refusal(remove: "sqlite:new.db", add: "check: {}", message: "target must be a text"),
            Refusal(remove: "[users]", add: "", message: "services.app.tables must be a list"),
            Refusal(
                add: "source: sqlite:b.db", message: "the file cannot be read: the key 'source' stands there twice"),
            Refusal(add: "check: { max_age: [ }", message: "the file cannot be read"),
        ])
    func mistakes(_ refusal: Refusal) {
        let text = (refusal.remove.isEmpty ? minimal : minimal.replacing(refusal.remove, with: "")) + refusal.add
        let error = failure { () throws(BridgeError) in _ = try parse(text) }
        #expect(error?.code == refusal.code)
        #expect(error?.exitStatus == .configuration)
        #expect(error?.message.hasPrefix(refusal.message) == true, "\(error?.message ?? "no error")")
        #expect(error?.hint.contains(refusal.hint) == true || refusal.hint.isEmpty, "\(error?.hint ?? "")")
        #expect(error?.context.contains { $0.key == .file && $0.value.hasPrefix("bridge.yaml") } == true)
    }

    @Test("an unknown key is named with its line")
    func line() {
        let error = failure { () throws(BridgeError) in _ = try parse(minimal + "replication:\n  copy_jbos: 2\n") }
        #expect(error?.context.contains(.init(.file, "bridge.yaml:8")) == true)
    }

    @Test(
        "tables that cannot be what they say are refused",
        arguments: [
            ("tables: [users, users]", "names table users again"),
            (
                "tables: [users]\n  other:\n    tables: [users]",
                "names table users again, which service app has already"
            ),
            ("tables: [{from: a, to: t}, {from: b, to: t}]", "would write target table t, which a writes already"),
            (
                "tables: [{from: a, to: t, columns: [id, x]}, {from: b, to: t, columns: [x, y]}]",
                "would write column x of target table t"
            ),
            ("tables: [a.users, b.users]", "would write target table users, which a.users writes already"),
            ("tables: [{from: a, columns: [id, id]}]", "names column id twice"),
            ("tables: [{from: a, columns: []}]", "lists no column"),
            ("tables: [{to: a}]", "has no 'from'"),
            ("tables: [{from: a, form: b}]", "unknown key 'form'"),
            ("tables: [{from: a, to: accounts.a}]", "names a schema, which the target's engine does not have"),
            ("tables: [a.b.c]", "is not a table's name"),
            ("tables: ['']", "must be a text that is not empty"),
            ("tables: []", "lists no table"),
            ("table: [users]", "unknown key 'table'"),
        ])
    func tables(_ text: String, _ message: String) {
        let error = failure { () throws(BridgeError) in
            _ = try parse(minimal.replacing("tables: [users]", with: text))
        }
        #expect(error?.message.contains(message) == true, "\(error?.message ?? "no error")")
        #expect(error?.exitStatus == .configuration)
    }

    @Test(
        "a migration's name is checked, and a right one is offered",
        arguments: [
            ("Shop", "shop"), ("shop_users", "shop-users"), ("-shop", "shop"), ("9lives", "lives"), ("größe", "gr-e"),
            (String(repeating: "a", count: 41), String(repeating: "a", count: 40)),
        ])
    func migrationName(_ name: String, _ offer: String) {
        let error = failure { () throws(BridgeError) in
            _ = try parse(minimal.replacing("shop-users", with: name))
        }
        #expect(error?.code == .configurationInvalid)
        #expect(error?.hint == "write, for example, migration: \(offer)")
        #expect(MigrationName.isValid(offer))
    }

    @Test(
        "names are exact, and parts with dots are quoted",
        arguments: [
            ("users", nil, "users"), ("public.Users", "public", "Users"), ("\"odd.name\"", nil, "odd.name"),
            ("a.\"b\"\"c\"", "a", "b\"c"),
        ] as [(String, String?, String)])
    func names(_ text: String, _ schema: String?, _ name: String) {
        let read = TableName(written: text)
        #expect(read == TableName(schema: schema, name: name))
        #expect(read?.written == text)
    }

    @Test("what is not a name is none", arguments: ["", ".", "a.", ".a", "a.b.c", "\"a", "a\"b\"", "\"a\"b", "\"\""])
    func notNames(_ text: String) { #expect(TableName(written: text) == nil) }
}

@Suite("Precedence and substitution")
struct PrecedenceTests {
    @Test("flag goes before environment, environment before file, file before default")
    func order() throws {
        let withFile = minimal + "data_dir: from-file\n"
        #expect(try parse(minimal).dataDirectory == "/etc/shop/bridge-data")
        #expect(try parse(minimal).origin(of: "data_dir") == .default)
        #expect(try parse(withFile).dataDirectory == "/etc/shop/from-file")
        #expect(try parse(withFile).origin(of: "data_dir") == .file)
        let environment = ["BRIDGE_DATA_DIR": "from-environment"]
        #expect(try parse(withFile, environment: environment).dataDirectory == "/home/me/from-environment")
        #expect(try parse(withFile, environment: environment).origin(of: "data_dir") == .environment)
        let flag = ConfigurationOverrides(dataDirectory: "from-flag")
        #expect(try parse(withFile, environment: environment, overrides: flag).dataDirectory == "/home/me/from-flag")
        #expect(try parse(withFile, environment: environment, overrides: flag).origin(of: "data_dir") == .flag)
    }

    @Test("the environment's databases stand above the file's, which then is not even read")
    func databases() throws {
        let broken = minimal.replacing("sqlite:new.db", with: "sqlite:${NOT_SET}")
        let environment = ["BRIDGE_TARGET": "sqlite:other.db", "BRIDGE_SOURCE": "sqlite:/srv/old.db"]
        let configuration = try parse(broken, environment: environment)
        #expect(configuration.target.connection == "/home/me/other.db")
        #expect(configuration.source.connection == "/srv/old.db")
        #expect(configuration.origin(of: "source") == .environment)
        #expect(configuration.link().form == .native)
    }

    @Test("an empty variable is as good as none")
    func emptyVariable() throws {
        #expect(try parse(minimal, environment: ["BRIDGE_TARGET": ""]).target.connection == "/etc/shop/new.db")
    }

    @Test("a bad address in the environment names the variable")
    func badVariable() {
        let error = failure { () throws(BridgeError) in
            _ = try parse(minimal, environment: ["BRIDGE_SOURCE": "mysql://x:secret@y/z"])
        }
        #expect(error?.message.hasPrefix("BRIDGE_SOURCE: ") == true)
        #expect("\(error.map { "\($0)\($0.hint)" } ?? "")".contains("secret") == false)
    }

    @Test("the file is found through flag, environment and default")
    func path() {
        var loader = ConfigurationLoader(environment: [:], workingDirectory: "/home/me")
        #expect(loader.path(.init()) == "/home/me/bridge.yaml")
        loader.environment = ["BRIDGE_CONFIG": "sub/../other.yaml"]
        #expect(loader.path(.init()) == "/home/me/other.yaml")
        #expect(loader.path(.init(file: "/a/b.yaml")) == "/a/b.yaml")
    }

    @Test("${NAME} is replaced, and encoded where it stands in a URL's user information")
    func substitution() throws {
        let text = minimal.replacing("app@old-db", with: "app:${PASSWORD}@${HOST}")
        let configuration = try parse(text, environment: ["PASSWORD": "a:b/c@d%", "HOST": "old-db"])
        #expect(configuration.source.connection == "postgresql://app:a%3Ab%2Fc%40d%25@old-db:5432/shop")
        #expect(configuration.source.masked == "postgresql://app:***@old-db:5432/shop")
    }

    @Test("a value is never read as YAML, and $${ stands for itself")
    func literalValues() throws {
        let text = minimal.replacing("[users]", with: "[{from: a, where: \"x = '${V}' AND y = '$${V}'\"}]")
        let configuration = try parse(text, environment: ["V": "a: [b] # ${V}"])
        #expect(configuration.mappings[0].rowFilter == "x = 'a: [b] # ${V}' AND y = '${V}'")
    }

    @Test("a variable that is not set is an error that names it")
    func missingVariable() {
        let error = failure { () throws(BridgeError) in
            _ = try parse(minimal.replacing("app@old-db", with: "app:${SHOP_PASSWORD}@old-db"))
        }
        #expect(error?.message == "source needs the environment variable SHOP_PASSWORD, which is not set")
        #expect(error?.hint.hasPrefix("export SHOP_PASSWORD=") == true)
        #expect(error?.exitStatus == .configuration)
    }

    @Test("source and target may not be one database")
    func sameDatabase() {
        let error = failure { () throws(BridgeError) in
            _ = try parse(minimal.replacing("postgresql://app@old-db:5432/shop", with: "sqlite:./new.db"))
        }
        #expect(error?.message == "'source' and 'target' are the same database")
    }
}

@Suite("Secrets")
struct MaskingTests {
    @Test(
        "passwords are masked wherever a URL can hold one",
        arguments: [
            ("postgresql://app:secret@h:5432/d", "postgresql://app:***@h:5432/d"),
            (
                "postgresql://app@h/d?password=secret&sslmode=require",
                "postgresql://app@h/d?password=***&sslmode=require"
            ),
            ("postgresql://app@h/d?sslpassword=secret", "postgresql://app@h/d?sslpassword=***"),
            ("postgresql://app@h/d?PassWord=secret", "postgresql://app@h/d?PassWord=***"),
            ("postgresql://app:se@cret@h/d", "postgresql://app:***@h/d"),
            ("postgresql://app:sec/ret@h/d", "postgresql://app:***@h/d"),
            ("postgresql://app:sec?ret@h/d", "postgresql://app:***@h/d"),
            ("postgresql://app@h/d", "postgresql://app@h/d"),
            ("postgresql://h:5432/d", "postgresql://h:5432/d"),
            ("postgresql:///d?host=/run/x", "postgresql:///d?host=/run/x"),
            ("postgresql://app@h/d?application_name=a@b", "postgresql://app@h/d?application_name=a@b"),
        ])
    func masks(_ url: String, _ masked: String) {
        #expect(ConnectionURL.masked(url) == masked)
        #expect(ConnectionURL.holdsSecret(url) == (url != masked))
    }

    @Test("bridge config shows no secret, as text and as JSON")
    func rendered() throws {
        let text = minimal.replacing("app@old-db", with: "app:hunter2@old-db")
        let renderer = ConfigurationRenderer(configuration: try parse(text))
        #expect(renderer.yaml.joined(separator: "\n").contains("hunter2") == false)
        #expect(renderer.json.pretty.contains("hunter2") == false)
        #expect(renderer.yaml.contains("source: postgresql://app:***@old-db:5432/shop"))
    }

    @Test("bridge config's text can be read back and means the same")
    func roundTrip() throws {
        let text =
            minimal.replacing(
                "[users]",
                with: "[{from: \"odd table\", to: 'yes', columns: [id, \"a b\"], where: \"x = 'y: z' # no\"}]")
            + "cutover: { window: \"daily 23:00-01:30 +02:00\" }\n"
        let configuration = try parse(text)
        let again = try parse(ConfigurationRenderer(configuration: configuration).yaml.joined(separator: "\n"))
        #expect(again.services == configuration.services)
        #expect(again.replication == configuration.replication)
        #expect(again.cutover.window == configuration.cutover.window)
        #expect(again.dataDirectory == configuration.dataDirectory)
        #expect(again.source == configuration.source)
    }
}

@Suite("Quantities")
struct QuantityTests {
    @Test(
        "durations",
        arguments: [
            ("500ms", .milliseconds(500)), ("2s", .seconds(2)), ("1.5s", .milliseconds(1500)), ("15m", .seconds(900)),
            ("24h", .seconds(86_400)), ("7d", .seconds(604_800)), ("2 s", .seconds(2)),
        ] as [(String, Duration)])
    func durations(_ text: String, _ duration: Duration) throws {
        #expect(try Quantity.duration(text) == duration)
        #expect(try Quantity.duration(Quantity.text(duration)) == duration)
    }

    @Test(
        "sizes",
        arguments: [
            ("1B", 1), ("8MB", 8_000_000), ("8mb", 8_000_000), ("512KiB", 524_288), ("20GB", 20_000_000_000),
            ("1.5kB", 1500), ("2TiB", 2 << 40), ("1536KiB", 1_572_864),
        ] as [(String, Int64)])
    func sizes(_ text: String, _ bytes: Int64) throws {
        #expect(try Quantity.bytes(text) == bytes)
        #expect(try Quantity.bytes(Quantity.text(bytes: bytes)) == bytes)
    }

    @Test(
        "what has no unit, or none that is known, is refused",
        arguments: ["", "8", "MB", "-1s", "1e3s", "1..2s", "∞s", "1 fortnight", "0x10s"])
    func refused(_ text: String) {
        #expect(throws: Quantity.Malformed.self) { try Quantity.duration(text) }
        #expect(throws: Quantity.Malformed.self) { try Quantity.bytes(text) }
    }

    @Test(
        "windows",
        arguments: [
            ("Sunday 02:00-06:00 UTC", [0], 120, 360), ("sat,SUN 22:00-02:00 Europe/Berlin", [6, 0], 1320, 120),
            ("daily 00:00-24:00 -05:30", [], 0, 1440),
        ] as [(String, [Int], Int, Int)])
    func windows(_ text: String, _ days: [Int], _ start: Int, _ end: Int) throws {
        let window = try CutoverWindow(text)
        #expect(window.weekdays == days)
        #expect(window.startMinute == start)
        #expect(window.endMinute == end)
    }
}
