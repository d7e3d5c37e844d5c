import BridgeCore

/// The demo's application: a small shop, in the dialect of one engine.
struct DemoShop: Sendable {
    let engine: EngineName

    struct Table: Sendable {
        let name: String
        let key: [String]
        let columns: [String]
    }

    static let tables: [Table] = [
        Table(name: "customers", key: ["id"], columns: ["id", "email", "name", "vip", "created_at"]),
        Table(name: "products", key: ["id"], columns: ["id", "sku", "title", "price", "weight", "picture"]),
        Table(name: "orders", key: ["id"], columns: ["id", "customer_id", "status", "placed_at"]),
        Table(
            name: "order_items", key: ["order_id", "line"],
            columns: ["order_id", "line", "product_id", "quantity", "note"]),
        Table(name: "inventory", key: ["product_id"], columns: ["product_id", "on_hand", "reserved"]),
        Table(name: "events", key: ["id"], columns: ["id", "kind", "at", "payload"]),
        // One in each transaction of a writer, so that whatever was acknowledged can be accounted for.
        Table(name: "receipts", key: ["writer", "number"], columns: ["writer", "number"]),
    ]

    private var isSQLite: Bool { engine == .sqlite }

    /// Rows that are there before anything begins.
    static let customers = 20_000
    static let products = 2_000
    static let orders = 30_000

    var schema: [String] {
        let number = isSQLite ? "INTEGER" : "bigint"
        let flag = isSQLite ? "INTEGER NOT NULL DEFAULT 0 CHECK (vip IN (0, 1))" : "boolean NOT NULL DEFAULT false"
        let money = isSQLite ? "TEXT" : "numeric(12,2)"
        let real = isSQLite ? "REAL" : "double precision"
        let bytes = isSQLite ? "BLOB" : "bytea"
        let moment = isSQLite ? "TEXT NOT NULL" : "timestamp with time zone NOT NULL"
        let document = isSQLite ? "TEXT" : "jsonb"
        return [
            """
            CREATE TABLE customers (id \(number) PRIMARY KEY, email TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
              vip \(flag), created_at \(moment))
            """,
            """
            CREATE TABLE products (id \(number) PRIMARY KEY, sku TEXT NOT NULL UNIQUE, title TEXT NOT NULL,
              price \(money) NOT NULL, weight \(real), picture \(bytes))
            """,
            """
            CREATE TABLE orders (id \(number) PRIMARY KEY,
              customer_id \(number) NOT NULL REFERENCES customers (id) ON DELETE CASCADE,
              status TEXT NOT NULL DEFAULT 'new', placed_at \(moment))
            """,
            "CREATE INDEX orders_customer ON orders (customer_id)",
            """
            CREATE TABLE order_items (order_id \(number) NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
              line \(number) NOT NULL, product_id \(number) NOT NULL, quantity \(number) NOT NULL CHECK (quantity > 0),
              note TEXT, PRIMARY KEY (order_id, line))
            """,
            """
            CREATE TABLE inventory (product_id \(number) PRIMARY KEY, on_hand \(number) NOT NULL,
              reserved \(number) NOT NULL DEFAULT 0)
            """,
            "CREATE TABLE events (id TEXT PRIMARY KEY, kind TEXT NOT NULL, at \(moment), payload \(document))",
            "CREATE TABLE receipts (writer \(number) NOT NULL, number \(number) NOT NULL, PRIMARY KEY (writer, number))",
        ]
    }

    /// Statements that fill the tables, all in one transaction.
    var seed: [String] {
        func numbers(_ count: Int) -> String {
            isSQLite
                ? "(WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < \(count)) SELECT i FROM n)"
                : "(SELECT generate_series(1, \(count)) AS i) AS n"
        }
        let flag = isSQLite ? "i % 17 = 0" : "(i % 17 = 0)"
        let picture = isSQLite ? "randomblob(64)" : "decode(md5(i::text), 'hex')"
        let price = isSQLite ? "(i % 900 + 1) || '.' || (10 + i % 90)" : "(i % 900 + 1) + (10 + i % 90) / 100.0"
        let moment = "'2024-05-01 12:00:00.000000Z'"
        let text = isSQLite ? "printf('SKU-%05d', i)" : "'SKU-' || lpad(i::text, 5, '0')"
        return [
            "INSERT INTO customers SELECT i, 'c' || i || '@example.com', 'Customer ' || i, \(flag), \(moment) FROM \(numbers(Self.customers))",
            "INSERT INTO products SELECT i, \(text), 'Product ' || i, \(price), i / 7.0, \(picture) FROM \(numbers(Self.products))",
            "INSERT INTO inventory SELECT i, i % 100 + 50, 0 FROM \(numbers(Self.products))",
            "INSERT INTO orders SELECT i, i % \(Self.customers) + 1, 'new', \(moment) FROM \(numbers(Self.orders))",
            "INSERT INTO order_items SELECT i, 1, i % \(Self.products) + 1, i % 5 + 1, NULL FROM \(numbers(Self.orders))",
            "INSERT INTO order_items SELECT i, 2, i % 37 + 1, 1, 'gift' FROM \(numbers(Self.orders / 2))",
        ]
    }
}
