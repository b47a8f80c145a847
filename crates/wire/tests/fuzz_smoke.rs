//! The bodies of the fuzz targets on a stable compiler, for about a second. The real fuzzer is in
//! `fuzz/`.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the time limit of the test is real time"
)]

use std::time::Duration;

#[path = "../../../fuzz/bodies/smoke.rs"]
mod smoke;
#[path = "../../../fuzz/bodies/wire_packet.rs"]
mod wire_packet;
#[path = "../../../fuzz/bodies/wire_pcap.rs"]
mod wire_pcap;

const TIME: Duration = Duration::from_millis(500);

#[test]
fn wire_packet_smoke() {
    smoke::smoke("wire_packet", TIME, wire_packet::run);
}

#[test]
fn wire_pcap_smoke() {
    smoke::smoke("wire_pcap", TIME, wire_pcap::run);
}
