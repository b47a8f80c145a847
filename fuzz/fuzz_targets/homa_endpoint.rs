//! libFuzzer's entrance to `bodies/homa_endpoint.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../bodies/homa_endpoint.rs"]
mod homa_endpoint;

fuzz_target!(|bytes: &[u8]| {
    homa_endpoint::run(bytes);
});
