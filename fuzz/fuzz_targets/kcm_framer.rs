//! libFuzzer's entrance to `bodies/kcm_framer.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../bodies/kcm_framer.rs"]
mod kcm_framer;

fuzz_target!(|bytes: &[u8]| kcm_framer::run(bytes));
