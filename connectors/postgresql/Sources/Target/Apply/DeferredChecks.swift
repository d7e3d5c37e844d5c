import BridgeCore

/// The check of deferrable constraints, which the server leaves out in the replica role: what a transaction touched is
/// collected as it is applied, and looked at before the commit, since only then it must be right.
extension ApplySession {
    /// Notes the tables of a run, which has been applied in the open transaction, and collects what it wrote to those with
    /// such constraints.
    func collectTouched(_ run: Run) throws(BridgeError) {
        for (plan, _) in run.tables {
            if !touched.contains(where: { $0 === plan }) { touched.append(plan) }
            guard let rows = plan.touched, !rows.locators.isEmpty else { continue }
            try connection.execute(rows.create)
            try connection.beginCopyIn(rows.copy, during: "applying changes")
            do throws(BridgeError) {
                try streamTouched(plan, rows, run)
                _ = try connection.endCopyIn(during: "applying changes")
            } catch {
                connection.failCopyIn("the rows cannot be written")
                throw error
            }
        }
    }

    private func streamTouched(_ plan: RelationPlan, _ rows: TouchedRows, _ run: Run) throws(BridgeError) {
        scratch.removeAll()
        var cursor = RecordCursor(run.bytes, offset: run.start)
        while cursor.offset < run.end, let record = try cursor.next() {
            switch record.kind {
            case .insert, .update, .upsert: break
            default: continue
            }
            let change = try RowChange(record)
            guard change.relation == plan.relation.id, let image = change.new else { continue }
            var isFirst = true
            for index in rows.locators {
                if !isFirst { scratch.appendCopySeparator() }
                isFirst = false
                try appendTouched(plan.columns[index], plan, image, change.old, record.offset)
            }
            scratch.appendCopyRowEnd()
            if scratch.count >= 128 << 10 {
                try connection.writeCopy(scratch.bytes)
                scratch.removeAll()
            }
        }
        try connection.writeCopy(scratch.bytes)
        scratch.removeAll()
    }

    private func appendTouched(
        _ column: RelationPlan.Column, _ plan: RelationPlan, _ image: RowImage, _ old: RowImage?, _ offset: Int
    ) throws(BridgeError) {
        var cell = try RelationEffects.cell(column.imageIndex, of: image)
        if cell?.tag == .unchanged, let old { cell = try RelationEffects.cell(column.imageIndex, of: old) }
        guard let cell else { throw RelationEffects.malformed() }
        if cell.tag == .null { return scratch.appendCopyNull() }
        do throws(CellRefusal) {
            try CellEncoder.append(cell, as: column.type, style: .copy, to: scratch)
        } catch {
            throw refusal(error, column, plan, offset)
        }
    }

    /// Looks whether rows that the open transaction wrote clash with others.
    /// - Throws: `conflict` with table and constraint; nothing is committed then.
    func checkTouched() throws(BridgeError) {
        for plan in touched {
            guard let rows = plan.touched else { continue }
            for constraint in rows.constraints {
                try connection.execute("SET LOCAL enable_seqscan = on")
                let clashes = try connection.rows(rows.clashes(constraint), during: "checking deferrable constraints")
                guard clashes.isEmpty else {
                    throw DeferredConstraint.conflict(constraint, plan.table.name)
                        .adding(.position, transaction.storedForm)
                }
            }
        }
    }
}

extension DeferredConstraint {
    static func conflict(_ constraint: DeferredConstraint, _ table: TableName) -> BridgeError {
        BridgeError(
            .conflict, "two rows clash that a deferrable constraint of the target forbids",
            context: [.init(.table, table.description), .init(.detail, "constraint \(constraint.name)")],
            hint: "find the rows by the constraint's columns on source and target; one may have been written by someone else on the target; correct them, then run the command again: nothing can be passed over")
    }

    /// Looks at the whole of tables that were loaded, since loading is done in the replica role too.
    static func checkLoaded(_ link: LinkDescription, _ connection: PostgresConnection) throws(BridgeError) {
        for mapping in link.mappings {
            guard let table = try TargetTable.read(mapping.target, connection) else { continue }
            for constraint in table.deferredConstraints {
                let clashes = try connection.rows(
                    constraint.clashes(touched: nil, by: []), during: "checking deferrable constraints")
                guard clashes.isEmpty else { throw conflict(constraint, table.name) }
            }
        }
    }
}
