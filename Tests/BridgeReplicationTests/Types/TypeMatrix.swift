/// Every type with the values that are known to go wrong, as SQL.
enum TypeMatrix {
    struct Entry {
        /// The type as it stands in a column's definition.
        let type: String
        /// Expressions without their cast.
        let values: [String]
        /// Values that SQLite has no way to hold; the link refuses them by the column's name.
        var notInSQLite: [String] = []
        /// Values that are too long to be put together in arrays.
        var long: [String] = []
        /// Whether a column of it can be a primary key.
        var isKey = true
        /// Two values that `=` takes for one, though they are not the same.
        var same: (String, String)?
        /// What comes before the columns, for the collation of a key.
        var collation: String?

        func literal(_ value: String) -> String { "\(value)::\(type)" }
    }

    static let setup = """
        CREATE SCHEMA "Other types"; CREATE EXTENSION hstore SCHEMA public; CREATE EXTENSION citext SCHEMA "Other types";
        CREATE TYPE "Other types".mood AS ENUM ('sad', 'so so', 'qu"ote', ''''); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
        CREATE DOMAIN "Other types".words AS text[] CHECK (array_length(VALUE, 1) IS DISTINCT FROM 99);
        CREATE DOMAIN mood_domain AS "Other types".mood; CREATE DOMAIN price AS numeric(8,2);
        CREATE TYPE inner_pair AS (a int, b text, m "Other types".mood);
        CREATE TYPE outer_pair AS (one inner_pair, many inner_pair[], p positive, f double precision);
        CREATE TYPE "Other types".span AS RANGE (subtype = double precision);
        CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)
        """

    static let entries: [Entry] = numbers + texts + times + networks + shapes + documents + ranges + own

    private static let numbers: [Entry] = [
        Entry(type: "smallint", values: ["-32768", "32767", "0"].quoted),
        Entry(type: "int", values: ["-2147483648", "2147483647", "0"].quoted),
        Entry(type: "bigint", values: ["-9223372036854775808", "9223372036854775807", "0"].quoted),
        Entry(
            type: "real", values: ["Infinity", "-Infinity", "1e-45", "3.4028235e38", "0.1", "0", "16777217"].quoted,
            notInSQLite: ["NaN", "-0"].quoted, same: ("'0'", "'-0'")),
        Entry(
            type: "double precision",
            values: ["Infinity", "-Infinity", "5e-324", "2.2250738585072011e-308", "1.7976931348623157e308", "0.1", "0", "0.30000000000000004"].quoted,
            notInSQLite: ["NaN", "-0"].quoted, same: ("'0'", "'-0'")),
        Entry(
            type: "numeric",
            values: ["NaN", "Infinity", "-Infinity", "1.0", "-0.000", "1e100", "0.1e-100", "12345678901234567890.123456789"].quoted,
            long: ["('1' || repeat('0', 5000) || '.' || repeat('1', 3000))"], same: ("'1.0'", "'1.00'")),
        Entry(type: "numeric(10,2)", values: ["NaN", "99999999.99", "-0.01", "0", "1.1"].quoted),
        Entry(type: "numeric(5,-2)", values: ["NaN", "1234500", "0"].quoted),
        Entry(type: "money", values: ["-92233720368547758.08", "92233720368547758.07", "0.01"].quoted),
        Entry(type: "oid", values: ["0", "4294967295"].quoted),
        Entry(type: "pg_lsn", values: ["0/0", "FFFFFFFF/FFFFFFFF", "16/B374D848"].quoted),
        Entry(type: "boolean", values: ["true", "false"]),
        Entry(type: "bit(3)", values: ["101", "000"].quoted),
        Entry(type: "varbit", values: ["", "1", "10110"].quoted),
        Entry(type: "bytea", values: ["''", "'\\x00ff5c27'"], long: ["decode(repeat('00ff5c0a', 3000), 'hex')"], isKey: false),
        Entry(type: "uuid", values: ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "00000000-0000-0000-0000-000000000000"].quoted),
    ]

    private static let nasty = [
        "''", "'NULL'", "'null'", "'\\N'", "'\\.'", "E'a\\tb\\nc\\rd\\be\\ff\\x0b\\x01\\x1f\\x7f'", "'it''s \"quoted\" \\back\\\\slash,{}()'", "' lead and trail '",
        "'ünï 😀 ' || chr(57344) || chr(1114109)", "E'e\\u0301'",
    ]

    private static let texts: [Entry] = [
        Entry(type: "text", values: nasty, long: ["repeat('x\\', 500000)", "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 300) AS n)"], isKey: false),
        Entry(type: "varchar", values: nasty),
        Entry(type: "varchar(7)", values: ["''", "'äöüß'", "'  x  '"]),
        Entry(type: "char(5)", values: ["''", "'a'", "'  b'", "'ä'", "'NULL'"]),
        Entry(type: "\"char\"", values: ["''", "'a'", "'\\'", "E'\\t'", "'é'"]),
        Entry(type: "name", values: ["''", "'x'", "repeat('n', 63)", "'with \"quotes\"'"]),
        Entry(type: "\"Other types\".citext", values: ["''", "'Mixed'", "'x'"], same: ("'Mixed'", "'mIXED'")),
        Entry(type: "text", values: ["''", "'Mixed'", "'x'"], same: ("'Mixed'", "'mIXED'"), collation: "public.loose"),
        Entry(type: "xml", values: ["''", "'<a> &amp; <b x=\"1\"/></a>'", "'text only'", "'<a/><b/>'", "'<!-- c --><x><![CDATA[ ]]></x>'"], isKey: false),
    ]

    private static let times: [Entry] = [
        Entry(type: "date", values: ["infinity", "-infinity", "4713-01-01 BC", "5874897-12-31", "0001-12-31 BC", "2024-02-29"].quoted),
        Entry(type: "time", values: ["00:00", "24:00:00", "23:59:59.999999", "12:00:00.1"].quoted),
        Entry(type: "time(0)", values: ["23:59:59"].quoted),
        Entry(type: "timetz", values: ["00:00+15:59:59", "24:00:00-15:59", "12:00:00.000001+00"].quoted),
        Entry(
            type: "timestamp",
            values: ["infinity", "-infinity", "4713-01-01 00:00 BC", "294276-12-31 23:59:59.999999", "0044-03-15 12:00:00.5 BC", "2024-01-01"].quoted),
        Entry(
            type: "timestamptz",
            values: ["infinity", "-infinity", "4713-01-02 00:00+00 BC", "294276-12-31 23:59:59.999999+00", "1900-01-01 00:00:00+00:53:28", "2024-07-01 12:00+02"].quoted),
        Entry(type: "timestamptz(3)", values: ["2024-01-01 00:00:00.123+00", "infinity"].quoted),
        Entry(
            type: "interval",
            values: ["0", "-178000000 years", "178000000 years", "1 mon -1 day +00:00:01", "-1 mon +1 day -00:00:00.000001", "1 year 2 mons -3 days 04:05:06.789", "00:00:00.1", "2562047788:00:54.775807"].quoted,
            same: ("'1 mon'", "'30 days'")),
        Entry(type: "interval day to second(2)", values: ["1 day 02:03:04.56"].quoted),
    ]

    private static let networks: [Entry] = [
        Entry(type: "inet", values: ["10.0.0.1", "10.0.0.1/8", "::1/64", "::ffff:1.2.3.4"].quoted),
        Entry(type: "cidr", values: ["10.0.0.0/8", "::/0", "1.2.3.4/32"].quoted),
        Entry(type: "macaddr", values: ["08:00:2b:01:02:03"].quoted),
        Entry(type: "macaddr8", values: ["08:00:2b:ff:fe:01:02:03"].quoted),
    ]

    private static let shapes: [Entry] = [
        Entry(type: "point", values: ["(1,2)", "(NaN,-0)", "(Infinity,-Infinity)", "(0.1,5e-324)"].quoted, isKey: false),
        Entry(type: "line", values: ["{1,-1,0}", "{0.1,0,3}"].quoted, isKey: false),
        Entry(type: "lseg", values: ["[(0,0),(1,1e300)]"].quoted, isKey: false),
        Entry(type: "box", values: ["(1,1),(0,0)", "(Infinity,1),(-Infinity,-1)"].quoted, isKey: false),
        Entry(type: "path", values: ["[(0,0),(1,1)]", "((0,0),(1,1),(2,0.1))"].quoted, isKey: false),
        Entry(type: "polygon", values: ["((0,0),(1,1),(2,0))"].quoted, isKey: false),
        Entry(type: "circle", values: ["<(0,0),0.1>", "<(1,2),Infinity>"].quoted, isKey: false),
    ]

    private static let documents: [Entry] = [
        Entry(
            type: "json",
            values: ["'null'", "'  {\"a\" :  1 , \"a\":2.00,\"b\": [ ] }  '", "E'[\"\\\\u0000\", \"tab\\\\t\", 1e400]'", "'\"text\"'"], isKey: false),
        Entry(
            type: "jsonb", values: ["'null'", "'{\"b\": 1.00, \"a\": {\"x\": []}}'", "'\"\\\\N\"'", "'1e200'"], same: ("'1.0'", "'1.00'")),
        Entry(type: "jsonpath", values: ["'$.a[*] ? (@ > 1)'", "'strict $'"], isKey: false),
        Entry(type: "tsvector", values: ["''", "'a:1A fat:2B,4C cat:5D'", "'''it''''s'' ''sp ace'':3'"]),
        Entry(type: "tsquery", values: ["''", "'fat & (rat | !cat:*A) <2> x'"]),
    ]

    private static let ranges: [Entry] = [
        Entry(type: "int4range", values: ["empty", "(,)", "[1,5)", "[-2147483648,)"].quoted),
        Entry(type: "int8range", values: ["empty", "[1,9223372036854775807)"].quoted),
        Entry(type: "numrange", values: ["(1.0,2.00]", "(,NaN]", "[Infinity,]"].quoted, same: ("'[1.0,2]'", "'[1.00,2]'")),
        Entry(type: "tsrange", values: ["[\"2024-01-01 00:00:00\",infinity)", "(-infinity,)"].quoted),
        Entry(type: "tstzrange", values: ["[\"2024-01-01 00:00:00+00\",\"294276-12-31 23:59:59+00\"]"].quoted),
        Entry(type: "daterange", values: ["[4713-01-01 BC,infinity)", "empty"].quoted),
        Entry(type: "int4multirange", values: ["{}", "{[1,3),[5,)}"].quoted),
        Entry(type: "nummultirange", values: ["{[1.10,2.0]}"].quoted),
        Entry(type: "tstzmultirange", values: ["{[\"2024-01-01 00:00:00+00\",)}"].quoted),
        Entry(type: "datemultirange", values: ["{(,)}"].quoted),
        Entry(type: "\"Other types\".span", values: ["[0.1,1e300]", "(-Infinity,5e-324]"].quoted),
    ]

    private static let own: [Entry] = [
        Entry(type: "\"Other types\".mood", values: ["sad", "so so", "qu\"ote", "''"].quoted),
        Entry(type: "mood_domain", values: ["sad", "so so"].quoted),
        Entry(type: "positive", values: ["1", "2147483647"].quoted),
        Entry(type: "price", values: ["1.10", "NaN"].quoted),
        Entry(type: "\"Other types\".words", values: ["{}", "{a,NULL,\"NULL\",\"\"}", "[0:1]={x,y}"].quoted),
        Entry(
            type: "inner_pair",
            values: ["ROW(NULL, NULL, NULL)", "ROW(1, 'a,\"b\\', 'so so')", "ROW(-1, '', NULL)"]),
        Entry(
            type: "outer_pair",
            values: [
                "ROW(NULL, NULL, NULL, NULL)",
                "ROW(ROW(1, '(x)', 'sad')::inner_pair, ARRAY[ROW(2, NULL, 'so so')::inner_pair, NULL], 3, '-0')",
            ]),
        Entry(type: "hstore", values: ["''", "'a=>1, \"b c\"=>NULL, \"q\\\"\"=>\"NULL\"'"]),
    ]
}

extension [String] {
    /// As SQL literals.
    fileprivate var quoted: [String] { map { "'\($0.replacing("''", with: "'").replacing("'", with: "''"))'" } }
}
