//! libFuzzer's entrance to `bodies/wire_packet.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../bodies/wire_packet.rs"]
mod wire_packet;

fuzz_target!(|bytes: &[u8]| wire_packet::run(bytes));
