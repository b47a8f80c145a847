//! libFuzzer's entrance to `bodies/kcm_bpf.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../bodies/kcm_bpf.rs"]
mod kcm_bpf;

fuzz_target!(|bytes: &[u8]| kcm_bpf::run(bytes));
