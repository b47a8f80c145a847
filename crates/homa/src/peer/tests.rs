//! Finding, bounding and forgetting peers.

use super::*;

fn path(text: &str, local: u16) -> Path {
    Path { remote: text.parse().unwrap(), local }
}

fn peers(max: u32) -> Peers {
    let config = Config { max_peers: max, peer_gc_threshold: 2, ..Config::default() };
    Peers::new(&config, 1)
}

#[test]
fn mapped_and_plain_ipv4_are_one_peer() {
    let mut peers = peers(10);
    let (a, _) = peers.create(&path("10.0.0.1:14600", 0), 0).unwrap();
    assert_eq!(peers.find(&path("[::ffff:10.0.0.1]:14600", 0)), Some(a));
    assert_eq!(peers.find(&path("10.0.0.1:14601", 0)), None);
    assert_eq!(peers.find(&path("10.0.0.1:14600", 1)), None);
    let (b, _) = peers.create(&path("[::ffff:10.0.0.2]:5", 0), 0).unwrap();
    assert!(peers[b].path.remote.is_ipv4());
}

#[test]
fn segment_sizes() {
    // HomaModule on raw IP: 1424 and 1404 at MTU 1500, 8924 at 9000; UDP takes 8 more.
    for (remote, mtu, bytes) in [
        ("10.0.0.1:0", 1500, 1424),
        ("[fd00::1]:0", 1500, 1404),
        ("10.0.0.1:0", 9000, 8924),
        ("10.0.0.1:14600", 1500, 1416),
        ("[fd00::1]:14600", 1500, 1396),
        ("[::ffff:10.0.0.1]:14600", 1500, 1416),
    ] {
        let mut peers = peers(10);
        let path = path(remote, 0);
        assert!(peers.set_mtu(path.remote.ip(), mtu));
        let (peer, _) = peers.create(&path, 0).unwrap();
        assert_eq!(peers[peer].segment, bytes);
    }
    assert!(!peers(1).set_mtu("10.0.0.1".parse().unwrap(), 100));
}

#[test]
fn a_full_table_evicts_only_idle_peers_without_rpcs() {
    let mut peers = peers(2);
    let (a, _) = peers.create(&path("10.0.0.1:1", 0), 0).unwrap();
    let (b, _) = peers.create(&path("10.0.0.2:1", 0), 0).unwrap();
    peers[a].rpcs = 1;
    assert_eq!(peers.create(&path("10.0.0.3:1", 0), 9_999), None);
    let (c, evicted) = peers.create(&path("10.0.0.3:1", 0), 10_000).unwrap();
    assert_eq!((c, evicted), (b, Some(b)));
    assert_eq!(peers.find(&path("10.0.0.2:1", 0)), None);
    assert_eq!(peers.find(&path("10.0.0.1:1", 0)), Some(a));
    assert_eq!(peers.len(), 2);
}

#[test]
fn collect_starts_at_the_threshold() {
    let mut peers = peers(10);
    peers.create(&path("10.0.0.1:1", 0), 0).unwrap();
    assert_eq!(peers.collect(1_000_000), None);
    peers.create(&path("10.0.0.2:1", 0), 0).unwrap();
    assert!(peers.collect(1_000_000).is_some());
    assert_eq!(peers.len(), 1);
}
