"""What of a journal is synced, read from its files by the format's document, without bridge."""
import os
import struct


class JournalState:
    """Follows one journal directory. A block is looked at once."""

    def __init__(self, directory):
        self.directory = directory
        # By segment: how far its blocks were read, and the frontier there.
        self.known = {}

    def durable_end(self):
        """The state file's newest valid slot as (segment, offset); None if there is none yet."""
        try:
            with open(os.path.join(self.directory, "state"), "rb") as file:
                data = file.read(1024)
        except FileNotFoundError:
            return None
        best = None
        for start in (0, 512):
            slot = data[start:start + 64]
            if len(slot) < 64 or slot[:8] != b"BRIDGEJS" or crc32c(slot[:60]) != struct.unpack(">I", slot[60:])[0]:
                continue
            sequence, _, segment, offset = struct.unpack(">QQQQ", slot[16:48])
            if best is None or sequence > best[0]:
                best = (sequence, segment, offset)
        return best and best[1:]

    def durable_frontier(self):
        """Everything that the source committed before this position is synced here; None before there is a journal."""
        end = self.durable_end()
        if end is None:
            return None
        segment, limit = end
        path = self.path(segment)
        with open(path, "rb") as file:
            offset, frontier = self.known.get(segment, (0, 0))
            if offset == 0:
                header = file.read(136)
                offset = struct.unpack(">I", header[20:24])[0]
                frontier = max(struct.unpack(">Q", header[88:96])[0], struct.unpack(">Q", header[112:120])[0])
            while offset < limit:
                file.seek(offset)
                descriptor = file.read(160)
                if len(descriptor) < 160 or descriptor[8:12] != b"BJBK":
                    break
                frontier = max(frontier, struct.unpack(">Q", descriptor[104:112])[0])
                offset += 160 + struct.unpack(">Q", descriptor[32:40])[0]
        self.known[segment] = (offset, frontier)
        return frontier

    def path(self, segment):
        return os.path.join(self.directory, f"segment-{segment:012}.lz4")


def _table():
    table = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
        table.append(number)
    return table


_TABLE = _table()


def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
