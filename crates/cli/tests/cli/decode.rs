//! `peyk decode` on captures that the test writes, and on what is none.

use std::{
    fs::File,
    io::BufWriter,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use peyk_wire::{
    homa::{Header, Packet, PacketType},
    pcapng::{Carriage, Envelope, Writer},
};

/// Writes a capture with one BUSY packet over UDP.
fn capture(name: &str) -> std::path::PathBuf {
    let path = crate::common::path(name);
    let mut writer = Writer::new(BufWriter::new(File::create(&path).unwrap())).unwrap();
    let packet = Packet::Busy(Header::new(PacketType::Busy, 4_000, 32_768, 43));
    let mut bytes = vec![0; packet.emit_len()];
    let length = packet.emit(&mut bytes);
    let host = |n, port| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, n)), port);
    let envelope = Envelope {
        time_ns: 1_000_000_000,
        source: host(1, 14_600),
        destination: host(2, 14_600),
        carriage: Carriage::Udp,
        traffic_class: 0xe0,
    };
    writer.write(&envelope, &[&bytes[..length]]).unwrap();
    drop(writer.into_inner());
    path
}

#[test]
fn packets_become_lines() {
    let output = crate::common::run(&["decode", capture("busy.pcapng").to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in ["10.0.0.1:14600", "10.0.0.2:14600", "BUSY", "43"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn what_is_no_capture_is_refused() {
    let path = crate::common::path("no-capture");
    std::fs::write(&path, "certainly not a capture file").unwrap();
    for file in [path.to_str().unwrap(), "/nonexistent/capture.pcapng"] {
        let output = crate::common::peyk(&["decode", file]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.starts_with("peyk: ") && text.contains(file), "{text}");
    }
}
