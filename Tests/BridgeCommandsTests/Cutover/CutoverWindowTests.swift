import BridgeCore
import Foundation
import Testing

@testable import BridgeCommands

@Suite struct CutoverWindowTests {
    private static func remaining(_ window: String, at moment: String) throws -> Double? {
        let seconds = try #require(RFC3339.seconds(moment))
        return try CutoverWindow(window).remaining(at: Timestamp(microseconds: Int64(seconds * 1e6))).map { $0 / .seconds(1) }
    }

    @Test("C22 inside the window its rest is told, outside nothing; its beginning is inside, its end is not")
    func week() throws {
        // 2026-11-22 is a Sunday.
        let window = "Sunday 02:00-06:00 UTC"
        #expect(try Self.remaining(window, at: "2026-11-22T01:59:59Z") == nil)
        #expect(try Self.remaining(window, at: "2026-11-22T02:00:00Z") == 4 * 3600)
        #expect(try Self.remaining(window, at: "2026-11-22T05:59:59Z") == 1)
        #expect(try Self.remaining(window, at: "2026-11-22T06:00:00Z") == nil)
        #expect(try Self.remaining(window, at: "2026-11-23T03:00:00Z") == nil)
        #expect(try Self.remaining("Sat,Sun 02:00-06:00 UTC", at: "2026-11-21T03:00:00Z") == 3 * 3600)
        #expect(try Self.remaining("daily 02:00-24:00 UTC", at: "2026-11-23T23:00:00Z") == 3600)
    }

    @Test("C22 a window over midnight belongs to the day on which it begins")
    func midnight() throws {
        let window = "Sunday 23:00-02:00 UTC"
        #expect(try Self.remaining(window, at: "2026-11-22T23:30:00Z") == 2.5 * 3600)
        #expect(try Self.remaining(window, at: "2026-11-23T01:00:00Z") == 3600)
        #expect(try Self.remaining(window, at: "2026-11-22T01:00:00Z") == nil)
        #expect(try Self.remaining(window, at: "2026-11-23T02:00:00Z") == nil)
    }

    @Test("C22 the window's zone counts, with its summer time")
    func zones() throws {
        #expect(try Self.remaining("Sunday 02:00-06:00 Europe/Berlin", at: "2026-11-22T01:30:00Z") == 3.5 * 3600)
        #expect(try Self.remaining("Sunday 02:00-06:00 Europe/Berlin", at: "2026-07-05T00:30:00Z") == 3.5 * 3600)
        #expect(try Self.remaining("Sunday 02:00-06:00 +02:00", at: "2026-11-22T00:30:00Z") == 3.5 * 3600)
        #expect(try Self.remaining("Sunday 02:00-06:00 -05:30", at: "2026-11-22T07:30:00Z") == 4 * 3600)
        // The night in which the clock is put forward at 02:00, and back at 03:00.
        #expect(try Self.remaining("Sunday 01:00-06:00 Europe/Berlin", at: "2026-03-29T00:00:00Z") == 4 * 3600)
        #expect(try Self.remaining("Sunday 01:00-06:00 Europe/Berlin", at: "2026-10-24T23:00:00Z") == 6 * 3600)
    }
}
