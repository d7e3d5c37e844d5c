#pragma once
// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), as iSCSI defines it in RFC 3720: initial value and final
// exclusive-or all ones. The processor's own instruction where it has one, a table otherwise.
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

static inline int bridge_crc32c_has_instruction(void) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSE4_2) != 0;
}

__attribute__((target("sse4.2")))
static inline uint32_t bridge_crc32c_instruction(uint32_t crc, const unsigned char *bytes, size_t count) {
    uint64_t state = crc;
    for (; count >= 8; bytes += 8, count -= 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        state = __builtin_ia32_crc32di(state, word);
    }
    uint32_t rest = (uint32_t)state;
    for (; count > 0; bytes++, count--) rest = __builtin_ia32_crc32qi(rest, *bytes);
    return rest;
}
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>

static inline int bridge_crc32c_has_instruction(void) { return 1; }

static inline uint32_t bridge_crc32c_instruction(uint32_t crc, const unsigned char *bytes, size_t count) {
    for (; count >= 8; bytes += 8, count -= 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        crc = __crc32cd(crc, word);
    }
    for (; count > 0; bytes++, count--) crc = __crc32cb(crc, *bytes);
    return crc;
}
#else
static inline int bridge_crc32c_has_instruction(void) { return 0; }

static inline uint32_t bridge_crc32c_instruction(uint32_t crc, const unsigned char *bytes, size_t count) {
    (void)bytes;
    (void)count;
    return crc;
}
#endif

/// Eight tables of 256 entries, for eight bytes a step.
static inline void bridge_crc32c_fill_tables(uint32_t *tables) {
    for (uint32_t index = 0; index < 256; index++) {
        uint32_t value = index;
        for (int bit = 0; bit < 8; bit++) value = (value >> 1) ^ (0x82F63B78u & (0u - (value & 1u)));
        tables[index] = value;
    }
    for (uint32_t index = 0; index < 256; index++) {
        for (int table = 1; table < 8; table++) {
            uint32_t before = tables[(table - 1) * 256 + index];
            tables[table * 256 + index] = (before >> 8) ^ tables[before & 0xFF];
        }
    }
}

static inline uint32_t bridge_crc32c_table(
    const uint32_t *tables, uint32_t crc, const unsigned char *bytes, size_t count
) {
    for (; count >= 8; bytes += 8, count -= 8) {
        uint32_t low = crc ^ ((uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16
                              | (uint32_t)bytes[3] << 24);
        crc = tables[7 * 256 + (low & 0xFF)] ^ tables[6 * 256 + (low >> 8 & 0xFF)]
            ^ tables[5 * 256 + (low >> 16 & 0xFF)] ^ tables[4 * 256 + (low >> 24)]
            ^ tables[3 * 256 + bytes[4]] ^ tables[2 * 256 + bytes[5]]
            ^ tables[1 * 256 + bytes[6]] ^ tables[bytes[7]];
    }
    for (; count > 0; bytes++, count--) crc = (crc >> 8) ^ tables[(crc ^ *bytes) & 0xFF];
    return crc;
}
