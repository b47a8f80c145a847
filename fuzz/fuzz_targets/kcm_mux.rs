//! libFuzzer's entrance to `bodies/kcm_mux.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../bodies/kcm_mux.rs"]
mod kcm_mux;

fuzz_target!(|bytes: &[u8]| kcm_mux::run(bytes));
