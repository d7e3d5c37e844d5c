import BridgeCore
import BridgeTestSupport
import Testing

@testable import BridgePostgreSQL

@Suite struct ConnectionTests {
    private func error(_ uri: String) async throws -> BridgeError {
        try await failure { try await (try PostgresSource(connectionString: uri)).connect() }
    }

    @Test("each way in which a connection can fail has its code, and no password is shown")
    func failures() async throws {
        let cluster = try PostgresCluster.shared
        let database = try await cluster.makeDatabase("connect")
        try await cluster.psql(
            database, "CREATE ROLE guarded_connection LOGIN PASSWORD 'right-secret' IN ROLE password_required; CREATE ROLE nologin_role")
        let name = String(database.split(separator: "?")[0].split(separator: "/").last ?? "")
        let cases: [(String, ErrorCode)] = [
            (cluster.uri(name, user: "guarded_connection", password: "wrong-secret"), .authenticationFailed),
            (cluster.uri(name, user: "guarded_connection"), .authenticationFailed),
            (cluster.uri(name, user: "nobody_of_that_name"), .authenticationFailed),
            (cluster.uri(name, user: "nologin_role"), .authenticationFailed),
            (cluster.uri("no_such_database"), .configurationInvalid),
            ("postgresql://postgres:secret-word@/x?host=/tmp/bridge-nowhere", .serverUnreachable),
            ("postgresql://postgres:secret-word@127.0.0.1:1/x", .serverUnreachable),
            // The socket takes no TLS.
            ("postgresql://postgres:secret-word@127.0.0.1:1/x?sslmode=verify-full&sslrootcert=/nowhere", .serverUnreachable),
        ]
        for (uri, code) in cases {
            let error = try await error(uri)
            #expect(error.code == code, "\(error)")
            #expect(!"\(error) \(error.hint)".contains("secret"))
            #expect(error.context.contains { $0.key == .server })
        }
        try await (try PostgresSource(connectionString: cluster.uri(name, user: "guarded_connection", password: "right-secret"))).connect()
        #expect((try await error(cases[0].0)).sqlState == "28P01")
    }

    @Test("a connection string that cannot be read is refused without being quoted")
    func malformedString() async throws {
        for text in ["postgresql://u:secret%zz@h/d", "host=h secret", "postgresql://[::1/secret", "nonsense"] {
            let error = try await failure { try PostgresSource(connectionString: text) }
            #expect(error.code == .configurationInvalid && !"\(error) \(error.hint)".contains("secret"))
        }
        let source = try PostgresSource(connectionString: "postgresql://u:secret@db.example:5433/shop?connect_timeout=3")
        #expect(source.displayName == "db.example:5433/shop")
    }

    @Test("values of rows never reach an error")
    func errorsWithoutValues() async throws {
        let cluster = try PostgresCluster.shared
        let uri = try await cluster.makeDatabase("connect")
        try await cluster.psql(
            uri,
            """
            CREATE TABLE t(id int PRIMARY KEY, name text NOT NULL CHECK (name <> 'secret9'), r int REFERENCES t);
            INSERT INTO t VALUES (77, 'x');
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              RAISE EXCEPTION 'no % here', NEW.name USING ERRCODE = '42501'; END $$;
            CREATE TABLE guarded_connection(name text); CREATE TRIGGER g BEFORE INSERT ON guarded_connection FOR EACH ROW EXECUTE FUNCTION refuse();
            """)
        let cases: [(String, ErrorCode)] = [
            ("SELECT 'secret9'::int", .valueDoesNotFit),
            ("INSERT INTO public.t VALUES (77, 'secret9x')", .conflict),
            ("INSERT INTO public.t VALUES (78, 'secret9')", .changeRefused),
            ("INSERT INTO public.t VALUES (79, 'a', 999)", .changeRefused),
            ("INSERT INTO public.t(id) VALUES (79)", .changeRefused),
            ("INSERT INTO public.guarded_connection VALUES ('secret9')", .rightsMissing),
            ("SELECT * FROM public.missing", .tableMissing),
            ("SELECT missing FROM public.t", .schemaChanged),
            ("DO $$ BEGIN RAISE EXCEPTION 'secret9' USING ERRCODE = 'AB123'; END $$", .serverRefused),
        ]
        let errors = await BlockingWork().run { () -> [BridgeError?] in
            guard let string = try? ConnectionString(uri), let connection = try? PostgresConnection(string) else { return [] }
            return cases.map { sql, _ in
                do throws(BridgeError) { try connection.execute(sql) } catch { return error }
                return nil
            }
        }
        #expect(errors.count == cases.count)
        for ((sql, code), error) in zip(cases, errors) {
            #expect(error?.code == code, "\(sql)")
            let text = "\(String(describing: error?.description)) \(String(describing: error?.hint))"
            #expect(!text.contains("secret9") && !text.contains("77") && !text.contains("999"), "\(text)")
        }
        #expect(errors[1]?.context.contains(ErrorContext(.table, "public.t")) == true)
    }

    @Test("R4 a running statement is cancelled from another thread")
    func cancellation() async throws {
        let uri = try await (try PostgresCluster.shared).makeDatabase("connect")
        let interrupter = try Interrupter()
        async let running = BlockingWork().run { () -> BridgeError? in
            do throws(BridgeError) {
                let connection = try PostgresConnection(try ConnectionString(uri), interrupter: interrupter)
                do throws(BridgeError) {
                    try connection.execute("SELECT pg_sleep(600)")
                } catch {
                    // The session is whole and works on.
                    interrupter.reset()
                    try connection.execute("SELECT 1")
                    return error
                }
                return nil
            } catch { return error }
        }
        let cluster = try PostgresCluster.shared
        try await waitUntil("the statement running") {
            try await cluster.psql(uri, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND datname = current_database()") == "1"
        }
        interrupter.signal()
        #expect(await running?.code == .interrupted)
    }
}
