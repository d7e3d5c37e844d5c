import BridgeCore

/// A small random source that gives the same numbers for the same seed (SplitMix64).
struct SeededRandom: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

/// What the application does next, at random.
struct DemoWorkload: Sendable {
    private let engine: EngineName
    private let writer: Int
    private var random: SeededRandom
    private var nextNumber: Int

    /// - Parameter writer: numbers below 100 keep the writers' new keys apart.
    init(engine: EngineName, writer: Int, seed: UInt64) {
        self.engine = engine
        self.writer = writer
        random = SeededRandom(seed: seed &+ UInt64(writer) &* 7919)
        nextNumber = 1_000_000 + writer
    }

    /// What is done between a transaction's `BEGIN` and its end.
    struct Transaction {
        let statements: [String]
        /// An application changes its mind now and then.
        var isRolledBack = false
    }

    mutating func nextTransaction() -> Transaction {
        let choice = Int.random(in: 0..<100, using: &random)
        guard choice < 97 else { return Transaction(statements: [newEvent(), changeCustomer()], isRolledBack: true) }
        return Transaction(statements: statements(choice))
    }

    private mutating func statements(_ choice: Int) -> [String] {
        switch choice {
        case 0..<22: return placeOrder()
        case 22..<36: return [newEvent()]
        case 36..<48: return [changeCustomer()]
        case 48..<58: return ["UPDATE orders SET status = '\(word())' WHERE id = \(orderNumber())"]
        case 58..<68: return [replaceProduct()]
        case 68..<75: return ["DELETE FROM orders WHERE id = \(orderNumber())"]
        case 75..<80: return changeKeys()
        case 80..<85: return [newCustomer()]
        case 85..<89: return (0..<100).map { _ in newEvent() }
        case 89..<93: return ["DELETE FROM events WHERE id < '\(hexadecimal(2))'"]
        default: return ["DELETE FROM customers WHERE id = \(customerNumber())"]
        }
    }

    var begin: String { engine == .sqlite ? "BEGIN IMMEDIATE" : "BEGIN" }

    private mutating func number() -> Int {
        nextNumber += 100
        return nextNumber
    }

    private mutating func customerNumber() -> Int { Int.random(in: 1...DemoShop.customers, using: &random) }
    private mutating func orderNumber() -> Int {
        let isNew = Bool.random(using: &random) && nextNumber > 1_000_200
        return isNew
            ? 1_000_000 + writer + 100 * Int.random(in: 1...((nextNumber - 1_000_000) / 100), using: &random)
            : Int.random(in: 1...DemoShop.orders, using: &random)
    }
    private mutating func productNumber() -> Int { Int.random(in: 1...DemoShop.products, using: &random) }
    private mutating func word() -> String {
        ["new", "paid", "packed", "sent", "returned", "größer", "lost"].randomElement(using: &random) ?? "new"
    }
    private mutating func hexadecimal(_ digits: Int) -> String {
        (0..<digits).map { _ in String(Int.random(in: 0..<16, using: &random), radix: 16) }.joined()
    }
    private mutating func moment() -> String {
        func two(_ value: Int) -> String { value < 10 ? "0\(value)" : "\(value)" }
        let day = two(Int.random(in: 1...28, using: &random))
        let minute = two(Int.random(in: 0..<60, using: &random))
        return
            "'2024-06-\(day) 08:\(minute):\(two(Int.random(in: 0..<60, using: &random))).\(100_000 + Int.random(in: 0..<900_000, using: &random))Z'"
    }

    private mutating func placeOrder() -> [String] {
        let order = number()
        var statements = [
            // The customer may be gone; then there is no order either.
            "INSERT INTO orders SELECT \(order), id, 'new', \(moment()) FROM customers WHERE id = \(customerNumber())"
        ]
        for line in 1...Int.random(in: 1...4, using: &random) {
            let product = productNumber()
            statements.append(
                "INSERT INTO order_items SELECT id, \(line), \(product), \(Int.random(in: 1...9, using: &random)), "
                    + "\(Bool.random(using: &random) ? "NULL" : "'\(word())'") FROM orders WHERE id = \(order)")
            statements.append("UPDATE inventory SET reserved = reserved + 1 WHERE product_id = \(product)")
        }
        return statements
    }

    private mutating func newEvent() -> String {
        let payload = "{\"order\": \(orderNumber()), \"note\": \"\(word()) \(hexadecimal(24))\"}"
        return "INSERT INTO events VALUES ('\(hexadecimal(24))-\(number())', '\(word())', \(moment()), '\(payload)')"
    }

    private mutating func newCustomer() -> String {
        let id = number()
        let flag = engine == .sqlite ? "0" : "false"
        return
            "INSERT INTO customers VALUES (\(id), 'c\(id)@example.com', '\(word()) \(hexadecimal(6))', \(flag), \(moment()))"
    }

    private mutating func changeCustomer() -> String {
        let flip = engine == .sqlite ? "1 - vip" : "NOT vip"
        return "UPDATE customers SET name = '\(word()) \(hexadecimal(8))', vip = \(flip) WHERE id = \(customerNumber())"
    }

    /// Meets the second unique index: the row that has the SKU already goes, under another key.
    private mutating func replaceProduct() -> String {
        let index = productNumber()
        let digits = String(index)
        let sku = "SKU-" + String(repeating: "0", count: 5 - digits.count) + digits
        let id = Bool.random(using: &random) ? productNumber() : number()
        let cents = Int.random(in: 10...99, using: &random)
        let title = "'\(word()) \(hexadecimal(4))'"
        let weight = Double(Int.random(in: 1...1000, using: &random)) / 7
        if engine == .sqlite {
            return
                "REPLACE INTO products VALUES (\(id), '\(sku)', \(title), '\(index).\(cents)', \(weight), x'\(hexadecimal(32))')"
        }
        let newID = number()
        return """
            INSERT INTO products VALUES (\(newID), '\(sku)', \(title), \(index).\(cents), \(weight), '\\x\(hexadecimal(32))')
            ON CONFLICT (sku) DO UPDATE SET id = excluded.id, title = excluded.title, price = excluded.price,
              weight = excluded.weight, picture = excluded.picture
            """
    }

    private mutating func changeKeys() -> [String] {
        let order = orderNumber()
        return [
            "UPDATE order_items SET line = line + 10 WHERE order_id = \(order) AND line < 10000",
            "UPDATE events SET id = '\(hexadecimal(24))-\(number())' WHERE id = (SELECT min(id) FROM events)",
        ]
    }
}
