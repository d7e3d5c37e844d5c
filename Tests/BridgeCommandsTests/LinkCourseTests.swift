import BridgeCore
import Testing

@testable import BridgeCommands

private func origin(_ number: UInt64) -> CaptureOrigin { CaptureOrigin(identity: ["n": "\(number)"], position: Position(commit: number)) }

private func seen(_ forward: LinkRecords.Sight, _ reverse: LinkRecords.Sight, answers: Int = 0) -> LinkCourse.Event {
    .looked(LinkRecords(forward: forward, reverse: reverse), answers: answers)
}

private let broken = BridgeError(.slotMissing, "the slot is gone")

/// Actions as short words.
private func words(_ actions: [LinkCourse.Action]) -> [String] {
    actions.map { action in
        switch action {
        case .start(let direction, let mayBegin): "start \(direction)\(mayBegin ? " anew" : "")"
        case .stop(let direction): "stop \(direction)"
        case .look(let number): "look \(number)"
        case .retry(let direction, let pause, _): "retry \(direction) in \(pause.components.seconds)"
        case .gone(let direction): "gone \(direction)"
        case .forget: "forget"
        case .finish(.success(let ending)): "finish \(ending)"
        case .finish(.failure(let error)): "fail \(error.code.rawValue)"
        }
    }
}

@Suite("Which links are run")
struct LinkCourseTests {
    private func course(_ change: (inout LinkCourse.Policy) -> Void = { _ in }, after events: [LinkCourse.Event] = []) -> LinkCourse {
        var policy = LinkCourse.Policy()
        change(&policy)
        var course = LinkCourse(policy)
        for event in events { _ = course.handle(event) }
        return course
    }

    private var both: [LinkCourse.Event] { [seenBoth(0)] }
    private func seenBoth(_ answers: Int) -> LinkCourse.Event { seen(.present(origin(1)), .present(origin(2)), answers: answers) }

    @Test("C12 the way back starts when its records appear, ends when they are gone, and starts again with new ones")
    func follows() {
        var course = course()
        #expect(words(course.handle(seen(.absent, .absent))) == ["forget", "start forward anew"])
        #expect(words(course.handle(seen(.present(origin(1)), .absent))).isEmpty)
        #expect(words(course.handle(seen(.present(origin(1)), .present(origin(2))))) == ["start reverse"])
        #expect(words(course.handle(seen(.present(origin(1)), .present(origin(2))))).isEmpty)
        #expect(words(course.handle(seen(.present(origin(1)), .unknown))).isEmpty)
        #expect(words(course.handle(seen(.present(origin(1)), .absent))) == ["stop reverse"])
        #expect(words(course.handle(.ended(.reverse, .success(false), ranWell: true))) == ["gone reverse"])
        #expect(words(course.handle(seen(.present(origin(1)), .present(origin(3))))) == ["start reverse"])
        #expect(words(course.handle(seen(.present(origin(1)), .present(origin(4))))) == ["stop reverse"])
        #expect(words(course.handle(.ended(.reverse, .success(false), ranWell: true))) == ["look 1"])
        #expect(words(course.handle(seen(.present(origin(1)), .present(origin(4)), answers: 1))) == ["start reverse"])
    }

    @Test("a way forward that was begun anew elsewhere ends the run, which would only look on")
    func begunAnewElsewhere() {
        var alone = course(after: [seen(.present(origin(1)), .absent)])
        #expect(words(alone.handle(seen(.present(origin(5)), .absent))) == ["stop forward"])
        #expect(words(alone.handle(.ended(.forward, .success(false), ranWell: true))) == ["fail checkpoint_foreign"])
        var besides = course(after: both)
        #expect(words(besides.handle(seen(.present(origin(5)), .present(origin(2))))) == ["stop forward"])
        #expect(words(besides.handle(.ended(.forward, .failure(broken), ranWell: true))) == ["stop reverse"])
        #expect(words(besides.handle(.ended(.reverse, .success(false), ranWell: true))) == ["fail checkpoint_foreign"])
    }

    @Test("C23 the run is over when no records are left on either side, and only then")
    func over() {
        var course = course(after: both)
        #expect(words(course.handle(seen(.absent, .present(origin(2))))) == ["stop forward"])
        #expect(words(course.handle(.ended(.forward, .success(false), ranWell: true))) == ["gone forward"])
        #expect(words(course.handle(seen(.absent, .present(origin(2))))).isEmpty)
        #expect(words(course.handle(seen(.absent, .absent))) == ["stop reverse"])
        #expect(words(course.handle(.ended(.reverse, .failure(broken), ranWell: true))) == ["gone reverse", "finish over"])
    }

    @Test("C23 an applier that finds its records gone before anybody looked ends the run as well")
    func overByError() {
        var course = course(after: [seen(.present(origin(1)), .absent)])
        #expect(words(course.handle(.ended(.forward, .failure(BridgeError(.checkpointForeign, "gone")), ranWell: true))) == ["look 1"])
        #expect(words(course.handle(seen(.absent, .absent, answers: 1))) == ["gone forward", "finish over"])
    }

    @Test("C23 what a look saw that began before a link failed does not decide what becomes of it")
    func overByErrorDuringALook() {
        var course = course(after: both)
        #expect(words(course.handle(.ended(.forward, .failure(BridgeError(.checkpointForeign, "gone")), ranWell: true))) == ["look 1"])
        // It was at the target before the records were removed there, and at the source behind it.
        #expect(words(course.handle(seen(.present(origin(1)), .absent, answers: 0))) == ["stop reverse"])
        #expect(words(course.handle(.ended(.reverse, .failure(broken), ranWell: true))) == ["gone reverse"])
        #expect(words(course.handle(.lookOverdue(0))).isEmpty)
        #expect(words(course.handle(seen(.absent, .absent, answers: 1))) == ["gone forward", "finish over"])
    }

    @Test("the way forward alone ends the run when it fails; what does not answer changes nothing")
    func alone() {
        for event in [seen(.present(origin(1)), .absent, answers: 1), seen(.unknown, .unknown, answers: 1), .lookOverdue(1)] {
            var course = course(after: [seen(.present(origin(1)), .absent)])
            #expect(words(course.handle(.ended(.forward, .failure(broken), ranWell: true))) == ["look 1"])
            #expect(words(course.handle(event)) == ["fail slot_missing"])
        }
    }

    @Test("either of two links that fails is tried again with growing pauses, and the other goes on", arguments: [LinkDirection.forward, .reverse])
    func fails(_ direction: LinkDirection) {
        var course = course(after: both)
        for (number, pause) in [1, 2, 4, 8, 16, 30, 30].enumerated() {
            #expect(words(course.handle(.ended(direction, .failure(broken), ranWell: false))) == ["look \(number + 1)"])
            #expect(words(course.handle(seenBoth(number + 1))) == ["retry \(direction) in \(pause)"])
            #expect(words(course.handle(seenBoth(number + 1))).isEmpty)
            #expect(words(course.handle(.due(direction))) == ["start \(direction)"])
        }
        #expect(words(course.handle(.ended(direction, .failure(broken), ranWell: true))) == ["look 8"])
        #expect(words(course.handle(seenBoth(8))) == ["retry \(direction) in 1"])
        // Told to stop, it says that one of them did not end well.
        #expect(words(course.handle(.stop)) == ["stop \(direction == .forward ? "reverse" : "forward")"])
        let other: LinkDirection = direction == .forward ? .reverse : .forward
        #expect(words(course.handle(.ended(other, .success(false), ranWell: true))) == ["fail slot_missing"])
    }

    @Test("a link that fails while it is told to stop has not ended well", arguments: [LinkDirection.forward, .reverse])
    func failsWhileStopping(_ direction: LinkDirection) {
        var course = course(after: both + [.ended(direction, .failure(broken), ranWell: false), seenBoth(1), .due(direction)])
        #expect(words(course.handle(.stop)) == ["stop forward", "stop reverse"])
        #expect(words(course.handle(.ended(direction, .failure(broken), ranWell: false))).isEmpty)
        let other: LinkDirection = direction == .forward ? .reverse : .forward
        #expect(words(course.handle(.ended(other, .success(false), ranWell: true))) == ["fail slot_missing"])
    }

    @Test("a link that is tried again is left alone once its records are gone")
    func failsAndGoes() {
        var course = course(after: both + [.ended(.reverse, .failure(broken), ranWell: false), seenBoth(1)])
        #expect(words(course.handle(seen(.present(origin(1)), .absent))) == ["gone reverse"])
        #expect(words(course.handle(.due(.reverse))).isEmpty)
    }

    @Test("where there is a way back, or may be, the way forward is never begun anew")
    func notAnew() {
        var first = course()
        #expect(words(first.handle(seen(.absent, .present(origin(2))))) == ["gone forward", "start reverse"])
        var second = course()
        #expect(words(second.handle(seen(.absent, .unknown))) == ["forget", "start forward"].filter { $0 != "forget" })
        var third = course { $0.mayBegin = false }
        #expect(words(third.handle(seen(.absent, .absent))) == ["forget", "start forward"])
    }

    @Test("until caught up means every link that there is; one that fails fails the run")
    func untilCaughtUp() {
        var caughtUp = course({ $0.untilCaughtUp = true }, after: both)
        #expect(words(caughtUp.handle(.ended(.forward, .success(true), ranWell: false))).isEmpty)
        #expect(words(caughtUp.handle(.ended(.reverse, .success(true), ranWell: false))) == ["finish caughtUp"])
        var failed = course({ $0.untilCaughtUp = true }, after: both)
        #expect(words(failed.handle(.ended(.reverse, .failure(broken), ranWell: false))) == ["look 1"])
        #expect(words(failed.handle(seenBoth(1))) == ["stop forward"])
        #expect(words(failed.handle(.ended(.forward, .success(false), ranWell: false))) == ["fail slot_missing"])
    }

    @Test("R4 a stop ends both, and comes before everything else")
    func stops() {
        var course = course(after: both)
        #expect(words(course.handle(.stop)) == ["stop forward", "stop reverse"])
        #expect(words(course.handle(seen(.absent, .absent))).isEmpty)
        #expect(words(course.handle(.ended(.forward, .success(false), ranWell: true))).isEmpty)
        #expect(words(course.handle(.ended(.reverse, .success(false), ranWell: true))) == ["finish stopped"])
        #expect(words(self.course().handleFirst(.stop)) == ["finish stopped"])
    }
}

extension LinkCourse {
    fileprivate func handleFirst(_ event: Event) -> [Action] {
        var copy = self
        return copy.handle(event)
    }
}
