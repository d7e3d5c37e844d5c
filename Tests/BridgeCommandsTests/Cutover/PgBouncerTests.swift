import BridgeTestSupport
import Foundation
import Testing

@Suite("Cutovers through PgBouncer")
struct PgBouncerTests {
    @Test("C15 clients of a PgBouncer see no error while writes are rehearsed, switched over and back")
    func clients() async throws {
        let scripts = (#filePath as NSString).deletingLastPathComponent + "/../../Soak"
        let outcome = try await ChildProcess(
            ["python3", "-B", "\(scripts)/pgbouncer.py", "--bridge", Executable.path, "--switches", "1", "--rate", "50"]
        ).wait()
        #expect(outcome.status == 0, "\(outcome.output)\(outcome.errors)")
        print(outcome.output)
    }
}
