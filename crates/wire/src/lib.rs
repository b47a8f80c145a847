//! Bytes to values and back: Homa packets, pretty-printing, pcapng.
