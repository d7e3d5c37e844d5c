/// A source table as its changes describe it: the meaning of the row images that follow it in the journal.
///
/// It is journaled, and journaled again whenever the source's table changes, so that whoever reads old rows has the old
/// columns. Columns map to the target by name.
package struct Relation: Hashable, Sendable {
    /// How an update or a delete names its row.
    package enum IdentityKind: UInt8, Sendable {
        /// By the columns marked as key.
        case key = 0
        /// By the whole old row.
        case full = 1
        /// Not at all: only inserts can be applied.
        case nothing = 2
    }

    package struct Column: Hashable, Sendable {
        package var name: String
        package var isKey: Bool
        /// The source engine's own name of the type.
        package var typeName: String
        package var type: LogicalType

        package init(name: String, isKey: Bool, typeName: String, type: LogicalType) {
            self.name = name
            self.isKey = isKey
            self.typeName = typeName
            self.type = type
        }
    }

    /// The source's number for the table: an OID, or a table number of the change log.
    package var id: UInt32
    package var engine: EngineName
    package var form: ValueForm
    package var name: TableName
    package var identity: IdentityKind
    package var columns: [Column]

    package init(
        id: UInt32, engine: EngineName, form: ValueForm, name: TableName, identity: IdentityKind, columns: [Column]
    ) {
        self.id = id
        self.engine = engine
        self.form = form
        self.name = name
        self.identity = identity
        self.columns = columns
    }
}

extension RecordBuffer {
    /// Appends a relation record.
    package func appendRelation(_ relation: Relation) {
        let start = beginRecord(.relation)
        append(bigEndian: relation.id)
        append(relation.form.rawValue)
        append(relation.identity.rawValue)
        appendShortString(relation.engine.rawValue)
        append(relation.name.schema == nil ? 0 : 1)
        appendShortString(relation.name.schema ?? "")
        appendShortString(relation.name.name)
        append(bigEndian: UInt16(relation.columns.count))
        for column in relation.columns {
            append(column.isKey ? 1 : 0)
            appendShortString(column.name)
            appendShortString(column.typeName)
            appendShortString(column.type.name)
        }
        endRecord(start)
    }
}

extension Relation {
    /// Reads the payload of a relation record.
    package init(payload: UnsafeRawBufferPointer) throws(BridgeError) {
        do throws(ByteReader.Truncated) {
            var reader = ByteReader(payload)
            id = try reader.readInteger()
            guard let form = ValueForm(rawValue: try reader.readByte()),
                let identity = IdentityKind(rawValue: try reader.readByte())
            else { throw ByteReader.Truncated(offset: reader.offset) }
            self.form = form
            self.identity = identity
            engine = EngineName(rawValue: try reader.readShortString())
            let hasSchema = try reader.readByte() == 1
            let schema = try reader.readShortString()
            name = TableName(schema: hasSchema ? schema : nil, name: try reader.readShortString())
            let count = Int(try reader.readInteger(UInt16.self))
            columns = []
            columns.reserveCapacity(count)
            for _ in 0..<count {
                let isKey = try reader.readByte() == 1
                columns.append(
                    Column(
                        name: try reader.readShortString(), isKey: isKey, typeName: try reader.readShortString(),
                        type: LogicalType(name: try reader.readShortString())))
            }
            guard reader.isAtEnd else { throw ByteReader.Truncated(offset: reader.offset) }
        } catch {
            throw BridgeError(.recordMalformed, "a relation record cannot be read", context: [.init(.offset, "\(error.offset)")])
        }
    }
}
