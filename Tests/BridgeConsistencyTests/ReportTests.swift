import Testing

@testable import BridgeConsistency

@Suite("Report")
struct ReportTests {
    @Test("K22 a report names all six validations, each once")
    func validations() {
        #expect(
            CheckReport.ValidationName.allCases.map(\.rawValue) == [
                "row_counts", "schemas", "indexes", "constraints", "data_samples", "checksums",
            ])
    }
}
