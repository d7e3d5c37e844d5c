/// A keyed 128-bit hash of bytes, for rows that are compared here.
///
/// Two lanes in the manner of wyhash (64 x 64 to 128 bit multiplications, folded), each with secrets of its own, each
/// finalised so that every input bit changes every output bit. Digests add hashes up, so a hash must not be linear in
/// its input; the finaliser sees to that. The secrets are drawn for every check, so nobody can prepare rows that collide.
package struct RowHasher: Sendable {
    package static let name = "wy128-sum"

    private let s0: UInt64, s1: UInt64, s2: UInt64, s3: UInt64, s4: UInt64, s5: UInt64

    /// With secrets from the system.
    package init() {
        var generator = SystemRandomNumberGenerator()
        self.init(using: &generator)
    }

    package init(using generator: inout some RandomNumberGenerator) {
        s0 = generator.next()
        s1 = generator.next()
        s2 = generator.next()
        s3 = generator.next()
        s4 = generator.next()
        s5 = generator.next()
    }

    @inline(__always)
    package func hash(_ bytes: UnsafeRawBufferPointer) -> UInt128 {
        let count = UInt64(truncatingIfNeeded: bytes.count)
        var one = s0 ^ count
        var two = s1 &+ count
        var left = bytes.count
        if left > 0, var next = bytes.baseAddress {
            while left > 16 {
                let x = next.loadUnaligned(as: UInt64.self)
                let y = next.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
                one = Self.mix(x ^ s2, y ^ one)
                two = Self.mix(y ^ s3, x ^ two)
                next += 16
                left -= 16
            }
            let x = left >= 8 ? next.loadUnaligned(as: UInt64.self) : Self.tail(next, left)
            let y = left > 8 ? Self.tail(next + 8, left - 8) : 0
            one = Self.mix(x ^ s2, y ^ one)
            two = Self.mix(y ^ s3, x ^ two)
        }
        let high = Self.finalise(Self.mix(one ^ s4, count ^ s5))
        let low = Self.finalise(Self.mix(two ^ s5, count ^ s4) &+ s0)
        return UInt128(high) << 64 | UInt128(low)
    }

    /// Up to 8 bytes as a number; which number of bytes it was, the length tells.
    @inline(__always)
    private static func tail(_ start: UnsafeRawPointer, _ count: Int) -> UInt64 {
        if count >= 4 {
            let low = start.loadUnaligned(as: UInt32.self)
            let high = start.loadUnaligned(fromByteOffset: count - 4, as: UInt32.self)
            return UInt64(low) | UInt64(high) << 32
        }
        guard count > 0 else { return 0 }
        let first = start.load(as: UInt8.self)
        let middle = start.load(fromByteOffset: count >> 1, as: UInt8.self)
        let last = start.load(fromByteOffset: count - 1, as: UInt8.self)
        return UInt64(first) << 16 | UInt64(middle) << 8 | UInt64(last)
    }

    /// Keeps its inputs beside the product, so that an input of zero does not wipe the state out.
    @inline(__always)
    private static func mix(_ x: UInt64, _ y: UInt64) -> UInt64 {
        let product = x.multipliedFullWidth(by: y)
        return x ^ y ^ product.high ^ product.low
    }

    @inline(__always)
    private static func finalise(_ value: UInt64) -> UInt64 {
        var mixed = value
        mixed = (mixed ^ (mixed >> 32)) &* 0xD6E8_FEB8_6659_FD93
        mixed = (mixed ^ (mixed >> 32)) &* 0xD6E8_FEB8_6659_FD93
        return mixed ^ (mixed >> 32)
    }
}
