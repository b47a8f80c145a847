//! The bodies of the fuzz targets on a stable compiler, for about a second. The real fuzzer is in
//! `fuzz/`.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the time limit of the test is real time"
)]

use std::time::Duration;

#[path = "../../../fuzz/bodies/kcm_bpf.rs"]
mod kcm_bpf;
#[path = "../../../fuzz/bodies/kcm_framer.rs"]
mod kcm_framer;
#[path = "../../../fuzz/bodies/kcm_mux.rs"]
mod kcm_mux;
#[path = "../../../fuzz/bodies/smoke.rs"]
mod smoke;

const TIME: Duration = Duration::from_millis(400);

#[test]
fn kcm_framer_smoke() {
    smoke::smoke("kcm_framer", TIME, kcm_framer::run);
}

#[test]
fn kcm_bpf_smoke() {
    smoke::smoke("kcm_bpf", TIME, kcm_bpf::run);
}

#[test]
fn kcm_mux_smoke() {
    smoke::smoke("kcm_mux", TIME, kcm_mux::run);
}
