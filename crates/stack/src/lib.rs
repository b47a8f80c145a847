//! Shards and drivers: where protocols meet I/O.
