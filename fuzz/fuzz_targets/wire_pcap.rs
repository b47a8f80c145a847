//! libFuzzer's entrance to `bodies/wire_pcap.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../bodies/wire_pcap.rs"]
mod wire_pcap;

fuzz_target!(|bytes: &[u8]| wire_pcap::run(bytes));
